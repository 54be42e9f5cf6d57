"""Transfer learning: digits 6 to 9 from few images, with the weights of a run on digits 0 to 5.

    python examples/transfer.py     about two minutes on one core

A small CNN first learns the digits 0 to 5 from 20,000 images. Then it learns the digits
6 to 9 from 20, 100 or 500 images: once from random weights, and once from those of the first run
with a newly drawn last layer. Each number is the mean validation accuracy of three seeds.
"""

import dataclasses
import tempfile

import numpy as np

import jaxnets

SEEDS = range(3)


def digits(data, first, last, count=None):
    """The digits from first to last, renumbered from 0; all their training images, or count."""

    def chosen(part, count=None):
        rows = np.flatnonzero((part.labels >= first) & (part.labels <= last))[:count]
        return dataclasses.replace(part[rows], labels=part.labels[rows] - first)

    return dataclasses.replace(
        data,
        name=f"digits {first} to {last}",
        num_classes=last - first + 1,
        class_names=tuple(map(str, range(first, last + 1))),
        train=chosen(data.train, count),
        validation=chosen(data.validation),
        test=chosen(data.test),
        checksum=f"{data.checksum} {first} {last} {count}",
    )


def accuracy(data, seed, init_from=None):
    """The validation accuracy of a small CNN after 300 steps of 20 images each."""
    network = jaxnets.Network(
        "cnn_tiny",
        dataclasses.replace(data, validation=data.validation[:0]),  # Not after each epoch.
        augment="none",
        epochs=300 * 20 // len(data.train),
        batch_size=20,
        learning_rate=0.02,
        seed=seed,
        init_from=init_from,
    )
    network.fit(verbose=0)
    return network.score(data.validation.images, data.validation.labels)


def first_run(data, folder):
    """Trains the small CNN on 20,000 images of the digits 0 to 5; returns its run's folder."""
    network = jaxnets.Network("cnn_tiny", digits(data, 0, 5, 20_000), augment="none", epochs=2)
    network.fit(verbose=0)
    return str(network.save(folder))


def main():
    """Prints a row for each number of images."""
    mnist = jaxnets.load_dataset("mnist")
    with tempfile.TemporaryDirectory() as folder:
        run = first_run(mnist, f"{folder}/run")
        print(f"{'images':>6} {'random':>7} {'transfer':>9}", flush=True)
        for count in (20, 100, 500):
            few = digits(mnist, 6, 9, count)
            scratch, tuned = (
                np.mean([accuracy(few, seed, start) for seed in SEEDS]) for start in (None, run)
            )
            print(f"{count:6} {scratch:7.3f} {tuned:9.3f}", flush=True)


if __name__ == "__main__":
    main()
