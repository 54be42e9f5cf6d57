"""The slides' whole procedure: this program against the slides' NumPy code in float64.

    python benchmarks/replay.py [--seeds=1]
    python benchmarks/replay.py --draws=20      does NumPy's generator give other accuracies?

Whole processes run in turn: `jaxnets replay` with an empty compilation cache, and
this file's replica of the slides' classes (search over 100, 200, 300 hidden units, then 50 steps
with the best), which computes all that they compute, including the pixels' gradient.

Then the replay's share of the machine's sgemm rate, taken before and after:

    operations of the matrix products / seconds / sgemm rate

The products are those of training as on the slides: forward, both kernels' gradients, the
hidden layer's gradient, for every image and all 785 inputs. (The pixels' gradient, which nobody
needs, is not counted.) One figure takes the seconds of the 110 steps; the first step of each
network counts as the median of the others, since it waits for the compiler. The other figure takes
the seconds of the whole process.

With `--draws` only this program's trainer runs, with 200 hidden units and so many seeds, from
weights drawn by JAX and by NumPy; the means of the test accuracies are compared.
"""

import argparse
import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import ttest_ind

import jaxnets
from jaxnets.cli import commands
from jaxnets.training.step import Checkpoint

sys.path.append(str(Path(__file__).resolve().parent.parent))

SIZES, SEARCH_STEPS, STEPS, LEARNING_RATE = (100, 200, 300), 20, 50, 1e-5


class FullConnectionModel:
    """The slide's class of that name, its layers written out."""

    def __init__(self, rng: np.random.Generator, latent_dims: int):
        """He's initialization; the last row of W1 is the bias."""
        self.W1 = rng.normal(size=(785, latent_dims)) / np.sqrt(785 / 2)
        self.W2 = rng.normal(size=(latent_dims, 10)) / np.sqrt(latent_dims / 2)

    def forward(self, x: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
        """The mean loss and the accuracy."""
        self.x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
        self.h1 = np.matmul(self.x, self.W1)
        self.h1_relu = np.where(self.h1 > 0, self.h1, 0)
        h2 = np.matmul(self.h1_relu, self.W2)
        exponentials = np.exp(h2 - h2.max(axis=1, keepdims=True))
        self.soft = exponentials / exponentials.sum(axis=1, keepdims=True)
        loss = np.mean(np.sum(-labels * np.log(self.soft + 1e-12), axis=1))
        hits = self.soft.argmax(axis=1) == labels.argmax(axis=1)
        return float(loss), float(hits.mean())

    def backward(self, labels: np.ndarray) -> None:
        """The gradients of the summed loss; the pixels' is computed and not used, as there."""
        loss_grad = -labels / (self.soft + 1e-12)
        product = loss_grad * self.soft
        soft_grad = product - self.soft * product.sum(axis=1, keepdims=True)
        h1_relu_grad = np.matmul(soft_grad, self.W2.T)
        self.W2_grad = np.matmul(self.h1_relu.T, soft_grad)
        h1_grad = np.where(self.h1 > 0, h1_relu_grad, 0)
        self.x_grad = np.matmul(h1_grad, self.W1.T)
        self.W1_grad = np.matmul(self.x.T, h1_grad)

    def train(self, x: np.ndarray, labels: np.ndarray, steps: int) -> None:
        """Full-batch steps of gradient descent."""
        for _ in range(steps):
            self.forward(x, labels)
            self.backward(labels)
            self.W1 -= LEARNING_RATE * self.W1_grad
            self.W2 -= LEARNING_RATE * self.W2_grad


def numpy_replay(seed: int) -> dict[str, float]:
    """The procedure in NumPy, float64; returns accuracies."""
    data = jaxnets.load_dataset("mnist", validation_size=0)
    x = data.train.images.reshape(-1, 784).astype(np.float64)
    labels = np.eye(10)[data.train.labels]
    rng = np.random.default_rng(seed)
    found = {}
    for size in SIZES:
        model = FullConnectionModel(rng, size)
        model.train(x[5000:], labels[5000:], SEARCH_STEPS)
        found[size] = model.forward(x[:5000], labels[:5000])[1]
    model = FullConnectionModel(rng, max(found, key=lambda size: found[size]))
    model.train(x, labels, STEPS)
    test = data.test
    accuracy = model.forward(
        test.images.reshape(-1, 784).astype(np.float64), np.eye(10)[test.labels]
    )[1]
    return {**{str(size): value for size, value in found.items()}, "test": accuracy}


def ours(seed: int) -> dict[str, float]:
    """`jaxnets replay` in this process: accuracies, the best size and the steps' seconds."""
    from jaxnets.experiment import Experiment

    runs: list[list[float]] = []

    def timed_epochs(*arguments: Any) -> Iterator[Any]:
        runs.append([])
        for state, record in epochs(*arguments):
            runs[-1].append(record["seconds"])
            yield state, record

    epochs = Experiment.epochs
    Experiment.epochs = timed_epochs  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        flags = ["replay", f"--seed={seed}", f"--workdir={folder}/run"]
        with contextlib.redirect_stdout(io.StringIO()):
            commands.main(flags)
        found = json.loads((Path(folder) / "run" / "search.json").read_text())
        result = json.loads((Path(folder) / "run" / "result.json").read_text())
    return {
        **{size: outcome["accuracy"] for size, outcome in found.items()},
        "test": result["test_accuracy"],
        "best": result["num_params"] // 795,
        "steps": sum(statistics.median(run) + sum(run[1:]) for run in runs),
    }


def draws(seeds: int) -> None:
    """Trains from every seed of both generators and prints mean, deviation and range."""
    data = jaxnets.load_dataset("mnist", validation_size=0)
    accuracies: dict[str, list[float]] = {"JAX": [], "NumPy": []}
    for seed in range(seeds):
        config = jaxnets.preset("mlp_handwritten", hidden=(200,), seed=seed)
        experiment = jaxnets.Experiment.create(config, data)
        for generator, found in accuracies.items():
            state = experiment.init_state()
            if generator == "NumPy":  # As the slide draws them: W ~ N(0, 1) / √(D / 2).
                rng, arrays = np.random.default_rng(seed), jax.tree.leaves(state.params)
                drawn = [rng.normal(size=w.shape) / np.sqrt(len(w) / 2) for w in arrays]
                drawn = [jnp.asarray(w, jnp.float32) for w in drawn]
                params = jax.tree.unflatten(jax.tree.structure(state.params), drawn)
                state = state.replace(params=params)
            for trained, _ in experiment.epochs(Checkpoint(state)):
                state = trained
            found.append(experiment.evaluate(state.params, data.test).accuracy)
    for generator, found in accuracies.items():
        print(
            f"{generator:5} {statistics.mean(found):.4f} ± {statistics.stdev(found):.4f}, "
            f"from {min(found):.4f} to {max(found):.4f}"
        )
    print(f"the means differ by luck with p = {ttest_ind(*accuracies.values())[1]:.2f}")


def in_a_process(way: str, seed: int) -> tuple[dict[str, float], float]:
    """The result of one way in a separate process, and the process's seconds."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, __file__, f"--way={way}", f"--seed={seed}"]
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": cache}
        shown = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment)
    return json.loads(shown.stdout), time.perf_counter() - started


def main() -> None:
    """Runs both in turn and prints their times and accuracies."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--draws", type=int, help="compare generators instead, with so many seeds")
    parser.add_argument("--way", choices=WAYS, help="internal: run one way with --seed")
    parser.add_argument("--seed", type=int, help="internal")
    flags = parser.parse_args()
    if flags.way:
        print(json.dumps(WAYS[flags.way](flags.seed)))
        return
    if flags.draws:
        return draws(flags.draws)
    from dense import sgemm_rate

    ratios = []
    for seed in range(flags.seeds):
        before = sgemm_rate()
        result, seconds = in_a_process("ours", seed)
        sgemm = (before + sgemm_rate()) / 2
        theirs, numpy_seconds = in_a_process("numpy", seed)
        ratios.append(seconds / numpy_seconds)
        steps, best = result.pop("steps"), result.pop("best")
        work = 55000 * SEARCH_STEPS * sum(SIZES) + 60000 * STEPS * best
        rates = [work * 2 * (2 * 785 + 3 * 10) / taken / 1e9 for taken in (steps, seconds)]
        print(f"seed {seed}: ours {seconds:.1f} s, {steps:.1f} s of them in steps {result}")
        print(f"        NumPy {numpy_seconds:.1f} s {theirs}")
        print(
            f"        time {ratios[-1]:.2f} of NumPy's; {rates[0]:.0f} GFLOP/s in the steps, "
            f"{rates[1]:.0f} over the whole process, {rates[0] / sgemm:.2f} and "
            f"{rates[1] / sgemm:.2f} of sgemm ({sgemm:.0f})",
            flush=True,
        )
    print(f"median {statistics.median(ratios):.2f} of NumPy's time")


WAYS = {"ours": ours, "numpy": numpy_replay}

if __name__ == "__main__":
    main()
