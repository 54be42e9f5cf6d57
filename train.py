#!/usr/bin/env python3
"""Trains a network of the lecture and reports its test accuracy.

    python train.py --model=cnn                      the CNN on MNIST: 99.6 %
    python train.py --model=cnn --gradients=manual   gradients derived by hand
    python train.py --model=cnn --mine=my_dense.py   gradients that you derived
    python train.py --model=mlp --hidden=128,64 --epochs=5
    python train.py --model=cnn --dataset=cifar10    another data set

A run is kept in its run folder. Exit status: 0 done; 1 the run failed (target
accuracy missed, loss not finite, gradients disagree, disk full); 2 the request
was wrong; 130 (Ctrl-C), 143 (SIGTERM) or 129 (a closed terminal) interrupted,
after saving; a second Ctrl-C stops at once. --resume continues the model's
newest unfinished run, --resume --workdir=DIR that one.
"""

import contextlib
import sys

from jaxnets.base.errors import DONE, RunFailedError, run_main


def main(arguments: list[str]) -> int:
    """Parses the flags, trains, tests; returns the exit status."""
    from jaxnets.cli.flags import parse_flags  # In here Ctrl-C ends the process in one line.

    flags = parse_flags(arguments, description=__doc__ or "")
    if "track" in flags:
        from jaxnets.tracking.check import check

        check(flags["track"])

    # Imported when the flags are known to be right: JAX takes a second.
    from jaxnets.course.exercises.mine import keep_end, own_passes, right_first
    from jaxnets.course.replay import observers_of, search_first
    from jaxnets.runs.run import Run

    failed = None
    with contextlib.ExitStack() as stack:
        # It loads the data and builds the network; where a config has latent_dims, it searches,
        # and where it has mine, it judges these files first.
        run = stack.enter_context(Run.open(flags, search_first, own_passes))
        observers = observers_of(run)  # a bar and a line an epoch, or the slides' own lines
        if run.config.track != "none":
            from jaxnets.tracking.trackers import trackers_of

            observers += stack.enter_context(trackers_of(run))
        print(run.headline, flush=True)
        right_first(run)  # only where a wrong derivation is to train
        try:
            run.train(observers)  # trains, validates, logs, saves
            run.finish(observers)  # tests, writes result.json
        except RunFailedError as error:
            failed = keep_end(
                run, error
            )  # A wrong derivation's end is a result, which is reported.
    if run.config.report and run.processes.is_first:
        from jaxnets.report.build import write_into

        write_into(run.folder.path)
    if failed is not None:
        raise failed
    return DONE


if __name__ == "__main__":
    sys.exit(run_main(main))
