"""The slides' whole procedure: this program beside the slides' own NumPy code in float64.

    python benchmarks/replay.py [--seeds=1]

Whole processes, in turn: `train.py --model=mlp_handwritten`, and this file's replica of the slides'
classes (search over 100, 200, 300 hidden units, then 50 steps with the best), which computes all
that they compute, the pixels' gradient too. Then the replay's share of the machine's sgemm rate.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import jaxnets

TRAIN = Path(__file__).resolve().parent.parent / "train.py"
SIZES, SEARCH_STEPS, STEPS, LEARNING_RATE = (100, 200, 300), 20, 50, 1e-5


class FullConnectionModel:
    """The slide's class of that name, its layers written out."""

    def __init__(self, rng: np.random.Generator, latent_dims: int):
        """He's initialisation; the last row of W1 is the bias."""
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
        """The gradients of the summed loss; the pixels' is computed and thrown away, as there."""
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
    """train.py in a process of its own; returns accuracies."""
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--model=mlp_handwritten", f"--seed={seed}", f"--workdir={folder}/run"]
        subprocess.run([sys.executable, str(TRAIN), *flags], check=True, capture_output=True)
        found = json.loads((Path(folder) / "run" / "search.json").read_text())
        result = json.loads((Path(folder) / "run" / "result.json").read_text())
    accuracies = {size: outcome["accuracy"] for size, outcome in found.items()}
    return {**accuracies, "test": result["test_accuracy"], "best": result["num_params"] // 795}


def main() -> None:
    """Runs both in turn and prints their times and accuracies."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--numpy", type=int, help="internal: run the replica with this seed")
    flags = parser.parse_args()
    if flags.numpy is not None:
        print(json.dumps(numpy_replay(flags.numpy)))
        return
    from sgemm import sgemm_rate

    ratios = []
    for seed in range(flags.seeds):
        started = time.perf_counter()
        result = ours(seed)
        ours_seconds = time.perf_counter() - started
        started = time.perf_counter()
        command = [sys.executable, __file__, f"--numpy={seed}"]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        numpy_seconds = time.perf_counter() - started
        ratios.append(ours_seconds / numpy_seconds)
        # Forward, both kernels' gradients, the hidden layer's: two operations a weight and image.
        work = 55000 * SEARCH_STEPS * sum(SIZES) + 60000 * STEPS * result.pop("best")
        rate = work * 2 * (2 * 785 + 3 * 10) / ours_seconds / 1e9
        print(f"seed {seed}: ours {ours_seconds:.1f} s {result}")
        print(f"        NumPy {numpy_seconds:.1f} s {json.loads(output)}")
        print(
            f"        time {ratios[-1]:.2f} of NumPy's; {rate:.0f} GFLOP/s, start and compiling "
            f"included, {rate / sgemm_rate():.2f} of sgemm",
            flush=True,
        )
    print(f"median {statistics.median(ratios):.2f} of NumPy's time")


if __name__ == "__main__":
    main()
