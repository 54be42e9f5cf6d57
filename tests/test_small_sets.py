"""The recipe for few pictures or a table: when it replaces a network's own, and that it is said."""

from typing import Any

import numpy as np
import pytest
from conftest import read_json
from PIL import Image

from jaxnets.config.adapt import STEPS, OwnData, for_small_set
from jaxnets.config.resolve import preset
from jaxnets.course.replay import AS_ON_THE_SLIDE

NAMES = ("circle", "square", "triangle")
CHANGED = {"batch_size", "epochs", "optimizer", "learning_rate", "schedule", "augment"}
CHANGED |= {"momentum", "nesterov"}
DENSE = ("softmax", "mlp", "mlp_handwritten")


def changes(
    given=(), count=511, names=NAMES, model="cnn", is_table=False, inputs=12288, **settings
):
    """The fields that the recipe for a small set changes, and what is noted."""
    config = preset(model, **settings)
    data = OwnData(count, names, is_table, model not in DENSE, inputs)
    adapted, note = for_small_set(config, {*given, *settings}, data)
    new = {n: x for n, x in vars(adapted).items() if x != getattr(config, n)}
    return new, note


def test_few_pictures_get_small_batches_and_many_epochs():
    new, note = changes()
    assert new.keys() <= CHANGED and (new["batch_size"], new["epochs"]) == (32, 50)
    assert (new["optimizer"], new["augment"]) == ("adam", "crop,flip")
    assert note.startswith(
        "note: 511 training pictures are few, so the recipe becomes batch_size 32"
    )
    assert "epochs 50: 800 steps" in note
    assert new["learning_rate"] == 2 * changes(model="alexnet_small")[0]["learning_rate"] == 0.002


@pytest.mark.parametrize("count", [2, 20, 33, 511, 3000])
@pytest.mark.parametrize("model", ["softmax", "mlp", "cnn", "alexnet", "alexnet_small"])
def test_a_run_takes_its_steps_and_no_epoch_more(count, model):
    data = OwnData(count, NAMES, False, model not in DENSE, 12288)
    adapted, note = for_small_set(preset(model), (), data)
    steps = -(-count // (adapted.batch_size or count))
    assert note and STEPS <= adapted.epochs * steps < STEPS + steps
    assert adapted.batch_size == min(32, count)


def test_many_pictures_are_trained_on_by_the_networks_own_recipe():
    enough = 128 * STEPS // preset("cnn").epochs
    assert changes(count=enough) == ({}, "")
    assert changes(count=enough - 128)[0]


@pytest.mark.parametrize(
    ("given", "unchanged"),
    [
        (dict(epochs=3), {"epochs"}),
        (dict(batch_size=64), {"batch_size"}),
        (dict(augment="none"), {"augment"}),
        (dict(learning_rate=0.3), {"learning_rate", "optimizer", "schedule", "momentum"}),
        (dict(optimizer="rmsprop"), {"learning_rate", "optimizer", "schedule", "momentum"}),
    ],
)
def test_what_the_user_has_set_stays(given, unchanged):
    new, _ = changes(**given)
    assert new and not new.keys() & unchanged


def test_a_part_of_the_set_gets_the_networks_recipe():
    given: dict[str, Any] = dict(limit=100)
    assert changes(**given) == ({}, "")
    # Of 100 pictures 81 may be there to train on.
    assert changes(**given, count=81) == ({"batch_size": 81}, "")
    assert changes(**given, count=81, batch_size=82) == ({}, "")
    assert changes(**given, count=81, model="mlp_handwritten") == ({}, "")


def test_a_run_whose_fields_are_all_given_is_not_changed():
    fields = vars(preset("cnn"))
    assert changes(given=fields) == ({}, "")


def test_the_lectures_search_is_repeated_as_it_is():
    assert changes(model="mlp_handwritten", **AS_ON_THE_SLIDE) == ({}, "")
    assert changes(model="mlp_handwritten")[0]["batch_size"] == 32


@pytest.mark.parametrize("model", ["softmax", "mlp"])
def test_a_network_without_convolutions_gets_no_crops(model):
    new, note = changes(model=model)
    assert "augment" not in new and "augment" not in note and new["optimizer"] == "adam"


@pytest.mark.parametrize(
    ("inputs", "rate"), [(4, 0.03), (64, 0.03), (784, 0.03), (3072, 0.008), (12288, 0.002)]
)
def test_softmax_learns_more_slowly_from_many_inputs(inputs, rate):
    new, note = changes(model="softmax", inputs=inputs)
    assert new["learning_rate"] == rate and f"learning_rate {rate}," in note
    assert "learning_rate" not in changes(model="softmax", inputs=inputs, learning_rate=0.5)[0]
    assert changes(model="mlp", inputs=inputs)[0]["learning_rate"] == 0.003


def test_a_table_of_any_length_gets_this_recipe():
    assert changes(model="mlp", count=10**5)[0] == {}
    new, note = changes(model="mlp", count=10**5, is_table=True)
    assert (new["optimizer"], new["batch_size"], new["epochs"]) == ("adam", 32, 1)
    assert note.startswith("note: the recipe for a table of 100,000 rows is batch_size 32")
    assert changes(model="mlp", count=10**5, is_table=True, limit=100) == ({}, "")


@pytest.mark.parametrize(("count", "patience"), [(511, 13), (125, 50), (20, 200)])
def test_a_folders_training_stops_after_a_quarter_of_its_epochs(count, patience):
    def early_stopping(given=(), is_folder=True, **settings):
        config = preset("cnn", **settings)
        data = OwnData(count, NAMES, False, True, 12288, is_folder)
        return for_small_set(config, {*given, *settings}, data)[0].early_stopping

    assert early_stopping() == patience and early_stopping(early_stopping=3) == 3
    assert early_stopping(is_folder=False) is None
    assert early_stopping(epochs=9) is None  # So many were asked for.
    assert early_stopping(validation_size=0) is None  # Nothing would be watched.


def test_letters_and_digits_are_not_mirrored():
    assert changes(names=("b", "d", "鸟"))[0]["augment"] == "crop"


@pytest.fixture
def pictures(tmp_path):
    """A folder of 60 pictures whose bright half is their class."""
    rng = np.random.default_rng(0)
    for number in range(60):
        image = rng.integers(0, 128, (20, 24, 3), np.uint8)
        rows = slice(0, 10) if number % 2 else slice(10, 20)
        image[rows] += 120
        path = tmp_path / "set" / ("top" if number % 2 else "bottom") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return tmp_path / "set"


@pytest.mark.slow
def test_a_run_says_keeps_and_resumes_it(pictures, run_main, tmp_path, interrupt_after):
    folder = tmp_path / "run"
    flags = f"--dataset={pictures}", "--model=softmax", f"--workdir={folder}", "--devices=1"
    flags += ("--epochs=50",)
    interrupt_after(20)
    outcome = run_main(*flags)
    assert outcome.status == 130 and "training pictures are few" in outcome.out.replace("\n ", "")
    config = read_json(folder / "config.json")
    assert (config["optimizer"], config["augment"], config["batch_size"]) == ("adam", "none", 8)
    interrupt_after(10**9)
    outcome = run_main("--resume", f"--workdir={folder}")
    assert outcome.status == 0 and "pictures are few" not in outcome.out
    result = read_json(folder / "result.json")
    assert result["steps"] == 350 and result["test_accuracy"] == 1


@pytest.mark.slow
def test_fewer_pictures_than_a_batch_are_tried_too(pictures, run_main, tmp_path):
    flags = "--model=softmax", "--devices=1", "--limit=50", f"--workdir={tmp_path / 'run'}"
    outcome = run_main(f"--dataset={pictures}", *flags)
    assert (outcome.status, outcome.err) == (0, "")


@pytest.mark.slow
def test_a_search_on_few_pictures_takes_it_too(pictures, run_command, tmp_path):
    flags = f"--dataset={pictures}", "--model=softmax", "--epochs=2", "--seeds=2"
    outcome = run_command(
        "search", *flags, "--over=batch_size=8,16", f"--workdir={tmp_path / 'search'}"
    )
    assert outcome.status == 0, outcome.err
    assert "training pictures are few" in outcome.err
    kept = read_json(tmp_path / "search" / "search.json")
    assert kept["flags"]["optimizer"] == "adam" and "batch_size" not in kept["flags"]
