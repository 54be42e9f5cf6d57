"""The sandbox of `grade`: hostile submissions harm nothing, and none passes unseen."""

import ast
import os
import platform
import socket
import sys
import uuid
from pathlib import Path

import pytest
from conftest import ROOT
from hostile_submissions import (
    AIMS,
    ANSWERS,
    AUTODIFF,
    HARMLESS,
    REACHES,
    RIGHT,
    ROUND_THE_CHECKS,
    all_in_one,
    relu,
)

from jaxnets.base.errors import UserError
from jaxnets.course.exercises import sandbox
from jaxnets.course.exercises.apart import answers_in, task_of
from jaxnets.course.exercises.files import suspicion, violation
from jaxnets.course.exercises.judge import cases_of, verdict
from jaxnets.course.exercises.sandbox import Limits, Sandbox


@pytest.fixture
def run(bubblewrap, relu_cases):
    """Runs a submission of relu in its first setting, in float64."""

    def run(source):
        given = frozenset[str]()
        task = task_of("relu_backward", source, given, relu_cases, Limits(), bubblewrap)
        return answers_in(bubblewrap.run(task, Limits()), relu_cases, Limits())

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
        # Not shm: the tests' PostgreSQL has such memory, and counts its processes there.
        "queues": [Path(f"/proc/sysvipc/{kind}").read_text() for kind in ("msg", "sem")],
        "priority": os.getpriority(os.PRIO_PROCESS, 0),
        "processors": os.sched_getaffinity(0),
        "scheduler": os.sched_getscheduler(0),
    }  # fmt: skip


@pytest.mark.parametrize(("factor", "shown"), [("1", True), ("(1 + 1e-12)", False)])
def test_a_submission_is_judged_without_a_tolerance(bubblewrap, factor, shown):
    cases = cases_of("sigmoid_backward")
    source = f"def sigmoid_backward(cache, dy):\n    return {factor} * dy * cache * (1 - cache)\n"
    task = task_of("sigmoid_backward", source, frozenset(), cases, Limits(), bubblewrap)
    answers = answers_in(bubblewrap.run(task, Limits()), cases, Limits())
    assert not isinstance(answers, str), answers
    found = verdict("sigmoid_backward", cases, answers)
    assert found.row is not None and found.row.within_tolerances
    assert bool(found) == shown == (found.row.shown == found.row.asked > 0)


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


@pytest.mark.slow
def test_what_a_submission_starts_and_keeps_ends_with_it(run, relu_cases, tmp_path):
    before = state_of_this_machine(tmp_path)
    assert_right(run(all_in_one(HARMLESS)), relu_cases)
    assert state_of_this_machine(tmp_path) == before


@pytest.mark.slow
@pytest.mark.parametrize("name", AIMS)
def test_a_submission_that_aims_at_the_grader_misses_it(name, run, tmp_path):
    before = state_of_this_machine(tmp_path)
    run(all_in_one({name: AIMS[name]}))  # It may have ended its own sandbox.
    assert state_of_this_machine(tmp_path) == before


def test_no_usual_way_to_a_derivative_passes(run, relu_cases):
    """Even where nobody has looked at the source."""
    assert_right(run(all_in_one(AUTODIFF)), relu_cases)


def test_no_answer_is_within_a_submission_s_reach(run, relu_cases):
    """Neither the package, nor its files, nor another library that differentiates."""
    assert_right(run(all_in_one(ANSWERS, ROOT=ROOT)), relu_cases)


@pytest.mark.slow
def test_a_submission_has_what_its_exercise_imports_and_no_more(bubblewrap, judge_in_float64):
    """The pass that bug6 imports is there, also under its module's name; that of conv is not."""
    lines = "from jaxnets.backprop.dense import dense_backward\n"
    lines += "def bug6(cache, dz):\n    dense_backward(cache, dz)\n"
    cases = cases_of("bug6")[:1]
    for module, said in (("dense", "it returns nothing"), ("convolution", "ModuleNotFoundError")):
        source = f"{lines}    __import__('jaxnets.backprop.{module}')\n"
        given = frozenset({"jaxnets.backprop.dense.dense_backward"})
        task = task_of("bug6", source, given, cases, Limits(), bubblewrap)
        found = answers_in(bubblewrap.run(task, Limits()), cases, Limits())
        assert isinstance(found, str) and said in found


WAYS = AUTODIFF | ROUND_THE_CHECKS


@pytest.mark.parametrize("name", WAYS)
def test_a_way_round_is_refused_or_flagged(name):
    tree = ast.parse(relu(WAYS[name]))  # Without its imports, which are refused anyway.
    assert violation(tree) or suspicion(tree)


@pytest.mark.parametrize("name", REACHES | HARMLESS | AIMS)
def test_what_reaches_for_the_machine_is_refused(name):
    code = (REACHES | HARMLESS | AIMS)[name]
    assert violation(ast.parse(all_in_one({name: code})))


def test_what_the_look_cannot_refuse_is_flagged_with_its_line():
    for code, flag in (
        ("getattr(jax, 'gr' + 'ad')", "getattr"),
        ("jax.lax._src", "_src"),
        ("np.ctypeslib", "ctypeslib"),
        ("f(jnp, assigned='grad')", "'grad'"),
        ("jnp.where.__globals__", "__globals__"),
        ("jax.nn.relu.jvp_jaxpr_fun", "jvp_jaxpr_fun"),
    ):
        tree = ast.parse(relu(f'"""The gradient, as grad gives it."""\nreturn {code}'))
        assert violation(tree) is None and suspicion(tree) == f"line 7: {flag}"
    assert suspicion(ast.parse(relu(RIGHT))) == ""


def test_a_container_s_command_shuts_the_submission_in():
    for kind in ("podman", "docker"):
        command = Sandbox(kind, "an-image").command(["-m", "a_module"], "a-name", 2048)
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
            "--env=JAX_PLATFORMS=cpu",
            "--entrypoint=python",
        } == set(command[4:image])  # No folder of this machine is mounted.
        assert command[image + 1 :] == ["-P", "-B", "-m", "a_module"]


def test_what_cannot_start_says_why(monkeypatch, tmp_path):
    (tmp_path / "podman").write_text(f"#!{sys.executable}\n1/0\n")
    (tmp_path / "podman").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="podman cannot start: ZeroDivisionError: division by zero"):
        Sandbox("podman", "an-image").check()


@pytest.fixture
def child(monkeypatch):
    """A sandbox whose child is a given program."""

    def run(program, limits=Limits()):  # noqa: B008
        where = Sandbox(sandbox.TRUST)
        command = [sys.executable, "-c", program]
        monkeypatch.setattr(where, "command", lambda *_: command)
        return where.run(bytes(1 << 22), limits)

    return run


BEGINS = f"""
import os, sys, time
sys.stdin.buffer.read()
os.write(1, {sandbox.STARTED!r})
"""


def test_a_child_that_says_too_much_is_read_no_further(child):
    outcome = child(BEGINS + "while True: print('x' * 1000)")
    assert outcome.started and len(outcome.said) == sandbox.MOST_ANSWER + 1


def test_a_child_that_reads_nothing_is_heard_all_the_same(child):
    assert child("print('no memory')") == (b"no memory\n", False, False, False)


def test_a_child_whose_time_is_over_is_ended(child):
    assert child(BEGINS + "time.sleep(600)", Limits(wait=0.5)) == (b"", True, True, False)


def test_a_child_that_is_killed_says_so(child):
    assert child(BEGINS + "os.kill(os.getpid(), 9)") == (b"", True, False, True)
