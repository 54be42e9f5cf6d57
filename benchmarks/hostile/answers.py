"""Hostile logs of an A/B test: CSV and the server's SQLite, written by somebody else."""

import json
import sqlite3
from pathlib import Path

from hostile.damage import TEXTS, Rng, damage, half, letters, status_of

CELLS = [*TEXTS, "A", "B", "1", "2026-11-26", "9999-12-31T23:59:59-23:59", "inf", '"', ",", "\r"]
QUERIES = [
    "drop table feedback",
    "create view v as select * from feedback",
    "alter table feedback rename column arm to leg",
    "insert into setting values ('x', zeroblob(100000))",
    "pragma user_version = -1",
    "pragma application_id = 7",
    "delete from feedback where arm = 'B'",
]


def log_samples(folder: Path) -> dict[str, bytes]:
    """The same answers as CSV and as the server keeps them."""
    from jaxnets.deploy.server.feedback import Feedback, FeedbackLog

    rows = [
        Feedback(float(n), f"user {n % 90}", "cnn", "1", "AB"[n % 2], "7", None, n % 3 > 0, f"r{n}")
        for n in range(300)
    ]
    log = FeedbackLog(folder / "log.sqlite")
    log.append(rows)
    log.close()
    lines = [f"{row.time},{row.user},{row.model},{row.arm},{row.correct:d}\n" for row in rows]
    return {
        "csv": ("time,user,model,arm,correct\n" + "".join(lines)).encode(),
        "sqlite": (folder / "log.sqlite").read_bytes(),
    }


def log_case(sample: dict[str, bytes], folder: Path, rng: Rng) -> None:
    """A damaged log, read and tested as `jaxnets abtest LOG` does it."""
    from jaxnets.deploy.abtest import presentation, trial
    from jaxnets.deploy.answer_log import read_users
    from jaxnets.display import show

    path, kind = folder / "log", rng.choice(sorted(sample))
    if kind == "csv" and half(rng):
        path.write_bytes(_other_cells(sample["csv"], rng))
    elif kind == "sqlite" and half(rng):
        _write_database(path, sample["sqlite"], rng)
    else:
        path.write_bytes(damage(rng, sample[kind], sample[rng.choice(sorted(sample))]))

    def test() -> None:
        found = trial.evaluate(read_users(str(path)), trial.Plan())
        show(presentation.to_text(found, path.name))
        json.dumps(presentation.to_values(found), allow_nan=False)

    status_of(test)


def _other_cells(content: bytes, rng: Rng) -> bytes:
    """The CSV with a few cells exchanged."""
    lines = content.decode().splitlines(keepends=True)
    for _ in range(rng.randint(1, 4)):
        at = rng.randint(0, len(lines) - 1) if half(rng) else 0
        cells = lines[at].rstrip("\n").split(",")
        cells[rng.randint(0, len(cells) - 1)] = rng.choice([*CELLS, letters(rng)])
        lines[at] = ",".join(cells) + "\n"
    return "".join(lines).encode("utf-8", "surrogatepass")


def _write_database(path: Path, content: bytes, rng: Rng) -> None:
    """A sound database with other tables, or with cells that the server would not write."""
    path.write_bytes(content)
    database = sqlite3.connect(path)
    database.execute("pragma ignore_check_constraints = on")
    if half(rng):
        database.execute(rng.choice(QUERIES))
    else:
        column = rng.choice(["time", "user", "model", "version", "arm", "label", "correct"])
        value = rng.choice([None, -1, 2**62, 0.5, float("inf"), b"\xff", "x" * 5000, "\x1b[2J"])
        database.execute(f"update or ignore feedback set {column} = ? where id % 7 = 0", [value])
    database.commit()
    database.close()
