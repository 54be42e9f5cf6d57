"""Hostile files and command lines, 109,500 of them: does anything but a plain refusal come out?

    python benchmarks/fuzz.py [--cases=109500] [--surface=NAME] [--seed=0] [--shrink]

Each case damages a sound file, or makes one up, and has it read as a command of ours would. It
fails on an exception that `errors.run_main` does not turn into a line, on a line that a terminal
would obey (control characters), on memory beyond MEMORY_MB and a multiple of the file's real size,
on more than SECONDS of processor time, on a pickle read, a process started or a connection made,
and on anything written, moved or removed outside its folder. Every surface runs in a process of its
own: one that dies, or says nothing for HANG seconds, is reported too. A case is drawn with its
number as the seed; with --shrink Hypothesis draws them, more slowly, and finds the smallest that
fails. Linux only: memory is read from /proc. docs/security.md has the counts.

The surface `process` starts the commands themselves, and looks at their status, streams, time and
memory from outside.
"""

import argparse
import contextlib
import dataclasses
import faulthandler
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from hostile import answers, data, flags, pictures, processes, runs
from hostile.damage import ALLOWED, Rng, watch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

SECONDS, HANG = 10.0, 120.0
# A case may take so much memory, and so many times the bytes of what it reads: gzip unpacks to
# 1,032 times as much, and pixels become float32.
MEMORY_MB, TIMES = 64, 1032 * 6
WARM = 50  # The first cases import what they need, and need not keep the bounds.


@dataclasses.dataclass(frozen=True)
class Surface:
    """What is attacked.

    Attributes:
      share: How many cases it gets of all that are run by default.
      prepare: Makes sound samples in a folder, once; returns what a case needs.
      case: Draws hostile input into a folder, which is empty, and has it read. One that starts
        a process returns its seconds and its memory in MB.
      memory_mb: In place of MEMORY_MB.
      seconds: In place of SECONDS.
    """

    share: int
    prepare: Callable[[Path], Any]
    case: Callable[[Any, Path, Rng], tuple[float, float] | None]
    memory_mb: int = MEMORY_MB
    seconds: float = SECONDS


SURFACES = {
    "idx": Surface(25_000, data.idx_samples, data.idx_case),
    "cifar": Surface(5_000, data.cifar_samples, data.cifar_case),
    "picture": Surface(25_000, pictures.with_large_samples, pictures.picture_case, memory_mb=1000),
    "folder": Surface(3_000, pictures.folder_samples, pictures.folder_case),
    "config": Surface(15_000, runs.run_samples, runs.config_case),
    "metrics": Surface(8_000, runs.run_samples, runs.metrics_case),
    "search": Surface(4_000, runs.run_samples, runs.search_case),
    "weights": Surface(6_000, data.weight_samples, data.weights_case),
    "checkpoint": Surface(4_000, runs.run_samples, runs.checkpoint_case),
    "answers": Surface(4_000, answers.log_samples, answers.log_case),
    "flags": Surface(10_000, flags.start_jax, flags.flags_case),
    "process": Surface(500, processes.process_samples, processes.process_case, 1024, 60.0),
}


TOTAL = sum(surface.share for surface in SURFACES.values())


# Running them


@dataclasses.dataclass
class Tally:
    """What a surface's cases came to."""

    cases: int = 0
    most_seconds: float = 0.0
    most_mb: float = 0.0


def _resident(field: str) -> float:
    """This process' memory in MB: VmRSS now, VmHWM at its most."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{field}:\s*(\d+)", status)[1]) / 1024  # type: ignore[index]


def run_cases(
    name: str, cases: int, base: Path, *, start: int = 0, shrink: bool = False,
    measured: bool = True, beat: Callable[[int], Any] = lambda number: None,
) -> Tally:  # fmt: skip
    """Runs a surface's cases; raises what fails.

    Args:
      name: A key of SURFACES.
      cases: How many.
      base: An empty folder.
      start: The first case's seed.
      shrink: Whether Hypothesis draws them, some thirty times slower, and shrinks what fails.
      measured: Whether memory and time must keep their bounds.
      beat: Called before every case.
    """
    surface, tally = SURFACES[name], Tally()
    folder, outside = base / "case", base / "outside"
    ALLOWED[:] = map(os.path.realpath, (folder, base / "cache"))
    (base / "samples").mkdir()
    outside.mkdir()
    (outside / "victim").write_bytes(b"untouched")
    sample = surface.prepare(base / "samples")

    def case(rng: Rng) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        held = measured and tally.cases >= WARM
        if held:
            Path("/proc/self/clear_refs").write_text("5")
            before, began = _resident("VmRSS"), time.process_time()
        taken = surface.case(sample, folder, rng)
        tally.cases += 1
        assert [p.name for p in outside.iterdir()] == ["victim"]
        assert (outside / "victim").read_bytes() == b"untouched"
        if held or (measured and taken):
            files = sum(p.lstat().st_blocks for p in folder.rglob("*")) / 2**11
            most = surface.memory_mb + (0 if taken else TIMES * files)
            taken = taken or (time.process_time() - began, _resident("VmHWM") - before)
            tally.most_seconds = max(tally.most_seconds, taken[0])
            tally.most_mb = max(tally.most_mb, taken[1])
            assert taken[1] <= most, f"{taken[1]:.0f} MB for {files:.2f} MB"
            assert taken[0] <= surface.seconds, f"{taken[0]:.1f} s"

    if shrink:
        checks: Any = list(HealthCheck)
        options = settings(
            max_examples=cases, deadline=None, database=None, derandomize=True,
            phases=(Phase.generate, Phase.shrink), suppress_health_check=checks,
        )  # fmt: skip
        options(given(st.randoms(use_true_random=False))(case))()
        return tally
    for number in range(start, start + cases):
        try:
            beat(number)
            case(random.Random(f"{name} {number}"))
        except BaseException:
            print(f"{name}, seed {number}; --shrink finds the smallest such case", file=sys.stderr)
            raise
    return tally


@contextlib.contextmanager
def own_home(base: Path) -> Iterator[None]:
    """What would go to the user's home and cache goes to a folder."""
    with mock.patch.dict(os.environ, {"HOME": str(base), "XDG_CACHE_HOME": str(base / "cache")}):
        yield


def child(name: str, cases: int, start: int, shrink: bool) -> None:
    """A surface in this process; prints its tally as JSON."""
    faulthandler.enable()
    sys.addaudithook(watch)
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # Thousands of folders.
    with tempfile.TemporaryDirectory(dir=memory) as place, own_home(Path(place)):
        beat = Path(place) / "beat"
        print(beat, flush=True)

        def tell(number: int) -> None:
            beat.write_text(str(number))

        tally = run_cases(name, cases, Path(place), start=start, shrink=shrink, beat=tell)
    print(json.dumps(dataclasses.asdict(tally)))


def supervise(name: str, cases: int, start: int, shrink: bool) -> tuple[dict[str, Any] | None, str]:
    """A surface in a process of its own: its tally, or what it died of."""
    command = [sys.executable, __file__, f"--surface={name}", f"--cases={cases}", f"--seed={start}"]
    command += ["--shrink"] if shrink else []
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [*command, "--child"], stdout=subprocess.PIPE, stderr=errors, text=True
        )
        assert process.stdout is not None
        beat = Path(process.stdout.readline().strip())
        last = time.time()
        while process.poll() is None:
            time.sleep(0.5)
            with contextlib.suppress(FileNotFoundError):  # Before the first case, after the last.
                last = max(last, beat.stat().st_mtime)
            if time.time() - last > HANG:
                errors.write(f"case {beat.read_text() if beat.exists() else 'none'} hangs\n")
                process.send_signal(signal.SIGABRT)  # It tells where it is.
                process.wait()
        out = process.stdout.read()
        errors.seek(0)
        text = "\n".join(line[:300] for line in errors.read().splitlines()[-60:])
    if process.returncode == 0:
        return json.loads(out.splitlines()[-1]), ""
    return None, f"exit status {process.returncode}\n{text}"


def main() -> int:
    """Runs every surface and prints the table; 1 if one failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--cases", type=int, default=TOTAL, help="of all surfaces")
    parser.add_argument("--surface", choices=SURFACES, help="this one alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shrink", action="store_true", help="let Hypothesis draw the cases")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        child(asked.surface, asked.cases, asked.seed, asked.shrink)
        return 0
    failed, total = False, 0
    print(f"{'surface':12}{'cases':>9}{'seconds':>9}{'slowest':>9}{'most MB':>9}", flush=True)
    for name in [asked.surface] if asked.surface else SURFACES:
        cases = asked.cases if asked.surface else -(-asked.cases * SURFACES[name].share // TOTAL)
        began = time.time()
        tally, why = supervise(name, cases, asked.seed, asked.shrink)
        took = time.time() - began
        if tally is None:
            failed = True
            print(f"{name:12}{'FAILED':>9}{took:9.0f}\n{why}", flush=True)
            continue
        total += tally["cases"]
        print(
            f"{name:12}{tally['cases']:9,}{took:9.0f}{tally['most_seconds']:8.2f}s"
            f"{tally['most_mb']:9.0f}",
            flush=True,
        )
    print(f"{'all':12}{total:9,}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
