"""What a user meets in Python: names, hints, and what objects show of themselves."""

import ast
import copy
import dataclasses
import inspect
import re
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

import jaxnets
from jaxnets.experiment import Experiment
from jaxnets.metrics import Metrics
from jaxnets.training.history import History


def test_tab_shows_the_public_names_each_of_which_is_there():
    assert dir(jaxnets) == sorted(["__version__", "Classifier", "Regressor", *jaxnets.__all__])
    for name in jaxnets.__all__:
        assert getattr(jaxnets, name) is not None
    with pytest.raises(AttributeError, match='^jaxnets has no "Experimen"; did you mean Exp'):
        getattr(jaxnets, "Experimen")  # noqa: B009 (pyright finds the name wrong)


def test_the_docstring_of_every_public_function_names_its_arguments():
    functions = {}
    for name in jaxnets.__all__:
        found = getattr(jaxnets, name)
        members = vars(found).items() if inspect.isclass(found) else [("", found)]
        for member, value in members:
            function = getattr(value, "__func__", value)
            if not member.startswith("_") and inspect.isfunction(function):
                functions[f"{name}.{member}".rstrip(".")] = function
    assert len(functions) > 30
    for name, function in functions.items():
        text = inspect.getdoc(function) or ""
        assert text, name
        for argument in inspect.signature(function).parameters.values():
            if argument.name in ("self", "cls") or "Never" in str(argument.annotation):
                continue
            assert re.search(rf"\n  (\*+)?{argument.name}: ", text), (name, argument)


@pytest.mark.slow
def test_importing_it_imports_no_library_and_a_network_not_the_reports():
    code = "import sys, jaxnets; dir(jaxnets); print('jax' in sys.modules, 'numpy' in sys.modules)"
    code += "; jaxnets.Network; print('scipy.stats' in sys.modules)"
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout == "False False\nFalse\n"


def test_no_message_of_python_names_a_flag():
    """But those of files that only commands use, or that name another tool's flags."""
    rooms = (
        "config",
        "data",
        "models",
        "training",
        "parts.py",
        "experiment.py",
        "losses.py",
        "notebook",
    )
    rooms += ("notebook", "predict/predict.py", "predict/digit.py")
    others = {"file.py", "tfds.py", "unknown.py"}
    for room in rooms:
        path = ROOT / "jaxnets" / room
        for file in path.rglob("*.py") if path.is_dir() else [path]:
            tree = ast.parse(file.read_text())
            texts = [node for node in ast.walk(tree) if isinstance(node, ast.Constant)]
            docs = {ast.get_docstring(node, clean=False) for node in ast.walk(tree)
                    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)}  # fmt: skip
            for text in texts:
                if isinstance(text.value, str) and text.value not in docs:
                    found = re.search("--[a-z_]+", text.value)
                    assert not found or file.name in others, (file, text.value)


def test_several_numbers_may_be_a_list_one_may_be_alone():
    assert jaxnets.preset("mlp", hidden=[128, 64]) == jaxnets.preset("mlp", hidden=(128, 64))
    assert jaxnets.preset("mlp", hidden=128).hidden == (128,)


@pytest.fixture(scope="module")
def experiment(tiny, tiny_preset):
    return Experiment.create(tiny_preset("softmax"), tiny)


@pytest.fixture(scope="module")
def trained(experiment):
    return experiment.train()


def test_a_state_is_evaluated_as_its_parameters(experiment, trained):
    state, _ = trained
    expected = experiment.evaluate(state.params, experiment.data.test)
    for metrics in (experiment.evaluate(state), experiment.evaluate(state.params)):
        np.testing.assert_array_equal(metrics.confusion, expected.confusion)


def test_the_history_has_records_and_columns_by_keras_names(trained):
    history = trained[1]
    assert [record["epoch"] for record in history] == history["epoch"] == [1, 2]
    assert history["loss"] == history["train_loss"] == [r["train_loss"] for r in history]
    assert history["val_accuracy"] == history["validation_accuracy"]
    assert list(history.history) == ["loss", "accuracy", "val_loss", "val_accuracy"]
    assert history.history["val_loss"] == [r["validation_loss"] for r in history]
    assert history.epoch == [0, 1] and isinstance(history[:1], History)
    with pytest.raises(KeyError, match="acc .known: loss, accuracy, val_loss"):
        history["acc"]


def test_a_history_without_validation_images_has_no_column_of_them(trained):
    none = dict.fromkeys(("validation_loss", "validation_accuracy"))
    history = History({**record, **none} for record in trained[1])
    assert list(history.history) == ["loss", "accuracy"]
    assert repr(history).count("=") == 3
    assert (History().history, repr(History())) == ({}, "History(epochs=0)")


def test_objects_show_their_fields_in_a_line(experiment, trained):
    state, history = trained
    test = experiment.evaluate(state)
    shown = [
        (
            experiment.data,
            "Dataset(name='tiny', image='12 x 12 x 1', classes=3, train=160, validation=40, "
            "test=50)",
        ),
        (experiment.data.test, "Split(images=50, image='12 x 12 x 1')"),
        (state, "TrainState(step=10, parameters=435)"),
        (test, f"Metrics(loss={test.loss:.4g}, accuracy={test.accuracy:.4g}, examples=50)"),
        (experiment.model, "Chain(layers=['flatten', 'logits'])"),
        (
            experiment,
            "Experiment(model='softmax', epochs=2, batch_size=32, optimizer='sgd', "
            "learning_rate=0.5, loss='cross_entropy', gradients='auto', data='tiny', devices=1)",
        ),
    ]
    for thing, text in shown:
        assert repr(thing) == text
    assert repr(history).startswith("History(epochs=2, loss=")


def drawn(figure):
    """A figure's SVG, parsed as XML."""
    root = ElementTree.fromstring(figure.standalone())
    return root, [text.text or "" for text in root.iter("{http://www.w3.org/2000/svg}text")]


def test_a_history_is_drawn_as_curves(trained):
    history = History({**trained[1][0], "epoch": e, "train_loss": 2.0 / e} for e in (1, 2, 4))
    root, texts = drawn(jaxnets.plot(history))
    lines = [line.get("points", "") for line in root.iter("{http://www.w3.org/2000/svg}polyline")]
    assert len(lines) == 4 and {"loss", "accuracy", "train", "validation", "4"} <= set(texts)
    assert "after epoch 4" in texts and "validation 0." in str(root[1].text)
    points = np.array([pair.split(",") for pair in lines[0].split()], float)
    (x, y), (x2, y2), (x4, y4) = points  # To the right by epochs, down by losses: a straight axis.
    assert (x2 - x) * 2 == pytest.approx(x4 - x2, abs=0.3) and y < y2 < y4
    assert (y2 - y) == pytest.approx(2 * (y4 - y2), abs=0.3)

    none = dict.fromkeys(("validation_loss", "validation_accuracy"))
    root, texts = drawn(jaxnets.plot(History({**record, **none} for record in history)))
    assert "validation" not in texts and str(ElementTree.tostring(root)).count("polyline") == 2


def test_curves_of_equal_or_infinite_losses_are_finite(trained):
    values = (0.5, 0.5, float("inf"), float("nan"))
    history = History({**trained[1][0], "epoch": e, "train_loss": x} for e, x in enumerate(values))
    root, _ = drawn(jaxnets.plot(history))
    for line in root.iter("{http://www.w3.org/2000/svg}polyline"):
        points = re.split("[ ,]", line.get("points", "nan"))
        assert np.isfinite(np.array(points, float)).all()


def test_metrics_are_drawn_as_their_confusion_matrix(experiment, trained):
    test = experiment.evaluate(trained[0])
    _, texts = drawn(jaxnets.plot(test))
    counts = [str(number) for number in np.asarray(test.confusion).ravel() if number]
    assert sorted(texts) == sorted([*counts, *"001122", "label", "prediction", "confusion matrix"])
    many = dataclasses.replace(test, confusion=np.eye(100, dtype=int))
    assert len(jaxnets.plot(many).standalone()) < 50_000


def test_plot_writes_what_a_notebook_shows(trained, tmp_path):
    figure = jaxnets.plot(trained[1])
    figure.save(tmp_path / "curves.svg")
    assert (tmp_path / "curves.svg").read_text() == figure._repr_svg_()
    assert repr(figure).startswith("Figure('history', 760 x ")


@pytest.mark.oracle
def test_a_figure_is_drawn_as_png(trained, tmp_path):
    pytest.importorskip("resvg_py", reason="it draws; not installed")
    jaxnets.plot(trained[1]).save(tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.format == "PNG" and picture.width > 1000


def test_a_config_shows_what_makes_it_again(experiment):
    config = experiment.config
    assert eval(repr(config), {"Config": jaxnets.Config}) == config
    assert len(repr(jaxnets.preset("cnn", epochs=1))) < 250


def test_what_holds_no_numbers_is_named_alone():
    none = Metrics.zero(3)  # Its mean loss is 0 / 0.
    assert repr(none).startswith("<jaxnets.metrics.Metrics object")


@pytest.fixture(scope="module")
def net(tiny_preset):
    return jaxnets.Network(tiny_preset("softmax"))


# What a reviewer typed, after Keras's habits, and works; what does not is in test_refusals.py.
GUESSES = [
    "dir(jaxnets)", "jaxnets.load(folder)", "jaxnets.load_predictor(folder)",
    'preset("mlp", hidden=[128, 64])', "experiment.evaluate(state)", 'history["loss"]',
    'history.history["val_accuracy"]', "predictor(path)", "predictor(picture)", "predictor(array)",
    "repr(net.data)", "net.fit(epochs=1, verbose=0)", "net.score(x, y)", "net.predict_proba(x)",
    "net.classes_, net.class_names", "copy.deepcopy(net)",
    "net.evaluate()", "net.predict(path)", "net.summary()", "net(x.reshape(-1, 12, 12))",
    'net.gradients(x, y)["logits"]["kernel"]',
]  # fmt: skip


@pytest.mark.slow
def test_a_guess_works(experiment, trained, net, tmp_path):
    folder, path, array = tmp_path / "run", tmp_path / "a.png", np.zeros((20, 20), np.uint8)
    net.fit(verbose=0)
    net.save(folder)
    Image.fromarray(array).save(path)
    names = dict(jaxnets=jaxnets, preset=jaxnets.preset, experiment=experiment, net=net)
    names |= dict(x=np.zeros((4, 144), np.uint8), y=[0, 1, 2, 0], copy=copy)
    names |= dict(state=trained[0], history=trained[1], folder=folder, path=path, array=array)
    names |= dict(picture=Image.fromarray(array), predictor=net.predictor)
    for guess in GUESSES:
        eval(guess, names)
