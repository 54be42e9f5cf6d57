"""Grading: right submissions pass, hostile ones neither pass nor harm."""

import json
import os
import socket
import textwrap
from pathlib import Path

import numpy as np
import pytest

from jaxnets.exercises import grade
from jaxnets.exercises.catalogue import exercises
from jaxnets.exercises.confine import can_confine
from jaxnets.exercises.grade import Limits, grade_folder, run_confined
from jaxnets.exercises.judge import cases_of, verdict
from jaxnets.exercises.new import text_of

pytest.importorskip("resource", reason="Windows cannot limit a process")
confined = pytest.mark.skipif(not can_confine(), reason="needs seccomp on x86-64")

RIGHT = "return jnp.where(cache > 0, dy, 0)"


def relu(body, above=""):
    """A submission of the exercise relu."""
    body = textwrap.indent(textwrap.dedent(body).strip(), "    ")
    return (
        f"import jax\nimport jax.numpy as jnp\n{above}\n\ndef relu_backward(cache, dy):\n{body}\n"
    )


# Each breaks the rules, crashes, or answers wrongly. None may pass.
HOSTILE = {
    "prints_passed": relu("print('relu_backward: passed')\nreturn dy"),
    "returns_passed": relu("return 'passed'"),
    "returns_true": relu("return True"),
    "returns_nothing": relu("pass"),
    "returns_blank": relu("return ..."),
    "returns_tuple": relu(f"return {RIGHT[7:]}, 0"),
    "returns_function": relu("return lambda: dy"),
    "returns_nan": relu("return dy * jnp.nan"),
    "returns_infinity": relu("return dy / 0"),
    "returns_complex": relu(
        "return jnp.where(cache > 0, dy, 0) + jnp.zeros((), complex) + dy * 0 + (-1) ** 0.5"
    ),
    "returns_integers": relu("return jnp.where(cache > 0, dy, 0).astype(int)"),
    "returns_low_precision": relu("return jnp.where(cache > 0, dy, 0).astype(jnp.float16)"),
    "wrong_shape": relu("return jnp.where(cache > 0, dy, 0)[None]"),
    "transposed": relu("return jnp.where(cache > 0, dy, 0).T"),
    "empty": relu("return jnp.zeros(0)"),
    "huge_array": relu("return jnp.zeros((1 << 16, 1 << 16)) + dy.sum()"),
    "wrong_sign": relu("return -jnp.where(cache > 0, dy, 0)"),
    "at_ties_only": relu("return jnp.where(cache >= 0, dy, 0)"),
    "raises": relu("raise ValueError('passed')"),
    "raises_exit": relu("raise SystemExit(0)"),
    "raises_exit_above": relu(RIGHT.replace("> 0", "> 1"), "raise SystemExit(0)"),
    "recursion": relu("return relu_backward(cache, dy)"),
    "exits": relu("sys.exit(0)", "import sys"),
    "exits_at_once": relu("os._exit(0)", "import os"),
    "quits": relu("quit()"),
    "signals": relu("signal.raise_signal(9)", "import signal"),
    "kills_parent": relu("os.kill(os.getppid(), 9)", "import os"),
    "forks": relu("while True: os.fork()", "import os"),
    "threads": relu("while True: threading.Thread(target=print).start()", "import threading"),
    "starts_a_shell": relu("os.system('touch PWNED')", "import os"),
    "starts_a_process": relu("subprocess.run(['touch', 'PWNED'])", "import subprocess"),
    "reads_a_file": relu("return open('/etc/passwd').read()"),
    "reads_by_numpy": relu("return np.fromfile('/etc/passwd')", "import numpy as np"),
    "writes_a_file": relu("open('PWNED', 'w').write('x')"),
    "writes_by_numpy": relu("dy.tofile('PWNED')"),
    "removes_files": relu("shutil.rmtree('.')", "import shutil"),
    "connects": relu("socket.create_connection(('127.0.0.1', 1))", "import socket"),
    "downloads": relu("urllib.request.urlopen('http://localhost')", "import urllib.request"),
    "patches_the_judge": relu(
        "return dy", "import jaxnets.exercises.judge as judge\njudge.verdict = lambda *a: True"
    ),
    "patches_numpy": relu("np.abs = lambda x: 0\nreturn dy", "import numpy as np"),
    "patches_jax": relu("return dy", "jnp.where = lambda *a: 0"),
    "patches_builtins": relu("__builtins__['abs'] = lambda x: 0\nreturn dy"),
    "imports_the_answer": relu(
        "return right(cache, dy)", "from jaxnets.backprop.relu import relu_backward as right"
    ),
    "imports_by_name": relu("return __import__('os').system('touch PWNED')"),
    "differentiates": relu("return jax.vjp(jax.nn.relu, cache)[1](dy)[0]"),
    "differentiates_by_grad": relu("return jax.grad(lambda x: (jax.nn.relu(x) * dy).sum())(cache)"),
    "differentiates_by_name": relu("return getattr(jax, 'v' + 'jp')(jax.nn.relu, cache)[1](dy)[0]"),
    "differentiates_secretly": relu("return jax.linearize(jax.nn.relu, cache)[1](dy)"),
    "climbs_frames": relu("return (x for x in ()).gi_frame.f_back.f_globals"),
    "climbs_classes": relu("return ().__class__.__base__.__subclasses__()"),
    "evaluates": relu("return eval('dy')"),
    "no_python": "def relu_backward(cache, dy:\n",
    "deep": "x = " + "(" * 5000 + ")" * 5000 + "\n" + relu(RIGHT),
    "another_name": relu(RIGHT).replace("relu_backward", "relu_backwards"),
    "too_long": relu(RIGHT) + "#" * 200_000,
    "binary": "\0" * 100,
}
# These keep the rules, and so they run.
ENDLESS = {
    "loops": relu("while True: pass"),
    "memory": relu("x = [0]\nwhile True: x = x + x"),
    "number": relu("return 9 ** 9 ** 9 ** 9 + dy"),
}


@pytest.fixture
def submissions(tmp_path):
    """A folder of submissions, each student's in a folder or a file of its own."""

    def write(files):
        folder = tmp_path / "submissions"
        folder.mkdir(exist_ok=True)
        for name, source in files.items():
            if name.endswith(".toml"):
                (folder / name).write_text(source)
            else:
                (folder / name).mkdir()
                (folder / name / "my_relu.py").write_text(source)
        return folder

    return write


def test_there_are_at_least_fifty_hostile_submissions():
    assert len(HOSTILE | ENDLESS) >= 50


def listing(folder):
    """Every file below a folder with its content, and links with what they lead to."""
    return {
        path: os.readlink(path) if path.is_symlink() else path.is_file() and path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }


@confined
@pytest.mark.slow
def test_none_of_the_hostile_passes_or_harms_and_the_honest_pass(submissions, tmp_path):
    honest = {
        "honest": relu(RIGHT),
        "in_numpy": relu("return np.where(cache > 0, dy, 0)", "import numpy as np"),
        "with_a_loop": relu("if dy.sum() > 0: print(dy)\n" + RIGHT),
    }
    folder = submissions(HOSTILE | honest)
    (folder / "link.py").symlink_to(folder / "honest" / "my_relu.py")
    (folder / "folder.py").symlink_to(folder / "honest")
    os.mkfifo(folder / "pipe.py")
    before = listing(tmp_path / "submissions" / "honest"), sorted(os.listdir())
    grades = list(grade_folder(str(folder), Limits(memory=1024)))
    assert {found.name for found in grades if found.passed} == set(honest)
    assert {found.name for found in grades} == {
        *HOSTILE,
        *honest,
        "link",
        "folder",
        "pipe",
    }
    reasons = {found.name: found.reason or found.wrong for found in grades if not found.passed}
    assert all(reasons.values())
    assert reasons["at_ties_only"] == reasons["wrong_sign"] == "dx"
    assert "by hand is derived without it" in reasons["differentiates"]
    assert (listing(tmp_path / "submissions" / "honest"), sorted(os.listdir())) == before
    assert not list(tmp_path.rglob("PWNED"))


@confined
@pytest.mark.slow
@pytest.mark.parametrize("name", ENDLESS)
def test_what_never_ends_or_has_enough_is_ended(name, submissions):
    folder = submissions({name: ENDLESS[name]})
    (found,) = grade_folder(str(folder), Limits(seconds=1, memory=1024, wait=60))
    assert not found.passed and found.reason


CASES = []


@pytest.fixture
def cases():
    """The exercise relu in its first setting, in float64."""
    if not CASES:
        CASES.extend(cases_of("relu_backward")[:1])
    return CASES


# What a submission could try that has slipped through the rules. TARGET is a file of the teacher's,
# PORT one that listens.
ESCAPES = {
    "reads": "return open('TARGET').read()",
    "writes": "open('TARGET', 'w').write('x')",
    "appends": "os.write(os.open('TARGET', os.O_WRONLY), b'x')",
    "removes": "os.remove('TARGET')",
    "renames": "os.rename('TARGET', 'TARGET.old')",
    "truncates": "os.truncate('TARGET', 0)",
    "links": "os.symlink('TARGET', 'TARGET.link')",
    "makes_a_folder": "os.mkdir('TARGET.folder')",
    "changes_rights": "os.chmod('TARGET', 0)",
    "connects": "socket.create_connection(('127.0.0.1', PORT))",
    "forks": "os.fork()",
    "starts": "subprocess.run(['touch', 'TARGET.new'])",
    "becomes": "os.execv('/bin/touch', ['touch', 'TARGET.new'])",
    "signals": "os.kill(os.getppid(), 15)",
    "raises_limits": "resource.setrlimit(resource.RLIMIT_CPU, (-1, -1))",
    "from_a_thread": """
        found = []
        def escape():
            try:
                open('TARGET', 'w')
            except OSError as error:
                found.append(error)
        thread = threading.Thread(target=escape)
        thread.start()
        thread.join()
        raise found[0]
    """,
}


@confined
@pytest.mark.slow
def test_what_slips_through_the_rules_still_reaches_nothing(cases, tmp_path):
    """All in one process: each escape must raise, and the honest line at the end still computes."""
    target = tmp_path / "target"
    target.write_text("the teacher's")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        port = str(server.getsockname()[1])
        body = ""
        for name, escape in ESCAPES.items():
            code = textwrap.indent(textwrap.dedent(escape).strip(), "    ")
            body += f"def {name}():\n{code}\n"
            body += f"try:\n    {name}()\nexcept Exception as error:\n    failed.append('{name}')\n"
        names = list(ESCAPES)
        body += f"return jnp.where(cache > 0, dy, 0) if failed == {names} else dy * len(failed)"
        body = body.replace("TARGET", str(target)).replace("PORT", port)
        above = "import os, resource, socket, subprocess, threading\nfailed = []"
        source = relu(body, above).replace(
            "def relu_backward(cache, dy):", "def relu_backward(cache, dy):\n    failed.clear()"
        )
        answers = run_confined(source, "relu_backward", cases, Limits())
        with pytest.raises(BlockingIOError):
            server.accept()
    assert not isinstance(answers, str), answers
    ratio = answers[0]["x"] / cases[0].call.d_out
    assert verdict("relu_backward", cases, answers), f"only {ratio.max()} of {len(names)} failed"
    assert target.read_text() == "the teacher's"
    assert list(tmp_path.iterdir()) == [target]


FORGED = {
    "exits": "os._exit(0)",
    "crashes": "os.abort()",
    "floods": "write(b'x' * (1 << 26)); return dy",
    "forges_nothing": "write(b'passed\\n'); os._exit(0)",
    "waits": "time.sleep(10 ** 6)",
    "writes_from_xla": "return jax.pure_callback(lambda x: open('TARGET', 'w'), dy, dy)",
}


@confined
@pytest.mark.slow
@pytest.mark.parametrize("name", FORGED)
def test_who_answers_for_the_judge_does_not_pass(name, cases, tmp_path):
    target = tmp_path / "target"
    target.write_text("the teacher's")
    body = FORGED[name].replace("TARGET", str(target))
    above = (
        "import os, time\n"
        "def write(content):\n"
        "    for found in range(3, 64):\n"
        "        try:\n            os.write(found, content)\n"
        "        except OSError:\n            pass\n"
    )
    limits = Limits(seconds=5, memory=1024, wait=5)
    assert isinstance(run_confined(relu(body, above), "relu_backward", cases, limits), str)
    assert target.read_text() == "the teacher's"


def answer(head, content=b""):
    return (head if isinstance(head, bytes) else json.dumps(head).encode()) + b"\n" + content


@pytest.mark.parametrize(
    "forged",
    [
        b"",
        b"passed",
        answer(b"[]"),
        answer(b"[" * 100_000),
        answer({"passed": True}),
        answer({"shapes": []}),
        answer({"shapes": [{"x": [4, 5]}]}, b"short"),
        answer({"shapes": [{"x": [1 << 40, 1 << 40]}]}),
        answer({"shapes": [{"x": [-1, -1]}]}, bytes(8)),
        answer({"shapes": [{"x": ["4", 5]}]}, bytes(160)),
        answer({"shapes": [{"y": [4, 5]}]}, bytes(160)),
        answer({"shapes": [{"x": [4, 5], "y": [1]}]}, bytes(168)),
        answer({"shapes": {"x": 1}}, bytes(8)),
        answer({"reason": "passed"}),
    ],
)
def test_a_forged_answer_is_no_gradient(forged, cases):
    assert isinstance(grade._arrays(forged, cases), str)


def test_an_answer_is_read_as_it_was_written(cases):
    right = cases[0].right["x"]
    found = grade._arrays(answer({"shapes": [{"x": right.shape}]}, right.tobytes()), cases)
    assert not isinstance(found, str)
    np.testing.assert_array_equal(found[0]["x"], right)
    assert verdict("relu_backward", cases, found)


@confined
@pytest.mark.slow
def test_a_batch_norm_is_graded_by_its_answer_and_its_mistake(tmp_path):
    """Its cache holds a dictionary and a number, and two of its gradients have no difference."""
    text = text_of(exercises()["batch_norm"])
    right = """axes = tuple(range(x.ndim - 1))
    d_scale, d_bias = (dy * normal).sum(axes), dy.sum(axes)
    dx = scale * r * (dy - weight * (d_bias + normal * d_scale) / count)
    """
    right = text[: text.index("d_scale = ...")] + right + text[text.index("return {") :]
    sources = {"ann": right, "ben": right.replace("weight * (", "("), "eve": text}
    for name, source in sources.items():
        (tmp_path / f"{name}.py").write_text(source)
    found = {row.name: row for row in grade_folder(str(tmp_path), Limits())}
    assert {row.exercise for row in found.values()} == {"batch_norm_backward"}
    assert found["ann"].passed, found["ann"]
    assert (found["ben"].passed, found["ben"].wrong) == (False, "dx")
    assert found["eve"].reason == 'd_params["bias"] is still ..., the blank to fill in'


def test_sheets_are_graded_beside_what_breaks_the_rules(submissions, run_command):
    files = {
        "ann.toml": 'exercise = "compute7"\nmean = 4\nsum = 12\nw_mean = 0.6\nw_sum = -0.2\n'
        "rate = 0.0333\n",
        "ben.toml": 'exercise = "compute7"\nmean = 4\nsum = 4\n',
        "eve.toml": "passed = true",
        "mallory": HOSTILE["forks"],
    }
    outcome = run_command("grade", submissions(files), "--json")
    assert outcome.status == 0
    rows = {row["name"]: row for row in json.loads(outcome.out)}
    assert rows["ann"] == dict(name="ann", exercise="compute7", passed=True, wrong="", reason="")
    assert not rows["ben"]["passed"]
    assert (rows["ben"]["wrong"], rows["ben"]["reason"]) == ("sum", "1 of 5 right")
    assert "exercise = " in rows["eve"]["reason"] and not rows["eve"]["passed"]
    assert rows["mallory"]["exercise"] == "relu_backward"
    assert rows["mallory"]["reason"].startswith("line 3: imports os")
    table = run_command("grade", submissions({}))
    assert table.status == 0 and "1 of 4 passed" in table.out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "expected SUBMISSIONS"),
        (["nowhere"], "nowhere: expected a folder of submissions"),
        (["empty"], "empty: expected files .py or .toml"),
        (["empty", "--seconds=0"], "seconds: expected"),
    ],
)
def test_a_wrong_request_is_refused_in_one_line(flags, said, run_command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    run_command("grade", *flags).assert_refused(said)


def test_a_system_that_cannot_confine_is_told_so(run_command, monkeypatch, submissions):
    monkeypatch.setattr(grade, "can_confine", lambda: False)
    folder = submissions({"mallory": HOSTILE["forks"]})
    run_command("grade", folder).assert_refused("--no_confined runs them with limits alone")
    assert run_command("grade", folder, "--no_confined").status == 0
