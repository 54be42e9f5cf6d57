"""The hand-written network's test accuracy from JAX's random numbers and from NumPy's.

    python benchmarks/draws.py [--seeds=20] [--hidden=200]

Is the accuracy after the slides' 50 steps another one because the first weights are drawn by JAX?
The same trainer starts from each seed of both generators; the means are then compared.
"""

import argparse
import statistics
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import ttest_ind

import jaxnets
from jaxnets.training.step import Checkpoint


def numpy_params(seed: int, params: Any) -> Any:
    """Weights as the slide draws them: W ~ N(0, 1) / √(D / 2), layer by layer."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda w: jnp.array(rng.normal(size=w.shape) / np.sqrt(len(w) / 2), w.dtype), params
    )


def main() -> None:
    """Trains from every seed of both and prints mean, deviation and range."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--hidden", type=int, default=200)
    arguments = parser.parse_args()
    data = jaxnets.load_dataset("mnist", validation_size=0)
    accuracies: dict[str, list[float]] = {"JAX": [], "NumPy": []}
    for seed in range(arguments.seeds):
        config = jaxnets.preset("mlp_handwritten", hidden=(arguments.hidden,), seed=seed)
        experiment = jaxnets.Experiment.create(config, data)
        for generator, found in accuracies.items():
            state = experiment.init_state()
            if generator == "NumPy":
                state = state.replace(params=numpy_params(seed, state.params))
            for trained, _ in experiment.epochs(Checkpoint(state)):
                state = trained
            found.append(experiment.evaluate(state.params, data.test).accuracy)
    for generator, found in accuracies.items():
        print(
            f"{generator:5} {statistics.mean(found):.4f} ± {statistics.stdev(found):.4f}, "
            f"from {min(found):.4f} to {max(found):.4f}"
        )
    _, p = ttest_ind(*accuracies.values())
    print(f"the means differ by luck with p = {p:.2f}")


if __name__ == "__main__":
    main()
