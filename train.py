#!/usr/bin/env python3
"""Trains a network of the lecture and reports its test accuracy.

    python train.py --model=cnn                      the CNN on MNIST: 99.6 %
    python train.py --model=cnn --gradients=manual   gradients derived by hand
    python train.py --model=mlp --hidden=128,64 --epochs=5
    python train.py --model=cnn --dataset=cifar10    another data set

A run is kept in its run folder. Exit status: 0 done; 1 the run failed (target
accuracy missed, loss not finite, gradients disagree, disk full); 2 the request
was wrong; 130 (Ctrl-C), 143 (SIGTERM) or 129 (a closed terminal) interrupted,
after saving; a second Ctrl-C stops at once. --resume continues the model's
newest unfinished run, --resume --workdir=DIR that one.
"""

import sys

from jaxnets.cli.start import run_main


def main(arguments: list[str]) -> int:
    """Parses the flags, trains, tests; returns the exit status."""
    from jaxnets.base.errors import DONE  # In here Ctrl-C ends the process in one line.
    from jaxnets.cli.flags import parse_flags

    flags = parse_flags(arguments, description=__doc__ or "")

    # Imported when the flags are known to be right: JAX takes a second.
    from jaxnets.cli.training import train_run

    train_run(flags)
    return DONE


if __name__ == "__main__":
    sys.exit(run_main(main))
