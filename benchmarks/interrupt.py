"""Sends Ctrl-C (SIGINT) to each command at moments from its first millisecond on.

python benchmarks/interrupt.py [--moments=100] [--seconds=1.5] [--command=NAME]

A process must end with status 130 and one line on stderr, or with status 0 and all its work done.
Anything else is odd and printed: a traceback, another status, 0 though unfinished. Until the first
line of train.py or jaxnets/__main__.py the interrupt is Python's: these are counted apart, with the
last such moment. Exit status 1 if anything was odd.
"""

import argparse
import collections
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kill import write_data
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
DATA = "--model=softmax --data_dir={work} --validation_size=40 --batch_size=32"
# Each command, and what it has written or printed when its work is done.
COMMANDS = {
    "train": (f"train.py {DATA} --epochs=300 --workdir={{run}}", "result.json"),
    "predict": ("-m jaxnets predict {work}/trained {work}/1.png", "1.png\t"),
    "summary": ("-m jaxnets summary", "FLOPs"),
    "script": (f"{Path(sys.executable).with_name('jaxnets')} summary", "FLOPs"),
    "devices": ("-m jaxnets devices", "versions"),
    "gradcheck": ("-m jaxnets gradcheck --model=softmax", "agree"),
    "search": (
        f"-m jaxnets search {DATA} --over=learning_rate=0.1,0.2 --epochs=40 --workdir={{run}}",
        "results: ",
    ),
    "compare": (
        "-m jaxnets compare --models=softmax,mlp --curve=none --data_dir={work} --workdir={run}",
        "results: ",
    ),
}
ODD, DONE, INTERRUPTED, PYTHON = "odd", "done", "130", "before our first line"


def interrupt(command: str, done: str, run: Path, delay: float) -> tuple[str, str]:
    """Starts a process and interrupts it: how it ended, and its stderr."""
    process = subprocess.Popen(
        [sys.executable, *command.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=600)
    if process.returncode == 130 and re.fullmatch(r"error: (interrupted|stopped at once).*\n", err):
        return INTERRUPTED, err
    finished = done in out or (run / done).exists()
    if process.returncode == 0 and finished and "Traceback" not in err:
        return DONE, err
    # No file of ours but the package's __init__ had begun, and nothing was dropped later on.
    ours = rf'File "{ROOT}/(?!jaxnets/__init__.py)|Exception ignored|^error: '
    if process.returncode in (-signal.SIGINT, 1) and not re.search(ours, err, re.MULTILINE):
        return PYTHON, err
    return ODD, f"status {process.returncode}: {err}"


def main() -> int:
    """Interrupts and prints a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--moments", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--command", choices=COMMANDS)
    asked = parser.parse_args()
    odd = 0
    signal.signal(signal.SIGINT, signal.default_int_handler)  # A shell's `command &` ignores it.
    print(f"{'command':10}{INTERRUPTED:>6}{DONE:>6}{PYTHON:>30}{ODD:>6}")
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        write_data(work)
        Image.new("L", (28, 28)).save(work / "1.png")
        flags = f"{DATA} --epochs=1 --workdir={{work}}/trained".format(work=work)
        train = [sys.executable, "train.py", *flags.split()]
        subprocess.run(train, cwd=ROOT, check=True, capture_output=True)
        for title in [asked.command] if asked.command else COMMANDS:
            found: collections.Counter[str] = collections.Counter()
            last = 0.0
            for number in range(asked.moments):
                delay, run = asked.seconds * number / asked.moments, work / f"{title}{number}"
                command, done = (text.format(work=work, run=run) for text in COMMANDS[title])
                ending, err = interrupt(command, done, run, delay)
                found[ending] += 1
                if ending == PYTHON:
                    last = delay
                if ending == ODD:
                    print(f"{title} after {delay:.3f} s: {err}")
            python = f"{found[PYTHON]} (the last after {last:.3f} s)"
            line = f"{found[INTERRUPTED]:6}{found[DONE]:6}{python:>30}{found[ODD]:6}"
            print(f"{title:10}{line}", flush=True)
            odd += found[ODD]
    return int(odd > 0)


if __name__ == "__main__":
    sys.exit(main())
