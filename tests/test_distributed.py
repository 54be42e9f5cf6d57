"""One run of several processes: on this machine, over loopback, against a run of one process."""

import contextlib
import re
import socket
import time
from types import SimpleNamespace

import chex
import jax
import numpy as np
import psutil
import pytest
from conftest import HANGS, assert_resume_hint, free_port, saved_params, stress

from jaxnets.data.batches import eval_batches, train_batches
from jaxnets.data.datasets import Split
from jaxnets.training.parallel import Parallel

# Every step is dispatched by itself, as always with gradients=both, with 4 examples of which each
# process reads 2.
FLAGS = ("--model=softmax", "--gradients=both", "--augment=shift", "--learning_rate=0.05")
FLAGS += ("--batch_size=4", "--checkpoint_every=30steps", "--validation_size=39")


# train.py with a SIGTERM in its step 50, after which it is slow: all agree on a step meanwhile.
INTERRUPTED = """
import runpy, signal, sys, time
from jax.experimental import multihost_utils

reached = multihost_utils.reached_preemption_sync_point

def signal_and_ask(step):
    if step == 50:
        signal.raise_signal(signal.SIGTERM)
    time.sleep(0.02 * (step >= 50))
    return reached(step)

multihost_utils.reached_preemption_sync_point = signal_and_ask
sys.argv[0] = "train.py"
runpy.run_path("train.py", run_name="__main__")
"""

# Nothing, HTTP, the preface of HTTP/2, zeros, ones, much of it, and garbage.
GREETINGS = (b"", b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
GREETINGS += (bytes(72), b"\xff" * 72, b"x" * (1 << 20), b"garbage")


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
    ports = [c.laddr for c in connections if c.status == psutil.CONN_LISTEN]
    return {(address.removeprefix("::ffff:"), port) for address, port in ports}  # gRPC's IPv4.


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
@pytest.mark.parametrize("kind", ["pmap", stress("shard_map")])
def test_a_signal_stops_all_and_one_process_resumes(
    start_processes, run_main, tiny_folder, tmp_path, kind
):
    folder, way = tmp_path / "two", f"--parallel={kind}"
    processes = start_processes("--epochs=40", way, f"--workdir={folder}", code=INTERRUPTED)
    (out, *errors) = [text for process in processes for text in ended(process)]
    assert_resume_hint(errors[0], "interrupted", folder)
    assert [process.returncode for process in processes] == [143, 143]
    assert "softmax: " in out and "as 2 devices" in out

    assert run_main("--resume", f"--workdir={folder}").status == 0
    single_process = (*FLAGS, "--epochs=40", f"--data_dir={tiny_folder}")
    assert run_main(*single_process, f"--workdir={tmp_path / 'one'}").status == 0
    two, one = (saved_params(tmp_path / name)[1] for name in ("two", "one"))
    chex.assert_trees_all_close(two, one, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_killed_process_ends_the_others(start_processes, tmp_path):
    folder = tmp_path / "run"
    processes = start_processes("--epochs=100000", f"--workdir={folder}")
    wait_for((folder / "metrics.jsonl").exists, processes)  # An epoch is trained.
    processes[0].kill()  # The one on which JAX's own runtime depends.
    ended(processes[1])
    assert processes[1].returncode != 0


@pytest.mark.slow
def test_garbage_and_idle_connections_change_nothing(start_python, tiny_folder, tmp_path):
    host, port = "127.0.0.2", free_port()
    flags = [*FLAGS, f"--data_dir={tiny_folder}", "--epochs=2", f"--workdir={tmp_path / 'run'}"]
    flags += [f"--coordinator={host}:{port}", "--num_processes=2"]
    with (
        contextlib.ExitStack() as strangers,
        start_python("train.py", *flags, "--process_id=0") as first,
    ):
        wait_for(lambda: (host, port) in listening(first), [first])
        assert listening(first) == {(host, port)}
        for greeting in GREETINGS * 40:
            stranger = socket.create_connection((host, port), HANGS)
            strangers.enter_context(stranger).settimeout(0.01)
            with contextlib.suppress(OSError):  # It may be cut off while it speaks.
                stranger.sendall(greeting)
        with start_python("train.py", *flags, "--process_id=1") as second:
            for process in (first, second):
                assert (ended(process)[1], process.returncode) == ("", 0)


@pytest.mark.slow
def test_processes_with_different_flags_are_refused(start_processes, tmp_path):
    folder = tmp_path / "run"
    processes = start_processes(f"--workdir={folder}", second=("--learning_rate=0.25",))
    said = "error: --learning_rate: expected the same on all processes, process 0 has 0.05, "
    for process in processes:
        assert ended(process)[1] == f"{said}process 1 0.25\n"
        assert process.returncode == 2
    assert not folder.exists()


def test_an_address_of_all_or_in_use_is_refused(run_main):
    place = ("--num_processes=2", "--process_id=0")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for address in ("0.0.0.0:80", f"127.0.0.1:{taken.getsockname()[1]}"):
            refused = run_main(f"--coordinator={address}", *place)
            refused.assert_refused(f"coordinator: cannot listen on {address} (")


def test_where_jax_finds_no_processes_the_flags_are_named(run_main):
    refused = run_main("--distributed")
    refused.assert_refused("distributed: JAX finds no TPU pod, SLURM, Open MPI or Kubernetes")


@pytest.mark.slow
def test_a_cluster_says_which_process_this_is(run_python, tiny_folder, tmp_path, monkeypatch):
    """SLURM's variables, as its manual describes them."""
    slurm = dict(JOB_ID=free_port(), STEP_NODELIST="localhost", NTASKS=1, PROCID=0, LOCALID=0)
    for name, value in slurm.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    flags = (*FLAGS, "--epochs=1", f"--data_dir={tiny_folder}", f"--workdir={tmp_path / 'run'}")
    outcome = run_python("train.py", "--distributed", *flags)
    assert (outcome.status, outcome.err) == (0, "")


class Seen:
    """Images that remember which of them were read."""

    def __init__(self, images):
        self.images, self.rows = images, []

    def __getitem__(self, rows):
        self.rows.extend(rows.tolist())
        return self.images[rows]


@pytest.mark.parametrize("way", ["train", "eval"])
def test_the_shares_of_processes_are_the_batch(tiny, way):
    def batches(split, rows=slice(None)):
        if way == "eval":
            return eval_batches(split, 24, rows)
        return train_batches(split, 24, seed=3, epoch=1, shifts=True, rows=rows)

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
