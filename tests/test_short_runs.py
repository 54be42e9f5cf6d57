"""Runs that only try: --limit, and the note about a run that has learned nothing."""

import dataclasses

import numpy as np
import pytest
from conftest import CLASSES, read_json

from jaxnets.config.resolve import preset
from jaxnets.metrics import Metrics
from jaxnets.runs.ending import ending


def test_a_limit_draws_images_with_their_own_labels(tiny):
    """The images of a class differ from the others', so that each may be recognized."""
    limited = tiny.limited(20)
    for name in ("train", "validation", "test"):
        part, whole = getattr(limited, name), getattr(tiny, name)
        assert len(part) == 20
        for image, label in zip(part.images, part.labels, strict=True):
            at = np.flatnonzero((whole.images == image).all(axis=(1, 2, 3)))
            assert len(at) == 1 and whole.labels[at[0]] == label
        assert len(set(part.labels)) == CLASSES  # Drawn: some of every class.
    assert tiny.limited(10**6).train is tiny.train and tiny.limited(None).test is tiny.test


def test_a_sorted_set_is_limited_to_some_of_every_class(tiny):
    order = np.argsort(tiny.train.labels)
    part = dataclasses.replace(
        tiny.train, images=tiny.train.images[order], labels=tiny.train.labels[order]
    )
    limited = dataclasses.replace(tiny, train=part).limited(30)
    assert min(np.bincount(limited.train.labels, minlength=CLASSES)) > 3


def test_a_limit_larger_than_a_batch_changes_no_other_setting():
    assert preset("cnn", limit=500) == dataclasses.replace(preset("cnn"), limit=500)
    assert preset("cnn", limit=50).batch_size == 50
    assert preset("cnn", limit=50, batch_size=10).batch_size == 10
    assert preset("mlp_handwritten", limit=50).batch_size is None


@pytest.mark.slow
def test_a_limited_run_says_so_and_resumes_so(train_tiny, run_main, tmp_path):
    outcome = train_tiny("softmax", "--limit=30", "--batch_size=10")
    assert "30 train, 30 validation, 30 test images" in outcome.out
    result = read_json(tmp_path / "run" / "result.json")
    assert (result["steps"], result["test_count"]) == (6, 30)
    again = "--resume", f"--workdir={tmp_path / 'run'}", "--epochs=3"
    run_main(*again, "--limit=40").assert_refused("limit was 30, got 40")
    assert run_main(*again).status == 0


@pytest.mark.parametrize(
    ("confusion", "is_noted"),
    [
        ([[0, 5, 0], [0, 4, 0], [0, 3, 0]], True),  # Always the second.
        ([[5, 0, 0], [4, 0, 0], [3, 0, 0]], True),  # Always the first, the most frequent one.
        ([[5, 0, 0], [3, 1, 0], [3, 0, 0]], False),
    ],
)
def test_at_chance_one_answer_would_be_right_as_often(confusion, is_noted):
    counts = np.array(confusion)
    correct, total = counts.trace(), counts.sum()
    test = Metrics(np.float64(9.0), correct, total, counts, total)
    config, names = preset("softmax", learning_rate=7.0), ("cat", "d\x1bg", "bird")
    note = ending(test, names, config, "runs/x", [])
    assert ("no better than" in note) == is_noted
    if is_noted:
        assert "always answering cat (0.4167)" in note
        assert "another --learning_rate than 7, or more --epochs than 10" in note
    assert "no better than" not in ending(test, names, config, "runs/x", [], ours=False)


@pytest.mark.slow
def test_a_run_at_chance_says_so(train_tiny):
    outcome = train_tiny("mlp_functional", "--learning_rate=1000")
    assert "is no better than always answering" in outcome.out
    assert "is no better than" not in train_tiny("softmax", "--overwrite").out
