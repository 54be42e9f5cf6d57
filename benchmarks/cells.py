"""A search of 12 settings x 10 seeds: a Ray cluster of three nodes against three local processes.

    python benchmarks/cells.py [--images=2000] [--epochs=1]

Both train the same cells of cnn_tiny, a seed of each in turn, so a drift of the machine affects
both alike. All nodes are on this machine. Before the clock starts, each worker has trained a cell:
the start of the workers, with imports and compilation, is reported separately.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests" / "stress"))

from cluster import loopback

import jaxnets
from jaxnets.tune.backends import Backend, LocalProcesses, RayCluster
from jaxnets.tune.search import Training
from jaxnets.tune.train_many import held_out

NODES, SEEDS = 3, 10
RATES = [0.005 * 1.4**step for step in range(12)]


def seconds(backend: Backend, tasks: list) -> float:
    """The time in which a backend trains all tasks."""
    started = time.perf_counter()
    for task in tasks:
        backend.submit(task)
    for _ in tasks:
        backend.collect()
    return time.perf_counter() - started


def main() -> None:
    """Measures, and prints the times."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=2000, metavar="N")
    parser.add_argument("--epochs", type=int, default=1, metavar="N")
    flags = parser.parse_args()
    data = held_out(jaxnets.load_dataset("mnist", validation_size=0).limited(flags.images))

    def tasks(seed: int) -> list:
        common = dict(epochs=flags.epochs, batch_size=64, seed=seed)
        return [(jaxnets.preset("cnn_tiny", **common, learning_rate=rate),) for rate in RATES]

    with loopback(NODES) as cluster:
        began = time.perf_counter()
        backends: dict[str, Backend] = {}
        starts: dict[str, float] = {}
        for name in ("local processes", "Ray"):
            if name == "Ray":
                backends[name] = RayCluster(Training(data), cluster.address)
            else:
                backends[name] = LocalProcesses(Training(data), NODES, 1)
            seconds(backends[name], tasks(SEEDS)[: 2 * NODES])
            now = time.perf_counter()
            starts[name], began = now - began, now
        times: dict[str, list[float]] = {name: [] for name in backends}
        for seed in range(SEEDS):
            for name in sorted(backends, reverse=bool(seed % 2)):
                times[name].append(seconds(backends[name], tasks(seed)))
        for backend in backends.values():
            backend.close()  # Until then RayCluster silences stdout.
    for name, start in starts.items():
        print(f"{name}: {start:.1f} s until each worker has trained a cell")
    local, ray = times["local processes"], times["Ray"]
    print(f"{len(RATES)} settings x {SEEDS} seeds: {sum(local):.1f} s by {NODES} local processes,")
    print(f"{sum(ray):.1f} s on {NODES} nodes of Ray: {sum(ray) / sum(local) - 1:+.1%}")
    ratios = [ours / theirs for ours, theirs in zip(ray, local, strict=True)]
    print(f"median over the seeds: {statistics.median(ratios) - 1:+.1%}")
    print("each seed:", *(f"{ratio - 1:+.0%}" for ratio in ratios))


if __name__ == "__main__":
    main()
