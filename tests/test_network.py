"""Network: what a user of Keras guesses, with the numbers and the files of train.py."""

import io
import json
import signal
import sys
from typing import Any

import conftest
import jax
import numpy as np
import pytest
from conftest import assert_same, history, params_sha256, read_json
from PIL import Image

import jaxnets
from jaxnets.base.errors import RunFailedError, UserError
from jaxnets.data.arrays import from_arrays
from jaxnets.notebook.callbacks import NAMES, Callback
from jaxnets.notebook.network import Network
from jaxnets.runs import run_folder


@pytest.fixture
def make(tiny_preset):
    """A network on the tiny data set, with its data's flags."""
    return lambda model="softmax", **changes: Network(tiny_preset(model, **changes))


@pytest.fixture(scope="module")
def trained(tiny_preset):
    """A network that is trained to its end; nothing changes it."""
    network = Network(tiny_preset("softmax"))
    return network, network.fit(verbose=0)


def without_times(records):
    return [conftest.without_times(record) for record in records]


def sha256(network):
    return run_folder.params_sha256(network.state.params)


@pytest.mark.parametrize("model", ["softmax", pytest.param("cnn", marks=pytest.mark.slow)])
def test_it_trains_and_saves_bit_by_bit_as_train_py(model, make, train_tiny, tmp_path):
    assert train_tiny(model).status == 0
    theirs, network = tmp_path / "run", make(model)
    assert without_times(network.fit(verbose=0)) == history(theirs)
    ours = network.save(tmp_path / "saved")
    assert params_sha256(ours) == params_sha256(theirs)
    assert history(ours) == history(theirs)
    assert {path.name for path in ours.iterdir()} == {path.name for path in theirs.iterdir()}
    for name, own in (("config.json", "workdir"), ("result.json", "seconds")):
        saved, expected = read_json(ours / name), read_json(theirs / name)
        assert list(saved) == list(expected)
        assert {n for n in saved if saved[n] != expected[n]} <= {own, "validation_seconds"}
    test = read_json(theirs / "result.json")
    loss, accuracy = network.evaluate()
    assert (loss, accuracy) == (test["test_loss"], test["test_accuracy"])


@pytest.mark.slow
def test_a_second_fit_is_a_resume_with_more_epochs(make, train_tiny, run_main, tmp_path):
    folder = tmp_path / "run"
    train_tiny("softmax")  # Its schedule is a cosine.
    assert run_main("--resume", f"--workdir={folder}", "--epochs=5").status == 0
    network = make()
    network.fit(verbose=0)
    more = network.fit(epochs=3, verbose=0)
    assert (len(more), more[0]["epoch"], len(network.history)) == (3, 3, 5)
    assert sha256(network) == params_sha256(folder)
    assert without_times(network.history) == history(folder)


@pytest.mark.slow
def test_what_train_py_wrote_is_loaded_and_trains_on(make, trained, train_tiny, tmp_path):
    train_tiny("softmax")
    loaded = jaxnets.load(tmp_path / "run")
    assert sha256(loaded) == sha256(trained[0])
    assert without_times(loaded.history) == without_times(trained[1])
    other = make()
    other.fit(verbose=0)
    assert without_times(loaded.fit(verbose=0)) == without_times(other.fit(verbose=0))
    assert (loaded.config.epochs, sha256(loaded)) == (4, sha256(other))


@pytest.mark.slow
def test_what_is_saved_midway_is_resumed_by_train_py(make, run_main, trained, tmp_path):
    class Stop(Callback):
        def on_train_batch_end(self, batch, logs):
            self.model.stop_training = batch == 1

    network = make()
    assert len(network.fit(callbacks=Stop(), verbose=0)) == 0
    assert 2 <= int(network.state.step) < 5
    folder = network.save(tmp_path / "saved")
    assert not (folder / "result.json").exists()
    assert run_main("--resume", f"--workdir={folder}").status == 0
    assert params_sha256(folder) == sha256(trained[0])
    loaded = jaxnets.load(folder)
    assert sha256(loaded) == sha256(trained[0])
    network.fit(verbose=0)  # So does the network itself.
    assert sha256(network) == sha256(trained[0])


def test_a_killed_runs_records_after_its_checkpoint_are_left_out(trained, tmp_path):
    folder = trained[0].save(tmp_path / "run")
    line = json.dumps(trained[1][-1] | {"epoch": 3, "step": 15})
    with (folder / "metrics.jsonl").open("a") as stream:
        stream.write(line + "\n")
    loaded = jaxnets.load(folder)
    assert int(loaded.state.step) == 10 and len(loaded.history) == 2


def test_loading_changes_no_file_not_even_a_damaged_one(trained, tmp_path, capsys):
    folder = trained[0].save(tmp_path / "run")
    damaged = folder / "checkpoints" / "99.safetensors"
    damaged.write_bytes(b"no checkpoint")
    assert sha256(jaxnets.load(folder)) == sha256(trained[0])
    assert damaged.exists() and "99.safetensors: cannot be restored" in capsys.readouterr().err


@pytest.fixture
def pictures(tmp_path, tiny_arrays):
    """Files of the first test images, of other sizes."""
    paths = []
    for number, image in enumerate(tiny_arrays["t10k-images"][:3]):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(image.astype(np.uint8)).resize((20 + number, 30)).save(paths[-1])
    return paths


def test_it_predicts_what_the_command_predicts(trained, pictures, run_command, tmp_path):
    network, _ = trained
    folder = network.save(tmp_path / "run")
    printed = run_command("predict", folder, *pictures, "--json")
    config = read_json(folder / "config.json") | {"data_dir": str(tmp_path / "gone")}
    (folder / "config.json").write_text(json.dumps(config))
    expected = [
        [best["probability"] for best in sorted(picture["predictions"], key=lambda b: b["label"])]
        for picture in json.loads(printed.out)
    ]
    loaded = jaxnets.load(folder)
    for asked in (network, loaded):
        assert asked.predict(pictures).tolist() == expected
        (alone,) = asked.predict(str(pictures[0]))
        np.testing.assert_allclose(alone, expected[0], rtol=1e-5)
        assert asked.predict(Image.open(pictures[0])).tolist() == [alone.tolist()]
    with pytest.raises(UserError, match="gone"):  # It has needed no data set.
        _ = loaded.data


def test_images_of_the_set_are_predicted_as_evaluated(trained):
    network, _ = trained
    data, metrics = network.data.test, network.evaluate()
    predicted = network.predict(data.images).argmax(axis=1)
    assert np.mean(predicted == data.labels) == metrics.accuracy
    as_bytes = np.rint(255 * data.images[..., 0]).astype(np.uint8)
    for given in ((data,), (data.images, data.labels), (as_bytes, data.labels[:, None])):
        again = network.evaluate(*given)
        np.testing.assert_array_equal(again.confusion, metrics.confusion)
        assert again.loss == pytest.approx(metrics.loss, rel=1e-6)


def test_predictions_follow_the_training(make, tiny):
    network, images = make(), tiny.test.images
    with pytest.warns(UserWarning, match="the network is not trained: .* net.fit.. trains it"):
        before = network.predict(images)
    network.fit(verbose=0)
    after = network.predict(images)
    assert np.abs(after - before).max() > 0.1
    network.fit(verbose=0)
    assert np.abs(network.predict(images) - after).max() > 0.01


class Noted(Callback):
    """Notes its calls."""

    def __init__(self):
        self.calls: list[tuple[Any, ...]] = []

    def __getattribute__(self, name):
        if name not in NAMES:
            return super().__getattribute__(name)
        return lambda *arguments: self.calls.append((name, *arguments))

    def on_train_batch_end(self, batch, logs):
        """Asks for every batch."""


def test_callbacks_are_called_as_keras_calls_them(make, trained):
    noted, ends = Noted(), []
    network = make()
    callbacks = [noted, lambda epoch, logs: ends.append((epoch, logs))]
    result = network.fit(callbacks=callbacks, verbose=0)
    assert without_times(result) == without_times(trained[1])  # Step by step, the same numbers.
    names = [call[0].removeprefix("on_") for call in noted.calls]
    epoch = ["epoch_begin", *["train_batch_end"] * 5, "epoch_end"]
    assert names == ["train_begin", *epoch, *epoch, "train_end"]
    numbers = [call[1] for call in noted.calls if len(call) == 3]
    assert numbers == [0, *range(5), 0, 1, *range(5), 1]
    logs = [call[2] for call in noted.calls if call[0] == "on_train_batch_end"]
    assert logs[4] == {"loss": result["loss"][0], "accuracy": result["accuracy"][0]}
    keys = ["loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"]
    assert [(number, list(logs)) for number, logs in ends] == [(0, keys), (1, keys)]
    assert [logs["val_loss"] for _, logs in ends] == result["val_loss"]
    assert noted.model is network


def test_a_callback_may_stop_and_fit_trains_on(make, trained):
    network = make()

    def stop(epoch, logs):
        network.stop_training = True

    assert len(network.fit(callbacks=stop, verbose=0)) == 1
    assert network.config.epochs == 2 and len(network.fit(verbose=0)) == 1
    assert sha256(network) == sha256(trained[0])


def test_a_callbacks_error_is_raised_and_costs_no_step(make, trained):
    class Broken(Callback):
        def on_train_batch_end(self, batch, logs):
            raise ZeroDivisionError

    network = make()
    with pytest.raises(ZeroDivisionError):
        network.fit(callbacks=Broken(), verbose=0)
    assert 0 < int(network.state.step) < 10
    assert network.fit(verbose=0) and sha256(network) == sha256(trained[0])


def test_ctrl_c_keeps_the_steps_until_then(make, trained):
    class Interrupt(Callback):
        def on_train_batch_end(self, batch, logs):
            signal.raise_signal(signal.SIGINT)

    network = make()
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        network.fit(callbacks=Interrupt(), verbose=0)
    assert signal.getsignal(signal.SIGINT) is before
    assert 0 < int(network.state.step) < 10
    network.fit(verbose=0)
    assert sha256(network) == sha256(trained[0])


@pytest.mark.slow
def test_a_loss_not_finite_leaves_the_network_as_made(make):
    network = make(learning_rate=1e4, weight_decay=1.0)  # It multiplies them by -9,999.
    before = sha256(network)
    with pytest.raises(RunFailedError, match="is nan; try a learning_rate below 10000$"):
        network.fit(epochs=9, verbose=0)
    assert (sha256(network), len(network.history), network.config.epochs) == (before, 0, 2)


def test_it_says_as_much_as_verbose_asks_for(make, capsys):
    make().fit(verbose=0)
    assert capsys.readouterr() == ("", "")
    for verbose in (1, 2):
        make().fit(verbose=verbose)
        printed = capsys.readouterr()
        begins = [line.split("  ")[0] for line in printed.out.splitlines()]
        assert begins == ["epoch 1/2", "epoch 2/2"]
        assert printed.err == ""  # No terminal.


def test_a_notebook_shows_a_bar_on_stdout(make, monkeypatch):
    class OutStream(io.StringIO):
        """Jupyter's stream for stdout, by its class's place."""

    OutStream.__module__ = "ipykernel.iostream"
    for verbose, has_bar in ((1, True), (2, False), (0, False)):
        monkeypatch.setattr(sys, "stdout", stream := OutStream())
        make().fit(verbose=verbose)
        assert ("%|" in stream.getvalue()) == has_bar
        assert stream.getvalue().count("validation loss") == 2 * (verbose > 0)


@pytest.mark.slow
def test_early_stopping_and_limit_are_train_pys(make, train_tiny, tmp_path, capsys):
    flags = dict(early_stopping=1, limit=40, learning_rate=1.5, epochs=9)
    train_tiny("softmax", *(f"--{name}={value}" for name, value in flags.items()))
    theirs, network = tmp_path / "run", make(**flags)
    capsys.readouterr()
    assert without_times(network.fit()) == history(theirs)
    assert len(network.history) < 9 and "stopped early" in capsys.readouterr().out
    assert params_sha256(network.save(tmp_path / "saved")) == params_sha256(theirs)


def test_arrays_are_a_data_set(tiny, tiny_arrays, make):
    images, labels = tiny_arrays["train-images"].astype(np.uint8), tiny_arrays["train-labels"]
    test = tiny_arrays["t10k-images"] / 255, tiny_arrays["t10k-labels"]
    data = from_arrays(((images[..., None], np.eye(3)[labels]), test), validation_size=40)
    assert (len(data.train), len(data.validation), len(data.test)) == (160, 40, 50)
    np.testing.assert_array_equal(np.float32(data.test.images), tiny.test.images)
    rows = {image.tobytes() for part in (data.train, data.validation) for image in part.images}
    assert rows == {image.tobytes() for image in images}
    for part in (data.train, data.validation):
        assert set(part.labels) == {0, 1, 2}  # They are drawn.
    parts = (tiny.train, tiny.validation, tiny.test)
    recipe: dict[str, Any] = dict(batch_size=32, epochs=2, learning_rate=0.5, augment="none")
    network = Network("softmax", [(p.images, p.labels) for p in parts], **recipe)
    own = make()
    assert without_times(network.fit(verbose=0))[0]["step"] == 5
    own.fit(verbose=0)
    assert_same(network.state.params, own.state.params)


@pytest.mark.slow
def test_one_pair_of_arrays_is_cut_in_three(tmp_path):
    images = np.random.default_rng(0).random((100, 9, 9), np.float32)
    labels = np.sort(np.arange(100) % 4)
    few: dict[str, Any] = dict(epochs=1, devices=1)
    network = Network("softmax", (images, labels), batch_size=16, **few)
    parts = network.data.train, network.data.validation, network.data.test
    assert [len(part) for part in parts] == [81, 9, 10] and network.data.num_classes == 4
    assert all(len(set(part.labels)) > 2 for part in parts)  # They are drawn.
    limited = Network("softmax", network.data, limit=20, **few)
    assert [len(limited.data.train), len(limited.data.test)] == [20, 10]
    folder = network.save(tmp_path / "run")
    with pytest.raises(UserError, match="jaxnets.load.DIR, data=...."):
        jaxnets.load(folder).fit()
    loaded = jaxnets.load(folder, (images, labels))
    assert loaded.evaluate().loss == network.evaluate().loss
    network = Network("softmax", (images[:5], labels[::20]), batch_size=2, **few)
    assert len(network.data.validation) == 0 and len(network.data.test) == 1
    assert list(network.fit(verbose=0).history) == ["loss", "accuracy"]


def test_a_saved_network_is_replaced_where_that_is_asked(trained, tmp_path):
    folder = trained[0].save(tmp_path / "run")
    loaded = jaxnets.load(trained[0].save(folder, overwrite=True))
    assert sha256(loaded) == sha256(trained[0])


def test_it_shows_itself_and_its_layers(trained, capsys, tmp_path):
    network, _ = trained
    assert repr(network) == "Network(model='softmax', data='mnist', epochs='2 of 2')"
    network.summary()
    shown = capsys.readouterr().out
    assert "logits (Dense)  3                    435" in shown
    jaxnets.load(network.save(tmp_path / "run")).summary()
    assert capsys.readouterr().out == shown


def test_an_untrained_network_is_trained_by_train_py(make, run_main, trained, tmp_path):
    folder = make().save(tmp_path / "run")
    assert run_main("--resume", f"--workdir={folder}").status == 0
    assert params_sha256(folder) == sha256(trained[0])


def test_the_handwritten_network_has_the_size_that_the_slide_chose(tiny):
    network = Network("mlp_handwritten", tiny, epochs=1, devices=1)
    assert network.config.hidden == (200,)
    assert jax.tree.leaves(network.state.params)


@pytest.mark.slow
def test_a_small_folder_changes_the_recipe_as_in_train_py(tmp_path, run_main):
    rng = np.random.default_rng(0)
    for kind in ("dark", "light"):
        (tmp_path / "set" / kind).mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(0, 128, (16, 16, 3), np.uint8) + 127 * (kind == "light")
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "set" / kind / f"{number}.png")
    flags: dict[str, Any] = dict(epochs=2, devices=1)
    network = Network("softmax", str(tmp_path / "set"), **flags)
    where = tmp_path / "run"
    words = [f"--{name}={value}" for name, value in flags.items()]
    run_main("--model=softmax", f"--dataset={tmp_path / 'set'}", f"--workdir={where}", *words)
    network.fit(verbose=0)
    saved = network.save(tmp_path / "saved")
    assert params_sha256(saved) == params_sha256(where)
    assert read_json(saved / "config.json") | {"workdir": str(where)} == read_json(
        where / "config.json"
    )
    assert network.config.optimizer == "adam"
