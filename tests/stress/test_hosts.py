"""Runs of several processes beside one of a single process; some are killed, and resumed.

On loopback, or as root with `--netns` each process in a network namespace of its own, with an
address and a host name (Linux, iproute2).

The single process has as many devices as there are processes. The CNN computes in float64: in
float32, of several hundred thousand units some are so near their kinks that rounding decides
(benchmarks/notes/parallelism.md). With dropout off, as the devices of a pmap drop
other units than a single one does.
"""

import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import (
    HANGS,
    ROOT,
    free_port,
    params_sha256,
    read_json,
    saved_params,
    write_idx_folder,
)

pytestmark = pytest.mark.stress

TOLERANCE = 1e-6
# 20 steps an epoch, the last batch ragged: 55,000 = 19 x 2800 + 1800. In float64 XLA's convolutions
# are slow: the CNN has 6,000 images, 5,400 of them to train on, 19 x 280 + 80.
# At the recipe's own rate 1e-7 becomes 1e-2 in twenty steps.
CASES = {
    "cnn": ("--model=cnn", "--precision=float64", "--dropout=0", "--augment=shift",
            "--validation_size=600", "--batch_size=280", "--epochs=1", "--learning_rate=0.01"),
    "mlp": ("--model=mlp", "--batch_size=2800", "--epochs=2"),
}  # fmt: skip
# Long enough to be killed in the middle; saved often enough to lose little. With a sigmoid, which
# has no kink: one process, which adds up in another order, could see a ReLU on its other side.
LONG = ("--model=mlp", "--activation=sigmoid", "--augment=shift", "--batch_size=480", "--epochs=4",
        "--checkpoint_every=20steps")  # fmt: skip


def ip(arguments):
    subprocess.run(["ip", *arguments.split()], check=True)


@contextlib.contextmanager
def namespaces(names):
    """Hosts of these names on a bridge: 10.77.0.1 and on."""
    with contextlib.ExitStack() as stack:
        ip("link add jaxbridge type bridge")
        stack.callback(ip, "link del jaxbridge")
        ip("link set jaxbridge up")
        lines = [f"10.77.0.{number} {name}" for number, name in enumerate(names, start=1)]
        for number, name in enumerate(names, start=1):
            ip(f"netns add {name}")
            stack.callback(ip, f"netns del {name}")
            ip(f"link add {name} type veth peer name eth0 netns {name}")
            ip(f"link set {name} master jaxbridge up")
            ip(f"-n {name} addr add 10.77.0.{number}/24 dev eth0")
            ip(f"-n {name} link set eth0 up")
            ip(f"-n {name} link set lo up")
            folder = Path("/etc/netns") / name  # `ip netns exec` lays it over /etc.
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))
            stack.callback(folder.rmdir)
            stack.callback((folder / "hosts").unlink)
        yield


@pytest.fixture(params=[2, 4])
def hosts(request):
    """Starts train.py in each of so many processes; the last one's number goes with it."""
    apart = request.config.getoption("netns")
    names, started = [f"jaxhost{number}" for number in range(request.param)], []

    def start(*flags):
        address = f"{'10.77.0.1' if apart else '127.0.0.1'}:{free_port()}"
        flags += f"--coordinator={address}", f"--num_processes={request.param}"
        inside = 'hostname "$0" && exec "$@"'
        processes = []
        for number, name in enumerate(names):
            on = ["ip", "netns", "exec", name, "unshare", "--uts", "sh", "-c", inside, name]
            processes.append(train(*flags, f"--process_id={number}", on=on if apart else []))
        started.extend(processes)
        return processes

    with namespaces(names) if apart else contextlib.nullcontext():
        yield request.param, start
        for process in started:
            process.kill()
            process.communicate()


def train(*flags, on=()):
    """Starts train.py."""
    command = [*on, sys.executable, str(ROOT / "train.py"), *flags]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def ends(*processes):
    """Each one's exit status and what it wrote to stderr, without the line on whom it awaits."""
    texts = [process.communicate(timeout=3 * HANGS)[1].decode() for process in processes]
    kept = ["".join(t for t in text.splitlines(True) if "note: process" not in t) for text in texts]
    return list(zip((process.returncode for process in processes), kept, strict=True))


def difference(one, other):
    """The largest between the parameters of two runs."""
    (_, ours), (_, theirs) = saved_params(one), saved_params(other)
    assert set(ours) == set(theirs)
    return max(float(np.abs(ours[name] - theirs[name]).max()) for name in ours)


@pytest.mark.parametrize("gradients", ["auto", "manual"])
@pytest.mark.parametrize("way", ["pmap", "shard_map", "jit"])
@pytest.mark.parametrize("name", CASES)
def test_several_processes_train_as_one_does(name, way, gradients, hosts, mnist, tmp_path):
    count, start = hosts
    flags = [*CASES[name], f"--parallel={way}", f"--gradients={gradients}"]
    if name == "cnn":
        parts = {"train": (mnist.train, 6000), "t10k": (mnist.test, 1000)}
        arrays = {f"{part}-images": split.images[:n, ..., 0] for part, (split, n) in parts.items()}
        arrays |= {f"{part}-labels": split.labels[:n] for part, (split, n) in parts.items()}
        flags.append(f"--data_dir={write_idx_folder(tmp_path / 'data', arrays)}")
    one, several = tmp_path / "one", tmp_path / "several"
    assert ends(train(*flags, f"--cpu_devices={count}", f"--workdir={one}"))[0][0] == 0
    ended = ends(*start(*flags, f"--workdir={several}"))
    assert [status for status, _ in ended] == [0] * count, ended
    assert difference(one, several) <= TOLERANCE
    results = [read_json(folder / "result.json")["test_accuracy"] for folder in (one, several)]
    assert results[0] == results[1]


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("victim", [0, -1])
def test_what_ends_one_process_ends_all_and_it_resumes(victim, sign, hosts, tmp_path):
    count, start = hosts
    whole, folder = tmp_path / "whole", tmp_path / "run"
    assert {status for status, _ in ends(*start(*LONG, f"--workdir={whole}"))} == {0}
    processes = start(*LONG, f"--workdir={folder}")
    while not any(int(p.stem) >= 230 for p in folder.glob("checkpoints/[0-9]*.safetensors")):
        assert processes[0].poll() is None, processes[0].communicate()
        time.sleep(0.1)
    processes[victim].send_signal(sign)
    if sign == signal.SIGKILL:
        ends(processes.pop(victim))
    for status, line in ends(*processes):
        assert status == 128 + sign or (sign == signal.SIGKILL and status), line
    resume = "--resume", f"--workdir={folder}"
    ended = ends(*start(*resume)) if victim == 0 else ends(train(*resume))
    assert {status for status, _ in ended} == {0}, ended
    if victim == 0:
        assert params_sha256(folder) == params_sha256(whole)
    assert difference(whole, folder) <= TOLERANCE
