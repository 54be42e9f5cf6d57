"""One measurement in a separate process: `python -m benchmarks.peers.measure REQUEST`.

REQUEST is JSON; the last line of stdout is the result. Each number is a list, one entry for each
repetition: seconds of the wall clock and of the processor, which counts all threads.
"""

import importlib
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.peers.networks import draw_params, load_images, network_of

Result = dict[str, Any]


def timed(work: Callable[[], Any], repeats: int) -> Result:
    """Seconds of each repetition."""
    wall, cpu = [], []
    for _ in range(repeats):
        started = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - started[0])
        cpu.append(time.process_time() - started[1])
    return {"wall": wall, "cpu": cpu}


def create(place: str, network: Any, options: dict[str, Any]) -> Any:
    """A peer's network with the weights that all peers have."""
    module, _, name = place.partition(":")
    peer = getattr(importlib.import_module(f"benchmarks.peers.{module}"), name)
    return peer(network, draw_params(network), **options)


def training(peer: Any, network: Any, count: int, repeats: int) -> Result:
    """Epochs over so many images, after one that compiles; without repeats just one step."""
    images, labels = load_images(network, count)
    peer.epoch(images, labels)
    return {"images": len(labels), **timed(lambda: peer.epoch(images, labels), repeats)}


def inference(peer: Any, network: Any, count: int, repeats: int) -> Result:
    """Batches of 128 images."""
    images, _ = load_images(network, count)
    batches = [images[at : at + 128] for at in range(0, len(images) - 127, 128)]
    peer.predict(batches[0])

    def predict_all() -> None:
        for batch in batches:
            peer.predict(batch)

    return {"images": 128 * len(batches), **timed(predict_all, repeats)}


def latency(peer: Any, network: Any, count: int, repeats: int) -> Result:
    """Single images: the median, and what 95 of 100 stay below."""
    images, _ = load_images(network, network.batch_size)
    peer.predict(images[:1])
    peer.predict(images[:1])
    taken = timed(lambda: peer.predict(images[:1]), count)
    low, high = np.quantile(taken["wall"], [0.5, 0.95])
    return {"images": 1, "wall": [low], "slow": [high], "cpu": [np.mean(taken["cpu"])]}


def machine() -> Result:
    """The rates of a large product and of a copy: GFLOP/s and GB/s, and per CPU second."""
    import jax

    size = 2048
    a = jax.device_put(np.random.default_rng(0).random((size, size), np.float32))
    product = jax.jit(lambda a: a @ a)
    product(a).block_until_ready()
    sgemm = timed(lambda: product(a).block_until_ready(), 9)
    source = np.ones(1 << 26, np.float32)  # 256 MiB, more than any cache.
    target = np.empty_like(source)
    np.copyto(target, source)
    copy = timed(lambda: np.copyto(target, source), 5)
    return {
        "sgemm_gflops": [2e-9 * size**3 / s for s in sgemm["wall"]],
        "sgemm_gflops_cpu": [2e-9 * size**3 / max(s, 1e-9) for s in sgemm["cpu"]],
        "copy_gb": [2e-9 * source.nbytes / s for s in copy["wall"]],
    }


PARTS = {f.__name__: f for f in (training, inference, latency)}


def main() -> None:
    """Measures what is asked for."""
    request = json.loads(sys.argv[1])
    if request["kind"] == "machine":
        result = machine()
    else:
        network = network_of(request["network"], **request.get("changes", {}))
        peer = create(request["place"], network, request["options"])
        part = PARTS[request["kind"]]
        result = part(peer, network, request["count"], request["repeats"])
    print(json.dumps(result))


if __name__ == "__main__":
    main()
