"""One run of several processes: on this machine, over loopback, against a run of one process."""

import contextlib
import json
import re
import socket
import time
from types import SimpleNamespace

import chex
import jax
import numpy as np
import psutil
import pytest
from conftest import HANGS, assert_resume_hint, params_sha256, saved_params

from jaxnets.data.batches import eval_batches, train_batches
from jaxnets.data.datasets import Split
from jaxnets.machine.distributed import find_place, parse_exit_message
from jaxnets.training.parallel import Parallel

# Every step is dispatched by itself, as always with gradients=both, with 4 examples of which each
# process reads 2.
FLAGS = ("--model=softmax", "--gradients=both", "--augment=shift", "--learning_rate=0.05")
FLAGS += ("--batch_size=4", "--checkpoint_every=30steps", "--validation_size=39")


def calling_before_step_50(function: str) -> str:
    """Code that runs train.py and calls before_step_50(stop), which `function` defines."""
    return f"""
import itertools, pathlib, resource, runpy, signal, sys, time
{function}
from jaxnets.machine.distributed import SynchronisedStop

ask, asked = SynchronisedStop.__call__, itertools.count(1)

def call_and_ask(self):
    if next(asked) == 50:
        before_step_50(self)
    return ask(self)

SynchronisedStop.__call__ = call_and_ask
sys.argv[0] = "train.py"
runpy.run_path("train.py", run_name="__main__")
"""


# A SIGTERM, after which it waits until the processes have agreed on a step.
INTERRUPTED = calling_before_step_50("""
def before_step_50(stop):
    signal.raise_signal(signal.SIGTERM)
    while not stop._signal:
        time.sleep(0.01)
""")

# With room for 256 files, it waits until the test has done its worst.
HELD = calling_before_step_50("""
resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
folder = pathlib.Path(sys.argv.pop())

def before_step_50(stop):
    (folder / sys.argv[-1]).touch()
    while not (folder / "go").exists():
        time.sleep(0.05)
""")

# A stranger speaks to the port as JAX does, to set two keys that once ended or changed a run.
STRANGER = """
import sys
from jax._src.lib import _jax

client = _jax.get_distributed_runtime_client(sys.argv[1], 1, init_timeout=2)
client.connect()
client.key_value_set("jaxnets/ended/000099", '["all done", 0]')
client.key_value_set("jaxnets/folder", '{"path": "/tmp", "files": {"/tmp/victim": "x"}}')
print("told them")
"""

# train.py that waits for the others for some seconds only.
IMPATIENT = """
import runpy, sys
from jaxnets.machine import distributed

distributed.JOIN_SECONDS = 6
sys.argv[0] = "train.py"
runpy.run_path("train.py", run_name="__main__")
"""


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def wait_for(condition, processes):
    """Waits until something holds, while the processes live."""
    deadline = time.monotonic() + HANGS
    while not condition():
        assert all(process.poll() is None for process in processes), processes[0].communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ended(process):
    """What a process printed on stdout and, after the line that names whom it awaits, on stderr."""
    out, error = process.communicate(timeout=HANGS)
    line, _, error = error.partition("\n")
    assert re.fullmatch(r"note: process [01] of 2 waits for process .* until \d\d:\d\d:\d\d", line)
    return out, error


def listening(process):
    """The addresses and ports on which a process listens."""
    connections = psutil.Process(process.pid).net_connections("inet")
    return {(c.laddr[0], c.laddr[1]) for c in connections if c.status == psutil.CONN_LISTEN}


@pytest.fixture
def start_processes(start_python, tiny_folder):
    """Starts train.py in two processes that find each other; the second may get flags or code."""
    started = []

    def start(*flags, second=(), code=None):
        common = [*FLAGS, f"--data_dir={tiny_folder}", *flags]
        common += [f"--coordinator=127.0.0.1:{free_port()}", "--num_processes=2"]
        script = ("-c", code) if code else ("train.py",)
        started.append(start_python("train.py", *common, "--process_id=0"))
        started.append(start_python(*script, *common, "--process_id=1", *second))
        return started

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_a_signal_to_one_stops_all_and_one_process_resumes_to_the_same_end(
    start_processes, run_main, tiny_folder, tmp_path
):
    folder = tmp_path / "two"
    processes = start_processes("--epochs=40", f"--workdir={folder}", code=INTERRUPTED)
    (out, *errors) = [text for process in processes for text in ended(process)]
    assert errors[1] == "" and errors[2] == errors[0]
    assert_resume_hint(errors[0], "interrupted", folder)
    assert [process.returncode for process in processes] == [143, 143]
    assert out.startswith("softmax: ") and "as 2 devices" in out.splitlines()[0]

    assert run_main("--resume", f"--workdir={folder}").status == 0
    single_process = (*FLAGS, "--epochs=40", f"--data_dir={tiny_folder}")
    assert run_main(*single_process, f"--workdir={tmp_path / 'one'}").status == 0
    two, one = (saved_params(tmp_path / name)[1] for name in ("two", "one"))
    chex.assert_trees_all_close(two, one, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_others_in_a_line(start_processes, tmp_path):
    folder = tmp_path / "run"
    processes = start_processes("--epochs=100000", f"--workdir={folder}")
    wait_for((folder / "metrics.jsonl").exists, processes)  # An epoch is trained.
    processes[0].kill()  # The one on which JAX's own runtime depends.
    out, error = ended(processes[1])
    assert (processes[1].returncode, out) == (1, "")
    assert error.startswith("error: another process was lost") and error.count("\n") == 1, error


@pytest.mark.slow
def test_strangers_and_a_late_process_change_nothing(
    start_python, start_processes, run_python, tiny_folder, tmp_path, monkeypatch
):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    # An address that is not the one of this machine's name.
    host, port = "127.0.0.2", free_port()
    flags = [*FLAGS, f"--data_dir={tiny_folder}", "--epochs=2", f"--workdir={tmp_path / 'run'}"]
    flags += [f"--coordinator={host}:{port}", "--num_processes=2"]

    def attack():
        stranger = run_python("-c", STRANGER, f"{host}:{port}")
        assert stranger.status != 0 and stranger.out == "", stranger

    def start(process_id):
        return start_python("-c", HELD, *flags, f"--process_id={process_id}", tmp_path)

    with start(0) as first:
        wait_for(lambda: (host, port) in listening(first), [first])
        assert listening(first) == {(host, port)}
        attack()  # While process 0 waits for the other.
        with start(1) as second:
            processes = [first, second]
            wait_for(lambda: len(list(tmp_path.glob("--process_id=*"))) == 2, processes)
            attack()  # While they train.
            for process_id in (0, 1):
                late = run_python("-c", IMPATIENT, *flags, f"--process_id={process_id}")
                line = "not all 2 joined" if process_id == 0 else "process 0 did not answer"
                assert (late.status, late.out) == (2, "")
                note, error = late.err.splitlines()
                assert note.startswith(f"note: process {process_id} of 2 waits for process ")
                assert error.startswith("error: coordinator") and line in error
            # JAX's sums, and nothing else, on the run's network; the port is closed.
            assert {address for address, _ in listening(first)} == {host}
            assert {address for address, _ in listening(second)} == {"127.0.0.1"}
            assert (host, port) not in listening(first)
            with contextlib.ExitStack() as idle:
                for address in [*listening(first), *listening(second)] * 300:
                    idle.enter_context(socket.create_connection(address, HANGS)).send(b"garbage")
                (tmp_path / "go").touch()
                for process in processes:
                    assert (ended(process)[1], process.returncode) == ("", 0)
    for process in start_processes("--epochs=2", f"--workdir={tmp_path / 'left alone'}"):
        assert (ended(process)[1], process.returncode) == ("", 0)
    assert params_sha256(tmp_path / "run") == params_sha256(tmp_path / "left alone")
    assert not [path for path in temporary.rglob("*") if not path.is_dir()]


def test_processes_with_different_flags_are_refused(start_processes, tmp_path):
    folder = tmp_path / "run"
    processes = start_processes(f"--workdir={folder}", second=("--learning_rate=0.25",))
    said = "error: learning_rate: expected the same on all processes, process 0 has 0.05, "
    for process in processes:
        out, error = ended(process)
        assert (process.returncode, out, error) == (2, "", f"{said}process 1 0.25\n")
    assert not folder.exists()


def test_an_exit_message_is_read_and_a_strangers_is_refused():
    ours = ["process 1 ended: it", 143]
    assert parse_exit_message(json.dumps(ours)) == tuple(ours)
    texts = ['["too much", 256]', '["below", -1]', '["true", true]', '["half", 1.5]', '["it"]']
    texts += ['[["no text"], 1]', '["done", 0]', '"ab"', "7", "{}", "x", "[" * 100_000]
    for received in texts:
        assert parse_exit_message(received) is None, received[:20]


def test_where_jax_finds_no_processes_the_flags_are_named(run_python):
    outcome = run_python("train.py", "--distributed")
    outcome.assert_refused("distributed: JAX finds no TPU pod, SLURM, Open MPI or Kubernetes")


def test_a_run_over_a_network_needs_a_secret(run_main, monkeypatch):
    monkeypatch.delenv("JAXNETS_SECRET", raising=False)
    flags = ("--coordinator=203.0.113.9:8476", "--num_processes=2", "--process_id=1")
    run_main(*flags).assert_refused("coordinator: expected a secret that all processes share")
    monkeypatch.setenv("JAXNETS_SECRET", "s" * 32)
    run_main(*flags[:2], "--process_id=0").assert_refused("coordinator: cannot listen on 203.0.113")
    run_main(*flags, "--secret_file=no/such").assert_refused(
        "secret_file: expected a file that only you can read"
    )


def test_what_a_cluster_says_of_its_processes_is_taken(monkeypatch):
    """SLURM's variables, as its manual describes them."""
    slurm = dict(JOB_ID=4097, STEP_NODELIST="node[07-09]", NTASKS=3, PROCID=2, LOCALID=0)
    for name, value in slurm.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    assert find_place(None, None, None) == (f"node07:{61440 + 1}", 3, 2)


def test_other_commands_do_not_connect(run_command):
    flags = ("--coordinator=here:1234", "--num_processes=2", "--process_id=0")
    run_command("devices", *flags).assert_refused("only train.py supports")


class Seen:
    """Images that remember which of them were read."""

    def __init__(self, images):
        self.images, self.rows = images, []

    def __getitem__(self, rows):
        self.rows.extend(rows.tolist())
        return self.images[rows]


@pytest.mark.parametrize("way", ["train", "eval"])
def test_the_shares_of_processes_are_the_batch_and_nobody_reads_anothers(tiny, way):
    def batches(split, rows=slice(None)):
        if way == "eval":
            return eval_batches(split, 24, rows)
        return train_batches(split, 24, seed=3, epoch=1, augment="shift", rows=rows)

    whole = list(batches(tiny.train))
    shares, read = [], []
    for rows in (slice(0, 8), slice(8, 24)):
        seen = Seen(tiny.train.images)
        shares.append(list(batches(Split(seen, tiny.train.labels), rows)))
        read.append([row for row in seen.rows if row])  # 0 is also what pads the last batch.
    for batch, *parts in zip(whole, *shares, strict=True):
        for ours, theirs in zip(batch, zip(*parts, strict=True), strict=True):
            np.testing.assert_array_equal(ours, np.concatenate(theirs))
    assert not set(read[0]) & set(read[1]) and len(read[0] + read[1]) in (159, 160)


def test_each_process_has_the_rows_of_its_own_devices(monkeypatch):
    processes = (0, 0, 1, 1, 2, 2)
    devices = [SimpleNamespace(process_index=n, platform="cpu") for n in processes]
    monkeypatch.setattr("jaxnets.training.parallel.Mesh", lambda *_: None)
    for process in range(3):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        assert Parallel(devices).rows(24) == slice(8 * process, 8 * process + 8)
