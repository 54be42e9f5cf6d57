"""Runs each command under limits of memory (RLIMIT_DATA, RLIMIT_AS) and prints how it ends.

python benchmarks/memory.py [--limits=100,200,...] [--commands=cnn,...] [--kinds=DATA,AS] [--warm]

A process must end with status 0, or with 1 and one line on stderr that says that the memory is not
enough. Anything else is odd and printed: another status, more lines, a hang (fifteen seconds
without work, whatever else the machine does, or ten minutes in all).
Each process begins with an empty compilation cache, or with --warm with a full one. Exit status 1
if anything was odd.
"""

import argparse
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from idx_files import idx_bytes
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
DATA = "--data_dir={work} --validation_size=40 --batch_size=32 --epochs=1 --learning_rate=0.001"
MODELS = ("softmax", "mlp", "mlp_handwritten", "cnn", "alexnet_small", "alexnet")
COMMANDS = {
    **{name: f"train.py --model={name} {DATA} --workdir={{run}}" for name in MODELS},
    "predict": "-m jaxnets predict {work}/trained {work}/1.png",
    "summary": "-m jaxnets summary",
    "devices": "-m jaxnets devices",
    "gradcheck": "-m jaxnets gradcheck",
    "search": f"-m jaxnets search --model=mlp {DATA} --over=hidden=4,8 --seeds=2 --workdir={{run}}",
    "compare": "-m jaxnets compare --epochs=1 --data_dir={work} --workdir={run}",
}
IDLE, LONGEST = 15, 600  # Seconds.


def write_data(folder: Path) -> None:
    """Writes 200 training and 50 test images of 28 x 28 random bytes."""
    rng = np.random.default_rng(0)
    for part, size in (("train", 200), ("t10k", 50)):
        for kind, shape in (("images", (size, 28, 28)), ("labels", (size,))):
            array = rng.integers(0, 256 if kind == "images" else 10, shape)
            path = folder / f"{part}-{kind}-idx{array.ndim}-ubyte"
            path.write_bytes(idx_bytes(array.astype(np.uint8)))
    picture = Image.new("L", (28, 28))
    picture.paste(255, (12, 4, 16, 24))
    picture.save(folder / "1.png")


def cpu_seconds(pid: int) -> float:
    """The CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run(command: str, kind: str, limit: int, cache: str) -> tuple[str, str]:
    """Runs a command under a limit in MB: its status, in brackets if odd, and its stderr."""

    def set_limit() -> None:
        resource.setrlimit(getattr(resource, f"RLIMIT_{kind}"), (limit << 20, limit << 20))

    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": cache}
    process = subprocess.Popen(
        [sys.executable, *command.split()], cwd=ROOT, env=environment, preexec_fn=set_limit,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    used, end = -1.0, time.monotonic() + LONGEST
    while True:
        try:
            err = process.communicate(timeout=IDLE)[1]
            break
        except subprocess.TimeoutExpired:
            before, used = used, cpu_seconds(process.pid)
            if used - before < 0.05 or time.monotonic() > end:
                process.send_signal(signal.SIGKILL)
                return "hang", process.communicate()[1]
    status = process.returncode
    if status == 0 and "Traceback" not in err:
        return "0", err
    if status == 1 and re.fullmatch("error: .*not enough memory.*\n", err):
        return "1", err
    return f"({status})", err


def main() -> int:
    """Runs everything and prints a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--limits", default=",".join(map(str, range(100, 1600, 100))))
    parser.add_argument("--commands", default="softmax,cnn,alexnet_small")
    parser.add_argument("--kinds", default="DATA,AS")
    parser.add_argument("--warm", action="store_true")
    asked = parser.parse_args()
    limits, odd = [int(limit) for limit in asked.limits.split(",")], 0
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        write_data(work)
        flags = f"--model=cnn {DATA} --workdir={{work}}/trained".format(work=work)
        subprocess.run(
            [sys.executable, "train.py", *flags.split()], cwd=ROOT, check=True, capture_output=True
        )
        print(f"{'':20}{''.join(f'{limit:>6}' for limit in limits)}", flush=True)
        for title in asked.commands.split(","):
            for kind in asked.kinds.split(","):
                line, messages = f"{title:15}{kind:5}", []
                for limit in limits:
                    place, cache = work / f"{title}{kind}{limit}", work / f"{kind}{limit}"
                    command = COMMANDS[title].format(work=work, run=place)
                    cache = str(work / "cache" if asked.warm else f"{place}cache")
                    if asked.warm and limit == limits[0]:
                        run(command.replace(str(place), f"{place}warm"), kind, 1 << 20, cache)
                    status, err = run(command, kind, limit, cache)
                    line += f"{status:>6}"
                    if status not in ("0", "1"):
                        messages.append(
                            f"{title} {kind} {limit}: {status}: {err[:300]}...{err[-300:]}"
                        )
                print("\n".join([line, *messages]), flush=True)
                odd += len(messages)
    return int(odd > 0)


if __name__ == "__main__":
    sys.exit(main())
