"""Kills (SIGKILL) each command that writes at random moments, and runs it again until it is done.

python benchmarks/kill.py [--kills=100] [--seed=0] [--jobs=NAME,...] [--log=FILE]

The jobs: trainings that are resumed (networks, gradients and devices differ; one begins with the
slides' search; one first decodes a folder of pictures into its store), a search that is resumed, a
comparison that begins again, a download. They take turns until so many processes were killed, most
while they write. Each is killed and continued until it comes to its end. Then what it leaves must
be that of a run left alone: bytes of parameters and files, all numbers except times. Exit status 1
if anything differs, or if a process ends otherwise than killed or done. A --log keeps the kills
survived and lets the next call continue.
"""

import argparse
import collections
import contextlib
import dataclasses
import hashlib
import http.server
import itertools
import json
import os
import random
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import trustme
from idx_files import idx_bytes
from PIL import Image

TIMES = ("seconds", "data_seconds", "validation_seconds", "images_per_second")
WRITING, ANY, STARTING = "while it writes", "at any time", "while it starts"
MOST = 20  # Kills of one run: it must come to its end some time.
DOWNLOAD = """
import hashlib, os, sys
from pathlib import Path
os.environ["XDG_CACHE_HOME"] = sys.argv[3]
import jaxnets
from jaxnets.data.published import SETS, PublishedFile
contents = {path.name: path.read_bytes() for path in Path(sys.argv[1]).glob("*.gz")}
files = [PublishedFile(n, len(b), hashlib.sha256(b).hexdigest()) for n, b in contents.items()]
SETS["kmnist"] = SETS["kmnist"]._replace(mirrors=(sys.argv[2],), files=tuple(files))
jaxnets.load_dataset("kmnist")
"""


def write_data(folder: Path) -> None:
    """Writes 200 training and 50 test images, 12x12: three prototypes under noise.

    As IDX files, as the gzip files of a published set, and as a folder of pictures.
    """
    rng = np.random.default_rng(0)
    prototypes = rng.integers(0, 256, (3, 12, 12))
    for part, size in (("train", 200), ("t10k", 50)):
        labels = rng.permutation(np.arange(size) % 3)
        images = (prototypes[labels] + rng.integers(0, 256, (size, 12, 12))) // 2
        for kind, array in (("images", images), ("labels", labels)):
            path = folder / f"{part}-{kind}-idx{array.ndim}-ubyte"
            path.write_bytes(idx_bytes(array))
            subprocess.run(["gzip", "-nk", path], check=True)
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            split = folder / "pictures" / ("test" if part == "t10k" else part) / f"class{label}"
            split.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.kron(image, np.ones((8, 8))).astype(np.uint8)).save(
                split / f"{number}.png"
            )


@dataclasses.dataclass(frozen=True)
class Job:
    """A command that writes into a folder, and what it leaves there."""

    command: Callable[[Path], list[str]]  # Begins the work in a folder, or continues it.
    outcome: Callable[[Path], Any]  # What must be that of a run left alone.
    places: tuple[str, ...]  # The folders below in which files are written.
    writes: int = 1  # Up to so many files are begun before a kill while it writes.
    last: str = "-"  # A file after which there is nothing left to continue.


def training(flags: str, run: str = "", places: tuple[str, ...] = ()) -> Job:
    """A run of train.py, by default in the folder itself."""

    def command(folder: Path) -> list[str]:
        resume = ["--resume"] if (folder / run / "config.json").exists() else []
        given = flags.format(folder=folder).split()
        return ["train.py", *given, f"--workdir={folder / run}", *resume]

    def outcome(folder: Path) -> tuple[str, list, list[str], Any]:
        """The parameters' digest, the history without times, checkpoints, the pictures stored."""
        folder /= run
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        history = [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines]
        digest = json.loads((folder / "result.json").read_text())["params_sha256"]
        stored = digests(folder.parent / "pictures" / ".jaxnets", "*-*x*.npy") if run else {}
        return digest, history, sorted(os.listdir(folder / "checkpoints")), stored

    places = (run, f"{run}/checkpoints", *places)
    return Job(command, outcome, places, writes=6, last=f"{run}/result.json".lstrip("/"))


def digests(folder: Path, pattern: str) -> dict[str, str]:
    """The SHA-256 of a folder's files."""
    paths = sorted(folder.glob(pattern))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def comparison(folder: Path) -> list[Any]:
    """The rows of a comparison that was begun again and again; every try is whole or empty."""
    tries = sorted(folder.iterdir(), key=lambda path: int(path.name))
    found = [json.loads(path.read_text()) for path in folder.glob("*/compare.json")]
    assert (tries[-1] / "compare.csv").exists() and all("rows" in values for values in found)
    last = json.loads((tries[-1] / "compare.json").read_text())
    return [{k: v for k, v in row.items() if k != "seconds"} for row in last["rows"]]


def jobs(data: Path, address: str) -> dict[str, Job]:
    """All jobs, by name."""
    idx = f"--data_dir={data} --validation_size=40 --batch_size=32"
    train = f"{idx} --epochs=30 --checkpoint_every=2steps"
    by_hand = f"--model=cnn --gradients=manual --devices=2 {train}"
    pictures = "--dataset={folder}/pictures --epochs=2 --batch_size=32 --checkpoint_every=2steps"
    over = "--over=batch_size=8,16,32,64 --over=learning_rate=0.1,0.2 --seeds=2 --epochs=2"

    def search(folder: Path) -> list[str]:
        resume = ["--resume"] if (folder / "search.json").exists() else []
        flags = f"--model=softmax --data_dir={data} {over} --workdir={folder}".split()
        return ["-m", "jaxnets", "search", *flags, *resume]

    def compare(folder: Path) -> list[str]:
        folder.mkdir(exist_ok=True)
        flags = f"--models=softmax,knn --epochs=2 --curve=4,8 --data_dir={data}".split()
        return [
            "-m",
            "jaxnets",
            "compare",
            *flags,
            f"--workdir={folder / str(len([*folder.iterdir()]))}",
        ]

    return {
        "cnn": training(f"--model=cnn {train}"),
        "manual": training(f"{by_hand} --parallel=jit"),
        "pmap": training(f"--model=cnn --devices=2 --parallel=pmap {train}"),
        "manual_pmap": training(f"{by_hand} --parallel=pmap"),
        "softmax": training(f"--model=softmax {train}"),
        "mlp": training(f"--model=mlp --schedule=plateau {train}"),
        "replay": training(
            f"--model=mlp_handwritten --data_dir={data} --latent_dims=4,8,16 --epochs=30 "
            "--learning_rate=1e-3 --checkpoint_every=2steps"
        ),
        "pictures": training(f"--model=cnn {pictures}", "run", ("pictures/.jaxnets",)),
        "search": Job(search, lambda f: digests(f, "search.[jc]*"), ("",), writes=4),
        "compare": Job(compare, comparison, tuple(map(str, range(MOST + 1)))),
        "download": Job(
            lambda folder: ["-c", DOWNLOAD, str(data), address, str(folder)],
            lambda folder: digests(folder / "jaxnets" / "kmnist", "*"),
            ("jaxnets/kmnist",),
        ),
    }  # fmt: skip


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serves a folder over https, slowly; the authority that vouches for it is authority.pem."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(folder))

        def copyfile(self, source, outputfile):
            with contextlib.suppress(OSError):  # The client was killed.
                while piece := source.read(1000):
                    outputfile.write(piece)
                    time.sleep(0.02)

        def log_message(self, format, *arguments):
            pass

    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    authority.issue_cert("localhost").configure_cert(context)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        vars(server)["handle_error"] = lambda *_: None  # Of a client that was killed.
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"https://localhost:{server.server_address[1]}"
        server.shutdown()


def half_written(job: Job, folder: Path) -> set[str]:
    """The files that are being written, under a name of their own."""
    found = set()
    for place in job.places:
        with contextlib.suppress(FileNotFoundError):
            names = os.listdir(folder / place)
            found |= {f"{place}/{name}" for name in names if name.endswith(".partial")}
    return found


class Killer:
    """Starts, kills and continues."""

    def __init__(self, work: Path, seed: str):
        """Draws its moments with a seed."""
        self.random, self.work = random.Random(seed), work
        # Seconds until a job writes first; measured as it goes.
        self.startup: dict[str, float] = collections.defaultdict(lambda: 3.0)
        self.found = collections.Counter()

    def start(self, job: Job, folder: Path) -> subprocess.Popen:
        """Begins the job, or continues it."""
        environment = {"JAX_COMPILATION_CACHE_DIR": str(self.work / "cache"), **os.environ}
        environment |= {"REQUESTS_CA_BUNDLE": str(self.work / "data" / "authority.pem")}
        return subprocess.Popen(
            [sys.executable, *job.command(folder)],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, text=True,
        )  # fmt: skip

    def kill(self, name: str, job: Job, process: subprocess.Popen, folder: Path) -> bool:
        """Kills the process at a moment of its own; False if it came to its end before."""
        moment = self.random.choices((WRITING, ANY, STARTING), (6, 2, 2))[0]
        begun, seen = time.monotonic(), half_written(job, folder)
        if moment == STARTING:
            time.sleep(self.random.uniform(0, self.startup[name]))
        else:
            wanted = self.random.randint(1, job.writes) if moment == WRITING else 1
            before = seen
            while wanted and process.poll() is None:
                now = half_written(job, folder)
                if now - before:
                    if before is seen:
                        self.startup[name] = time.monotonic() - begun
                    wanted -= 1
                before = now
                time.sleep(0.0005)
            time.sleep(self.random.uniform(0, 0.03 if moment == WRITING else 1))
        process.kill()
        if process.wait() != -signal.SIGKILL:
            return False
        self.found[moment] += 1
        self.found["left a file half written"] += bool(half_written(job, folder) - seen)
        return True


def wrong_end(process: subprocess.Popen) -> str:
    """What a process does wrong that is left alone, or nothing."""
    _, errors = process.communicate()
    return f"status {process.returncode}: {errors}" if process.returncode or errors else ""


def main() -> int:
    """Kills and continues until it is enough, and reports."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", default=None, help="by default all")
    parser.add_argument("--log", type=Path, default=None)
    arguments = parser.parse_args()
    survived, begun = collections.Counter(), time.monotonic()
    if arguments.log and arguments.log.exists():
        for line in arguments.log.read_text().splitlines():
            survived[line.split()[0]] += int(line.split()[1])
    before = survived.total()
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        work, data = Path(place), Path(place) / "data"
        data.mkdir()
        write_data(data)
        everything = jobs(data, stack.enter_context(serving(data)))
        chosen = arguments.jobs.split(",") if arguments.jobs else list(everything)
        # A call that continues draws other moments than the one before.
        killer = Killer(work, f"{arguments.seed} {before}")
        expected = {}
        for number in itertools.count():
            if survived.total() >= arguments.kills:
                break
            name = min(chosen, key=lambda name: survived[name])
            job, kills, wrong = everything[name], 0, ""
            folder, whole = work / f"run{number}", work / f"whole{number}"
            for made in (folder, whole) if name == "pictures" else ():
                shutil.copytree(data / "pictures", made / "pictures")
            if name not in expected:
                wrong = wrong_end(killer.start(job, whole))
                expected[name] = wrong or job.outcome(whole)
            most = min(MOST, arguments.kills - survived.total())
            while not wrong:
                process = killer.start(job, folder)
                if kills == most or not killer.kill(name, job, process, folder):
                    wrong = wrong_end(process)
                    break
                kills += 1
                if (folder / job.last).exists():
                    break
            if not wrong and job.outcome(folder) != expected[name]:
                wrong = f"expected {expected[name]}, got {job.outcome(folder)}"
            if wrong:
                print(f"{name}: after {kills} kills: {wrong}")
                return 1
            survived[name] += kills
            print(f"{name} {kills} kills survived, the same bytes", flush=True)
            if arguments.log:
                with arguments.log.open("a") as stream:
                    stream.write(f"{name} {kills}\n")
    for name, kills in survived.items():
        print(f"{name:12} {kills:4} kills")
    seconds = (time.monotonic() - begun) / max(1, survived.total() - before)
    print(f"{survived.total()} kills survived: {dict(killer.found)}, {seconds:.1f} s a kill")
    return 0


if __name__ == "__main__":
    sys.exit(main())
