"""Compares the CNN's gradients in bfloat16, by stock JAX and by hand, with those in float32.

    python benchmarks/bias_gradient.py                 at the first step and after 200

All are taken at the numbers of one forward pass in bfloat16, so only the backward passes differ. An
error is relative to the array's largest number.
"""

import argparse

import jax

import jaxnets
from jaxnets.data.batches import train_batches
from jaxnets.experiment import Experiment
from jaxnets.gradcheck.errors import relative_error
from jaxnets.gradcheck.oracle import both_loss_and_grads


def main() -> None:
    """Prints a table for each step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="cnn")
    parser.add_argument("--steps", default="0,200", help="after how many steps, ascending")
    arguments = parser.parse_args()
    steps = [int(step) for step in arguments.steps.split(",")]
    config = jaxnets.preset(arguments.model, precision="bfloat16", gradients="manual")
    experiment = Experiment.create(config, jaxnets.load_dataset("mnist"))
    models = experiment.model, experiment.model
    stock, float32 = (
        experiment.gradient_step(both_loss_and_grads(*models, config.loss, precision))
        for precision in ("bfloat16", "float32")
    )
    train_step = experiment.parallel.compile(experiment.train_step())
    loader, state = experiment.loader, experiment.init_state()
    batches = train_batches(
        loader.split, loader.batch_size, seed=config.seed, epoch=0, shifts=loader.shifts
    )
    for done, batch in enumerate(batches):
        if done in steps:
            _, (by_hand, expected, _) = float32(state, batch)
            _, (_, by_stock, _) = stock(state, batch)
            print(f"{f'step {done}':15s}  jax.grad   by hand")
            for layer, arrays in expected.items():
                for name, array in arrays.items():
                    errors = (
                        relative_error(tree[layer][name], array)[0] for tree in (by_stock, by_hand)
                    )
                    print(f"{layer:8s}{name:8s}", *(f"{error:9.2%}" for error in errors))
        if done == steps[-1]:
            return
        state, _ = train_step(state, jax.tree.map(jax.numpy.asarray, batch))


if __name__ == "__main__":
    main()
