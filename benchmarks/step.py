"""A network's training step: plain JAX, jax.grad with our rules, and the gradients by hand.

    python benchmarks/step.py                          the CNN at batch 128
    python benchmarks/step.py --model=alexnet --input_size=224 --steps=2 --rounds=3
    python benchmarks/step.py --model=mlp --batch_size=512
    python benchmarks/step.py --cpu_time               counts CPU time: steady where others work

Each way runs in processes of its own, in turn, so that a drift of the machine meets all alike.
"plain" is jax.jit around optax and jax.grad of the same Flax network, nothing of ours set. "apart"
is "auto" with each convolution apart from its pool (kernels/conv_pool.py).
"""

import argparse
import statistics
import time

from in_turn import in_turn

WAYS = ("plain", "apart", "auto", "manual")


def images_per_second(
    way: str, model_name: str, batch_size: int, steps: int, size: int, cpu_time: bool
) -> float:
    """The rate of one way, median of five."""
    clock = time.process_time if cpu_time else time.perf_counter
    import jax

    import jaxnets
    from jaxnets.data.batches import train_batches
    from jaxnets.experiment import Experiment
    from jaxnets.kernels import accelerate
    from jaxnets.losses import LOSSES
    from jaxnets.training.step import TrainState, autodiff_loss_and_grad, make_train_step

    gradients = "manual" if way == "manual" else "auto"
    changes = {"input_size": size} if size else {}
    config = jaxnets.preset(model_name, batch_size=batch_size, gradients=gradients, **changes)
    data = jaxnets.load_dataset("mnist")
    experiment = Experiment.create(config, data)
    model, optimizer = experiment.model, experiment.optimizer
    if way == "plain":
        ways = autodiff_loss_and_grad(model.apply, LOSSES[config.loss])
        step = jax.jit(make_train_step(ways, optimizer), donate_argnums=0)
    else:
        ways = experiment.loss_and_grad
        if way == "apart":
            ways = autodiff_loss_and_grad(
                accelerate(model, "cpu", sharded=True).apply, LOSSES[config.loss]
            )
        step = make_train_step(ways, optimizer)
        step = experiment.parallel.compile(step, donate=True)

    batch = next(train_batches(data.train, batch_size, seed=0, epoch=0))
    key = jax.random.key(0)
    params = jax.jit(model.init)(key, batch.images[:1])["params"]
    step_number = jax.numpy.zeros((), int)
    opt_state = optimizer.init(params)
    state = TrainState(step=step_number, params=params, opt_state=opt_state, key=key)
    state, metrics = step(state, batch)
    jax.block_until_ready(metrics)
    seconds = []
    for _ in range(5):
        started = clock()
        for _ in range(steps):
            state, metrics = step(state, batch)
        jax.block_until_ready(state)
        seconds.append((clock() - started) / steps)
    return batch_size / statistics.median(seconds)


def main() -> None:
    """Runs the ways in turn and prints their rates and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--model", default="cnn")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--input_size", type=int, default=0)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cpu_time", action="store_true", help="rates by the process' CPU time")
    parser.add_argument("--way", choices=WAYS, help="internal: run one way and print its rate")
    flags = parser.parse_args()
    if flags.way:
        sizes = (flags.batch_size, flags.steps, flags.input_size, flags.cpu_time)
        print(images_per_second(flags.way, flags.model, *sizes))
        return
    rates = in_turn(WAYS, flags.rounds)
    for way in WAYS:
        ratio = statistics.median(
            ours / plain for ours, plain in zip(rates[way], rates["plain"], strict=True)
        )
        low, high = min(rates[way]), max(rates[way])
        print(
            f"{way:7s}{statistics.median(rates[way]):10,.0f} images/s"
            f"  ({low:,.0f} to {high:,.0f})  {ratio:.2f} x plain"
        )
    manual_loss_and_grad = zip(rates["auto"], rates["manual"], strict=True)
    ratio = statistics.median(auto / manual for auto, manual in manual_loss_and_grad)
    print(f"time of a step by hand / by jax.grad: {ratio:.2f}")


if __name__ == "__main__":
    main()
