"""A PostgreSQL in a folder of the tests', as a fixture."""

import os
import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from processes import HANGS, free_port


class Postgres:
    """A database server in a folder."""

    def __init__(self, programs, folder, port, as_user, psycopg):
        """Makes its files; the owner's password is "s3cret"."""
        self.port, self._folder, self._as_user, self._psycopg = port, folder, as_user, psycopg
        self._programs = programs
        (Path(folder) / "password").write_text("s3cret")
        flags = ["-U", "owner", "-A", "scram-sha-256", "-E", "UTF8", "--locale=C", "--no-sync"]
        self._run("initdb", *flags, f"--pwfile={folder}/password")

    def _run(self, program, *flags):
        command = [self._programs / program, "-D", f"{self._folder}/data", *flags]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "cwd": "/"}
        subprocess.run(command, check=True, timeout=HANGS, **quiet, **self._as_user)

    def start(self):
        """Starts it; it listens then."""
        options = f"-k {self._folder} -h 127.0.0.1 -p {self.port} -F"
        self._run("pg_ctl", "start", "-w", "-t", str(HANGS), "-l", f"{self._folder}/log",
                  "-o", options)  # fmt: skip

    def stop(self, how="immediate"):
        """Stops it; immediate is like a power cut."""
        self._run("pg_ctl", "stop", "-w", "-m", how)

    def url(self, database, user="owner:s3cret"):
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def ask(self, database, text, *values):
        """What a statement of the owner's returns."""
        with self._psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(text, values or None)
            return cursor.fetchall() if cursor.description else None

    def create(self):
        """The URL of a new database."""
        name = f"test_{secrets.token_hex(4)}"
        self.ask("postgres", f"create database {name}")
        return self.url(name)


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL of Debian's, as the user nobody if this is root; makes databases by name."""
    psycopg = pytest.importorskip("psycopg", reason="pip install -e '.[postgres]' brings it")
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    as_user = {"user": "nobody", "group": "nogroup"} if os.getuid() == 0 else {}
    with tempfile.TemporaryDirectory() as folder:
        if as_user:
            shutil.chown(folder, **as_user)
        server = Postgres(programs, folder, free_port(), as_user, psycopg)
        server.start()
        yield server
        server.stop()
