"""Requests a second of two replicas of `jaxnets serve` under Ray Serve, compared with one.

    python benchmarks/replicas.py [RUN] [--seconds=12] [--rounds=3] [--connections=8]

RUN is a run of `alexnet_small`; without one a short run is trained. One server is up at a time: one
replica, two, one, two, ... A request has 128 images, so that the network takes the time and the
client takes none (0.3 ms of 130). Needs the extras serve and ray. Exit status 1 below 1.6 times.
"""

import argparse
import contextlib
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from serve import ROOT, free_port, started

from jaxnets.machine.platform import versions

IMAGES, TIMES = 128, 1.6


def described(url: str) -> dict[str, Any]:
    """A model's description, once it is there: Ray listens before a replica has started."""
    while True:
        with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(url) as answer:
            return json.load(answer)
        time.sleep(0.2)


def rate(run: str, replicas: int, given: argparse.Namespace, folder: str) -> float:
    """Requests a second, after a warm-up of a fifth of the time."""
    port, path = free_port(), f"/v2/models/{Path(run).name}"
    answered: list[float] = []

    def ask(body: bytes, headers: dict[str, str], until: float) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        while time.monotonic() < until:
            connection.request("POST", f"{path}/infer", body, headers)
            answer = connection.getresponse()
            if answer.status != 200:
                raise RuntimeError(f"expected 200, got {answer.status}: {answer.read()!r:.300}")
            answer.read()
            answered.append(time.monotonic())

    flags = [f"--port={port}", f"--feedback={folder}/log", "--ray=local", f"--replicas={replicas}"]
    with started([sys.executable, "-m", "jaxnets", "serve", run, *flags], port):
        shape = [IMAGES, *described(f"http://127.0.0.1:{port}{path}")["inputs"][0]["shape"][1:]]
        images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        tensor = {"name": "images", "datatype": "UINT8", "shape": shape}
        tensor["parameters"] = {"binary_data_size": images.size}
        outputs = [{"name": "probabilities", "parameters": {"binary_data": True}}]
        head = json.dumps({"inputs": [tensor], "outputs": outputs}).encode()
        body = head + images.tobytes()
        headers = {"Inference-Header-Content-Length": str(len(head))}
        headers["Content-Type"] = "application/octet-stream"
        begin = time.monotonic() + given.seconds / 5
        end = begin + given.seconds
        threads = [
            threading.Thread(target=ask, args=[body, headers, end])
            for _ in range(given.connections)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return sum(begin < moment < end for moment in answered) / given.seconds


def main() -> int:
    """Measures, prints the rates, and returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", nargs="?")
    parser.add_argument("--seconds", type=float, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=8)
    given = parser.parse_args()
    print(", ".join(f"{name} {version}" for name, version in versions().items()))
    with tempfile.TemporaryDirectory() as folder:
        run = os.path.abspath(given.run or f"{folder}/alexnet_small")
        if not given.run:
            flags = ["--model=alexnet_small", "--epochs=1", "--limit=256", f"--workdir={run}"]
            train = [sys.executable, str(ROOT / "train.py"), *flags]
            subprocess.run(train, check=True, stdout=subprocess.DEVNULL)
        rates: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(given.rounds):
            for replicas, found in rates.items():
                found.append(rate(run, replicas, given, folder))
    one, two = (statistics.median(found) for found in rates.values())
    print(f"one replica {one:.2f} requests/s, two {two:.2f}: {two / one:.2f} times as many {rates}")
    return int(two / one < TIMES)


if __name__ == "__main__":
    sys.exit(main())
