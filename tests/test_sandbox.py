"""The sandbox of `grade`: what is not there cannot be reached, differentiation least of all."""

import os
import platform
import shutil
import socket
import sys
import uuid
from pathlib import Path

import pytest
from conftest import ROOT
from hostile_submissions import AIMS, AUTODIFF, REACHES, RIGHT, all_in_one, relu

from jaxnets.course.exercises import child, sandbox, without_autodiff
from jaxnets.course.exercises.grade import Limits, Submission, run_submission
from jaxnets.course.exercises.judge import verdict
from jaxnets.course.exercises.sandbox import Sandbox
from jaxnets.errors import RunFailedError, UserError


@pytest.fixture
def run(bubblewrap, relu_cases):
    """Runs a submission of relu in its first setting, in float64."""

    def run(source):
        submission = Submission("ann", "relu_backward", source)
        return run_submission(submission, relu_cases, Limits(), bubblewrap)

    return run


def assert_right(answers, cases):
    assert not isinstance(answers, str), answers
    assert verdict("relu_backward", cases, answers)


def state_of_this_machine(folder):
    """What hostile submissions have changed before: files, this process, queues, devices."""
    return {
        "files": {path: (path.read_bytes(), path.stat().st_mode, path.stat().st_mtime_ns)
                  for path in sorted(folder.rglob("*"))},
        "python": Path(os.__file__).stat()[:9],
        "null": os.stat(os.devnull)[:3],
        "queues": [Path(f"/proc/sysvipc/{kind}").read_text() for kind in ("msg", "sem", "shm")],
        "priority": os.getpriority(os.PRIO_PROCESS, 0),
        "processors": os.sched_getaffinity(0),
        "scheduler": os.sched_getscheduler(0),
    }  # fmt: skip


@pytest.mark.skipif(platform.machine() != "x86_64", reason="calls have x86-64's numbers")
def test_a_submission_reaches_nothing_of_the_machine(run, relu_cases, tmp_path, monkeypatch):
    password = uuid.uuid4().hex
    monkeypatch.setenv("JAXNETS_TEST", password)
    target = tmp_path / "target"
    target.write_text("the teacher's")
    abstract = f"jaxnets-{uuid.uuid4().hex}"
    before = state_of_this_machine(tmp_path)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        server.setblocking(False)
        unix.bind(f"\0{abstract}")
        unix.listen()
        unix.setblocking(False)
        names = dict(TARGET=target, ROOT=ROOT, PORT=server.getsockname()[1])
        names |= dict(SOCKET=abstract, PASSWORD=password)
        answers = run(all_in_one(REACHES, **names))
        for listening in (server, unix):
            with pytest.raises(BlockingIOError):
                listening.accept()
    assert_right(answers, relu_cases)
    assert state_of_this_machine(tmp_path) == before


def test_a_submission_reaches_no_autodiff(run, relu_cases):
    assert_right(run(all_in_one(AUTODIFF)), relu_cases)


@pytest.mark.slow
@pytest.mark.parametrize("name", AIMS)
def test_a_submission_that_aims_at_the_grader_misses_it(name, run, tmp_path):
    before = state_of_this_machine(tmp_path)
    run(all_in_one({name: AIMS[name]}))  # It may have ended its own sandbox.
    assert state_of_this_machine(tmp_path) == before


def test_a_container_s_command_shuts_the_submission_in():
    for kind in ("podman", "docker"):
        command = Sandbox(kind, "an-image").command("print()", 3072, "a-name")
        assert command[:4] == [kind, "run", "--rm", "--interactive"]
        image = command.index("an-image")
        assert {
            "--name=a-name",
            "--pull=never",
            "--network=none",
            "--read-only",
            "--cap-drop=ALL",
            "--security-opt=no-new-privileges",
            "--user=65534:65534",
            "--ipc=private",
            "--pids-limit=256",
            "--memory=3072m",
            "--memory-swap=3072m",
            "--workdir=/",
            "--entrypoint=python",
        } == set(command[4:image])  # No folder of this machine is mounted.
        assert command[image + 1 :] == ["-I", "-S", "-B", "-c", "print()", "", "/packages"]


@pytest.mark.slow
def test_a_containers_packages_are_enough(tmp_path, run_python, relu_cases, monkeypatch):
    """What the image in docs/teachers/grading.md holds runs a submission by itself."""
    folder = tmp_path / "packages"
    made = run_python("-m", "jaxnets.course.exercises.without_autodiff", folder)
    assert made.status == 0, made
    monkeypatch.setattr(sandbox, "packages_folder", lambda: folder)
    monkeypatch.setattr(sandbox, "site_folders", lambda: [])
    submission = Submission("ann", "relu_backward", relu(RIGHT))
    answers = run_submission(submission, relu_cases, Limits(), Sandbox(sandbox.TRUST))
    assert_right(answers, relu_cases)


def test_what_cannot_start_says_why(monkeypatch, tmp_path):
    (tmp_path / "podman").write_text(f"#!{sys.executable}\n1/0\n")
    (tmp_path / "podman").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="podman cannot start: ZeroDivisionError: division by zero"):
        Sandbox("podman", "an-image").check()


def test_the_filter_knows_the_calls_of_each_architecture():
    for machine, calls in sandbox.REFUSED.items():
        program = sandbox.filter_of_calls(machine)
        assert len(program) == 8 * (6 + 2 * len(calls) + 2 + 5)
        assert sandbox.ARCHITECTURES[machine].to_bytes(4, "little") in program


def test_a_child_that_says_too_much_is_read_no_further(bubblewrap):
    said = bubblewrap.run("while True: print('x' * 1000)", b"", most=5000)
    assert said is not None and 5000 < len(said) < 5000 + (1 << 20)


def test_a_child_that_reads_nothing_is_heard_all_the_same(bubblewrap):
    assert bubblewrap.run("print('ready')", bytes(1 << 22)) == b"ready\n"


def test_a_child_whose_time_is_over_is_none(bubblewrap):
    program = f"import time; print({child.STARTED.decode()!r}, end='', flush=True); time.sleep(600)"
    assert bubblewrap.run(program, b"", wait=0.5) is None


@pytest.mark.slow
def test_a_copy_of_jax_that_still_differentiates_is_refused(cache, monkeypatch):
    """As that of a later JAX might, whose autodiff stood elsewhere."""
    monkeypatch.setattr(without_autodiff, "_copy", shutil.copytree)
    with pytest.raises(RunFailedError, match="without autodiff: it still differentiates"):
        without_autodiff.packages_folder()
    assert not [path for path in cache.rglob("*") if path.is_dir() and path.name == "jax"]
