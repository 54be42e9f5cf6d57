"""Holds a run of several processes against one of a single process, and kills some of them.

The single process has as many devices as there are processes; how far both are from one device is
printed too. The CNN computes in float64: in float32, of several hundred thousand units some are so
near their kinks that rounding decides (docs/parallelism.md, "How equal, in figures").

    python benchmarks/hosts.py                  on loopback
    sudo python benchmarks/hosts.py --netns     each process in a network namespace of its own, with
                                                an address and a host name (Linux, iproute2)

Every check prints a line; the exit status is 1 if one fails. With dropout off, as the devices of a
pmap drop other units than a single one does.
"""

import argparse
import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from idx_files import idx_bytes

from jaxnets.data.idx import FILES, read_idx
from jaxnets.models import create_model
from jaxnets.runs.request import read_config
from jaxnets.runs.run_folder import CONFIG, RunFolder

ROOT = Path(__file__).resolve().parent.parent
TOLERANCE = 1e-6
# 20 steps an epoch, the last batch ragged: 55,000 = 19 x 2800 + 1800. In float64 XLA's convolutions
# are slow: the CNN has 6,000 images, 5,400 of them to train on, 19 x 280 + 80.
# At the recipe's own rate 1e-7 becomes 1e-2 in twenty steps.
CASES = {
    "cnn": (
        "--model=cnn",
        "--dropout=0",
        "--augment=shift",
        "--validation_size=600",
        "--batch_size=280",
        "--epochs=1",
        "--learning_rate=0.01",
    ),
    "mlp": ("--model=mlp", "--batch_size=2800", "--epochs=2"),
}
# Long enough to be killed in the middle; saved often enough to lose little. With a sigmoid, which
# has no kink: one process, which adds up in another order, could see a ReLU on its other side.
LONG = ("--model=mlp", "--activation=sigmoid", "--augment=shift", "--batch_size=480", "--epochs=4",
        "--checkpoint_every=20steps")  # fmt: skip
SIGNALS = {signal.SIGKILL: "kill", signal.SIGTERM: "term"}


class Hosts:
    """Where the processes run: this machine, or namespaces on a bridge, 10.77.0.1 and on."""

    def __init__(self, count: int, namespaces: bool):
        """Of `count` hosts."""
        self.count, self.namespaces = count, namespaces
        self.names = [f"jaxhost{number}" for number in range(count)] if namespaces else []

    def __enter__(self) -> "Hosts":
        if self.namespaces:
            ip("link add jaxbridge type bridge")
            ip("link set jaxbridge up")
        for number, name in enumerate(self.names):
            ip(f"netns add {name}")
            ip(f"link add {name} type veth peer name eth0 netns {name}")
            ip(f"link set {name} master jaxbridge up")
            ip(f"-n {name} addr add 10.77.0.{number + 1}/24 dev eth0")
            ip(f"-n {name} link set eth0 up")
            ip(f"-n {name} link set lo up")
            folder = Path("/etc/netns") / name  # `ip netns exec` lays it over /etc.
            folder.mkdir(parents=True, exist_ok=True)
            lines = [f"10.77.0.{n + 1} {other}" for n, other in enumerate(self.names)]
            (folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))
        return self

    def __exit__(self, *exception) -> None:
        for name in self.names:
            ip(f"netns del {name}")
            (Path("/etc/netns") / name / "hosts").unlink()
            (Path("/etc/netns") / name).rmdir()
        if self.namespaces:
            ip("link del jaxbridge")

    def start(self, flags: Sequence[str]) -> list[subprocess.Popen]:
        """Starts train.py on each."""
        with socket.socket() as free:
            free.bind(("", 0))
            port = free.getsockname()[1]
        address = "10.77.0.1" if self.namespaces else "127.0.0.1"
        return [
            train(
                *flags, f"--coordinator={address}:{port}", f"--num_processes={self.count}",
                f"--process_id={number}", on=self.names[number] if self.names else None,
            )
            for number in range(self.count)
        ]  # fmt: skip


def write_part(folder: Path, sizes: Mapping[str, int]) -> None:
    """Writes the first images of each part of MNIST, and their labels, as IDX files."""
    folder.mkdir()
    for file in FILES:
        packed = ROOT / "jaxnets" / "data" / "mnist" / f"{file}.gz"
        count = sizes["train" if file.startswith("train") else "test"]
        array = read_idx(packed, 3 if "images" in file else 1)[:count]
        (folder / file).write_bytes(idx_bytes(array))


def ip(arguments: str) -> None:
    """Runs `ip`."""
    subprocess.run(["ip", *arguments.split()], check=True)


def train(*flags: str, on: str | None = None) -> subprocess.Popen:
    """Starts train.py, on a host if it is named."""
    command = [sys.executable, str(ROOT / "train.py"), *flags]
    if on is not None:
        inside = ["unshare", "--uts", "sh", "-c", f'hostname {on} && exec "$@"', "sh"]
        command = ["ip", "netns", "exec", on, *inside, *command]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, **pipes)


def ends(processes: Sequence[subprocess.Popen], seconds: float = 1800) -> list[tuple[int, str]]:
    """Each one's exit status and what it wrote to stderr, without the line on whom it awaits."""
    outcomes = []
    for process in processes:
        lines = process.communicate(timeout=seconds)[1].strip().split("\n")
        lines = [line for line in lines if not line.startswith("note: process ")]
        outcomes.append((process.returncode, "\n".join(lines)))
    return outcomes


def params_of(folder: Path) -> list[np.ndarray]:
    """The last checkpoint's parameters."""
    run = RunFolder.open(str(folder))
    written, config = run.read(CONFIG), read_config(run)
    model = create_model(config, written["num_classes"])
    image = jax.ShapeDtypeStruct((1, *written["image_shape"]), "float32")
    like = jax.eval_shape(lambda key, x: model.init(key, x)["params"], jax.random.key(0), image)
    return jax.tree.leaves(run.read_params(like)[1])


def difference(one: Path, other: Path) -> float:
    """The largest between the parameters of two runs."""
    pairs = zip(params_of(one), params_of(other), strict=True)
    return max(float(np.abs(a - b).max()) for a, b in pairs)


@contextlib.contextmanager
def in_the_middle(hosts: Hosts, folder: Path) -> Iterator[list[subprocess.Popen]]:
    """A long run, once it has saved its second epoch."""
    processes = hosts.start((*LONG, f"--workdir={folder}"))
    try:
        while not any(int(p.stem) >= 230 for p in folder.glob("checkpoints/[0-9]*.safetensors")):
            if processes[0].poll() is not None:
                raise SystemExit(f"it ended early: {processes[0].communicate()}")
            time.sleep(0.1)
        yield processes
    finally:
        for process in processes:
            process.kill()


def main() -> int:
    """Runs the checks; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--netns", action="store_true", help="in network namespaces")
    parser.add_argument("--processes", default="2,4", help="how many [2,4]")
    parser.add_argument("--only", default="cnn,mlp,kill,term", help="which [cnn,mlp,kill,term]")
    parser.add_argument("--precision", default="float64", help="of the CNN [float64]")
    asked = parser.parse_args()
    only, failed = asked.only.split(","), 0
    jax.config.update("jax_enable_x64", True)  # Here for what is read and compared.
    base = Path(tempfile.mkdtemp(prefix="jaxnets-hosts-"))

    def say(what: str, good: bool, figure: str) -> None:
        nonlocal failed
        failed += not good
        print(f"{'ok  ' if good else 'FAIL'}  {what}: {figure}", flush=True)

    place = "namespaces" if asked.netns else "loopback"
    print(f"jax {jax.__version__}, {os.cpu_count()} cores, {place}")
    counts = list(map(int, asked.processes.split(",")))
    write_part(base / "mnist", {"train": 6000, "test": 1000})
    part = (f"--data_dir={base / 'mnist'}", f"--precision={asked.precision}")
    for name in [name for name in CASES if name in only]:
        flags = (*CASES[name], *(part if name == "cnn" else ()))
        ends([train(*flags, f"--workdir={base / name}")])
        for count, way, gradients in itertools.product(counts, ("pmap", "jit"), ("auto", "manual")):
            as_asked = (*flags, f"--parallel={way}", f"--gradients={gradients}")
            folder = base / f"{name}-{count}-{way}-{gradients}"
            single = base / f"{folder.name}-in-one"
            ends([train(*as_asked, f"--cpu_devices={count}", f"--workdir={single}")])
            with Hosts(count, asked.netns) as hosts:
                outcomes = ends(hosts.start((*as_asked, f"--workdir={folder}")))
            what = f"{name}, {count} processes by {way}, gradients {gradients}"
            if any(status for status, _ in outcomes):
                say(what, False, str(outcomes))
                continue
            off, off_one = difference(single, folder), difference(base / name, folder)
            one, other = (json.loads((f / "result.json").read_text())["test_accuracy"]
                          for f in (single, folder))  # fmt: skip
            say(what, off <= TOLERANCE and one == other,
                f"{off:.1e}, test accuracy {other}; {off_one:.1e} from one device")  # fmt: skip
    for count in counts if {"kill", "term"} & set(only) else ():
        with Hosts(count, asked.netns) as hosts:
            whole = base / f"whole-{count}"
            ends(hosts.start((*LONG, f"--workdir={whole}")))
            signs = [sign for sign, name in SIGNALS.items() if name in only]
            for victim, sign in itertools.product((0, count - 1), signs):
                folder = base / f"{count}-{victim}-{sign.name}"
                with in_the_middle(hosts, folder) as processes:
                    started = time.monotonic()
                    processes[victim].send_signal(sign)
                    left = processes
                    if sign == signal.SIGKILL:
                        left = [p for n, p in enumerate(processes) if n != victim]
                    outcomes = ends(left, 60)
                    seconds = time.monotonic() - started
                wanted = 1 if sign == signal.SIGKILL else 128 + sign
                good = all(s == wanted and "\n" not in line for s, line in outcomes)
                what = f"{sign.name} to process {victim} of {count}"
                say(what, good, f"{seconds:.1f} s, {outcomes[0]}")
                resume = ("--resume", f"--workdir={folder}")
                ends([train(*resume)] if victim else hosts.start(resume))
                off = difference(whole, folder)
                how, bound = ("by one process", TOLERANCE) if victim else (f"by {count}", 0)
                say(f"resumed {how}", off <= bound, f"{off:.1e}")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
