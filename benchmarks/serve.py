"""Requests a second of `jaxnets serve`, compared with a plain server of FastAPI and PyTorch.

    python benchmarks/serve.py [RUN] [--seconds=5] [--rounds=3] [--connections=64]

RUN is a run of `cnn`; without one a short run is trained. Both servers run all the time and are
asked in turn: ours, theirs, ours, ... Each connection of a further process sends a single image,
waits for the answer and sends the next one. Both servers get the same bytes:

    json    {"image": [784 numbers]}; ours also assigns a user and signs its answer
    tensor  the Open Inference Protocol's binary tensor; theirs skips the JSON before it

First it checks that both answer alike, within 1e-4. Needs the extras serve and oracle. Exit
status 1 below 1,000 requests/s, or above 100 ms for the slowest percent.
"""

import argparse
import asyncio
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxnets.machine.platform import versions

ROOT = Path(__file__).resolve().parents[1]
LEAST, MOST_MS = 1000, 100
TOLERANCE = 1e-4


def request(path: str, kind: str, image: np.ndarray) -> bytes:
    """A whole request for an image [784] uint8."""
    headers, head = "Content-Type: application/json\r\n", b""
    if kind == "json":
        body = json.dumps({"image": image.tolist()}).encode()
    else:
        tensor = {"name": "images", "datatype": "UINT8", "shape": [1, 784]}
        tensor["parameters"] = {"binary_data_size": 784}
        outputs = [{"name": "probabilities"}]
        head = json.dumps({"inputs": [tensor], "outputs": outputs}).encode()
        headers = "Content-Type: application/octet-stream\r\n"
        headers += f"Inference-Header-Content-Length: {len(head)}\r\n"
        body = head + image.tobytes()
    start = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}Content-Length: {len(body)}\r\n"
    return start.encode() + b"\r\n" + body


class Connection(asyncio.Protocol):
    """Sends a request again and again, each when the answer to the last one has come."""

    def __init__(self, requests: list[bytes], times: list[float], first: int):
        """Begins with request number `first`; appends the seconds of each to `times`."""
        self._requests, self._times, self._next, self._answer = requests, times, first, b""
        self.stopped = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._send()

    def _send(self) -> None:
        self._transport.write(self._requests[self._next % len(self._requests)])
        self._next, self._begin, self._answer = self._next + 1, time.perf_counter(), b""

    def data_received(self, data: bytes) -> None:
        self._answer += data
        end = self._answer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._answer[:end].lower()
        length = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])
        if len(self._answer) < end + 4 + length:
            return
        if not head.startswith(b"http/1.1 200"):
            raise RuntimeError(f"expected 200, got {self._answer!r:.300}")
        self._times.append(time.perf_counter() - self._begin)
        if not self.stopped:
            self._send()


async def ask(port: int, requests: list[bytes], connections: int, seconds: float) -> list[float]:
    """Asks for so many seconds, after a fifth of them as a warm-up; each answer's seconds."""
    loop, times = asyncio.get_running_loop(), []
    made = [
        await loop.create_connection(lambda n=n: Connection(requests, times, n), "127.0.0.1", port)
        for n in range(connections)
    ]
    await asyncio.sleep(seconds / 5)
    times.clear()
    await asyncio.sleep(seconds)
    found = list(times)
    for _, connection in made:
        connection.stopped = True
    await asyncio.sleep(0.5)
    for transport, _ in made:
        transport.close()
    return found


def client(port: int, path: str, kind: str, connections: int, seconds: float) -> None:
    """The client's process: prints requests a second and percentiles in ms as JSON."""
    import uvloop

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (100, 784), np.uint8) * (rng.random((100, 784)) < 0.2)
    requests = [request(path, kind, image.astype(np.uint8)) for image in images]
    times = uvloop.run(ask(port, requests, connections, seconds))
    p50, p99 = 1e3 * np.percentile(times, [50, 99])
    print(json.dumps({"rate": len(times) / seconds, "p50": p50, "p99": p99}))


def asked(port: int, path: str, kind: str, connections: int, seconds: float) -> dict[str, float]:
    """The result of a client in a separate process."""
    command = [sys.executable, __file__, "--as_client"]
    values = map(str, (port, path, kind, connections, seconds))
    done = subprocess.run([*command, *values], stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout)


@contextlib.contextmanager
def started(command: list[str], port: int) -> Iterator[None]:
    """A server, once it listens."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        while True:
            if process.poll() is not None:
                raise RuntimeError(f"{command[1]} ended with status {process.returncode}")
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    """A free port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def probabilities(port: int, path: str, image: np.ndarray) -> list[float]:
    """A server's answer to an image in JSON."""
    body = json.dumps({"image": image.tolist()}).encode()
    headers = {"Content-Type": "application/json"}
    asked = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, headers)
    answer = json.load(urllib.request.urlopen(asked))
    if "probabilities" in answer:
        return answer["probabilities"]
    best = answer["pictures"][0]["predictions"]
    return [one["probability"] for one in sorted(best, key=lambda one: int(one["label"]))]


def main() -> int:
    """Measures, prints a table, and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=64)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = os.path.abspath(given.run or f"{folder}/cnn")
        if not given.run:
            flags = ["--model=cnn", "--epochs=1", "--limit=5000", f"--workdir={run}"]
            train = [sys.executable, str(ROOT / "train.py"), *flags]
            subprocess.run(train, check=True, stdout=subprocess.DEVNULL)
        ours, theirs = free_port(), free_port()
        serve = ["-m", "jaxnets", "serve", run, f"--port={ours}", f"--feedback={folder}/log"]
        peer = ["-m", "benchmarks.fastapi_torch", run, str(theirs)]
        with started([sys.executable, *serve], ours), started([sys.executable, *peer], theirs):
            image = np.arange(784, dtype=np.uint8)
            mine = probabilities(ours, "/predict?top=10", image)
            peers = probabilities(theirs, "/predict", image)
            np.testing.assert_allclose(mine, peers, rtol=0, atol=TOLERANCE)
            return measure(ours, theirs, Path(run).name, given)


def measure(ours: int, theirs: int, model: str, given: argparse.Namespace) -> int:
    """Asks both in turn; returns the exit status."""
    print(f"{given.connections} connections, {given.rounds} rounds of {given.seconds:g} s; "
          f"{', '.join(f'{name} {version}' for name, version in versions().items())}")  # fmt: skip
    infer, fell_short = f"/v2/models/{model}/infer", False
    for kind in ("json", "tensor"):
        ways = {
            "jaxnets serve": (ours, infer if kind == "tensor" else "/predict"),
            "FastAPI + PyTorch": (theirs, f"/{'tensor' if kind == 'tensor' else 'predict'}"),
        }
        found: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
        for _ in range(given.rounds):
            for name, (port, path) in ways.items():
                found[name].append(asked(port, path, kind, given.connections, given.seconds))
        middle = {
            name: {key: statistics.median(one[key] for one in all_) for key in all_[0]}
            for name, all_ in found.items()
        }
        for name, one in middle.items():
            rates = " ".join(f"{each['rate']:,.0f}" for each in found[name])
            print(f"{kind:7}{name:18}{one['rate']:7,.0f} requests/s  median {one['p50']:5.1f} ms  "
                  f"99 % within {one['p99']:6.1f} ms  (rounds: {rates})")  # fmt: skip
        mine, peer = middle.values()
        print(f"{kind:7}{mine['rate'] / peer['rate']:.2f} times as many")
        fell_short |= mine["rate"] < LEAST or mine["p99"] >= MOST_MS
    return int(fell_short)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--as_client"]:
        port, path, kind, connections, seconds = sys.argv[2:]
        client(int(port), path, kind, int(connections), float(seconds))
    else:
        sys.exit(main())
