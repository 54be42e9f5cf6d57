"""Training with backward passes of one's own: judged, put in place of ours, never from a folder."""

import json
import re
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import DENSE_BACKWARD, assert_same, params_sha256, read_json, records, slow

import jaxnets
from jaxnets.backprop.rules import rule_of
from jaxnets.base.errors import RunFailedError, UserError
from jaxnets.course.exercises import judge
from jaxnets.course.exercises.catalogue import BUGS, EXERCISES
from jaxnets.course.exercises.mine import own_passes

RELU = """
import jax.numpy as jnp

def relu_backward(cache, dy):
    return jnp.where(cache > 0, dy, 0)
"""
LOSS = """
from jaxnets.losses import probabilities_of

def softmax_cross_entropy_backward(cache, d_losses):
    p, labels = cache
    return (p - probabilities_of(labels, p.shape[-1], p.dtype)) * d_losses[:, None]
"""
pytestmark = pytest.mark.usefixtures("judge_in_float64")
MARK = "\nopen({!r}, 'a').write('ran')\n"


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Writes a file of the student's into the folder where a command then runs."""
    monkeypatch.chdir(tmp_path)

    def write(source, name="mine.py"):
        (tmp_path / name).write_text(source)
        return name

    return write


@pytest.fixture
def train_by(run_command, tiny_flags):
    """Runs `jaxnets exercise train` with files and flags, on the tiny data set."""
    common = ["--model=mlp_functional", *tiny_flags]
    return lambda *words: run_command("exercise", "train", *common, *words)


@pytest.mark.slow
def test_right_passes_train_as_ours_bit_for_bit(mine, train_by, train_tiny, tmp_path):
    """All three places of a rule: with parameters, without, and the loss."""
    files = [mine(DENSE_BACKWARD, "a.py"), mine(RELU + LOSS, "b.py")]
    outcome = train_by(*files)
    names = ["dense_backward", "relu_backward", "softmax_cross_entropy_backward"]
    assert outcome.status == 0
    assert outcome.out.startswith("".join(f"{name}: passed\n" for name in names))
    assert f"gradients manual (yours: {', '.join(names)})" in " ".join(outcome.out.split())
    config = read_json(tmp_path / "run" / "config.json")
    assert (config["gradients"], config["kernels"]) == ("manual", "plain")
    assert list(config["rules"]) == names and config["command"] == "exercise train"
    ours = params_sha256(tmp_path / "run")
    train_tiny("mlp_functional", "--overwrite", "--gradients=manual", "--kernels=plain")
    assert params_sha256(tmp_path / "run") == ours


def test_a_wrong_pass_is_refused_and_leaves_no_folder(mine, train_by, tmp_path):
    outcome = train_by(mine(EXERCISES["bug10"].text()))
    assert (outcome.status, outcome.out) == (1, "bug10: FAILED: dx is wrong\n")
    assert "got wrong ones of bug10; even_if_wrong trains with them" in outcome.err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_pass_that_is_wrong_for_many_rows_is_found(mine, train_by):
    """The judge's own settings have forty at most."""
    wrong = DENSE_BACKWARD.replace("x.T @ dz", "x[:50].T @ dz[:50]")
    assert all(judge.judge_file(mine(wrong)))
    many = train_by("mine.py", "--batch_size=64")
    assert many.status == 1
    assert 'dense_backward: FAILED: on 64 rows, d_params["kernel"]: ' in many.out


@pytest.mark.slow
def test_a_wrong_pass_trains_beside_the_right_into_the_report(
    mine, train_by, train_tiny, run_command, tmp_path
):
    outcome = train_by(mine(EXERCISES["bug10"].text()), "--even_if_wrong")
    assert outcome.status == 0 and "bug10: FAILED: dx is wrong\n" in outcome.out
    folder = tmp_path / "run"
    kept = read_json(folder / "comparison.json")
    found = dict(function="bug10", layer="relu", gradients=["dx"], reason="")
    assert kept["wrong"] == [found] and kept["ended"] is None
    right_records = kept["right"]
    train_tiny("mlp_functional", "--gradients=manual", "--kernels=plain", f"--workdir={tmp_path}/b")
    right = [record["train_loss"] for record in records(tmp_path / "b")]
    assert [record["train_loss"] for record in right_records] == right
    assert right[-1] < records(folder)[-1]["train_loss"]
    for language, said in (("en", "bug10 (relu): dx is wrong"), ("zh", "bug10 (relu)：dx 是错的")):
        run_command("report", folder, f"--output={tmp_path}/r.html", f"--language={language}")
        page = (tmp_path / "r.html").read_text("utf-8")
        figure = page[page.index('id="derivation-loss"') : page.index('id="derivation-accuracy"')]
        assert said in page and figure.count("<polyline") + figure.count("<path") >= 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "end"),
    [
        ("1e30 * (p - y)", r"the loss of step \d+ is (nan|inf)|step \d+ is the first"),
        slow("p - 2 * y", "gradients disagree at step 0"),
    ],
)
def test_the_end_of_a_wrong_training_is_reported(change, end, mine, train_by, tmp_path):
    source = LOSS.replace("    return (p - prob", "    y = prob").replace(
        "dtype)) * d_losses[:, None]", f"dtype)\n    return ({change}) * d_losses[:, None]"
    )
    flags = ["--even_if_wrong", "--report", "--optimizer=sgd", "--learning_rate=1"]
    flags += ["--gradients=both"] if "disagree" in end else []
    outcome = train_by(mine(source), *flags)
    assert outcome.status == 1 and re.search(end, outcome.err)
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert re.search(f"Your training ended: .*({end})", page) and 'id="derivation-loss"' in page


@pytest.mark.usefixtures("checks_every_step")
@pytest.mark.slow
def test_both_compares_a_right_pass_with_autodiff_while_it_trains(mine, train_by):
    outcome = train_by(mine(DENSE_BACKWARD), "--gradients=both")
    assert outcome.status == 0 and re.search(r"grad(ient)? error [\d.]+e-0[678]", outcome.out)


@pytest.mark.slow
def test_a_run_folder_of_a_stranger_runs_no_code(
    mine, train_by, run_main, run_command, interrupt_after, tmp_path, monkeypatch
):
    """It names passes whose file would leave a mark where it runs."""
    folder, mark = tmp_path / "run", tmp_path / "mark"
    name = mine(DENSE_BACKWARD)
    interrupt_after(2)
    interrupted = train_by(name, "--epochs=4")
    assert interrupted.status == 130
    assert f"exercise train {name} --resume --workdir=" in interrupted.err
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(judge, "PRECISIONS", ("float64",))
    mine(DENSE_BACKWARD + MARK.format(str(mark)))
    resume = ["--resume", f"--workdir={folder}"]
    again = ["exercise", "train", *resume]
    run_main(*resume).assert_refused("resume: expected your own dense_backward again: jaxnets ex")
    run_command(*again, name).assert_refused("with which the run began, SHA-256")
    run_command(*again, mine(RELU, "r.py")).assert_refused("with which the run began")
    with pytest.raises(UserError, match=r"dense_backward again: .*load\(DIR, find_rule="):
        jaxnets.load(folder).fit()
    assert not mark.exists()  # Nor where the user names it: its digest is another one.
    assert run_command(*again, mine(DENSE_BACKWARD, "moved.py")).status == 0
    image = np.zeros((1, 12, 12, 1), np.uint8)
    assert jaxnets.load(folder).predict(image).shape == (1, 3)
    assert run_command("report", folder, f"--output={tmp_path}/r.html").status == 0
    assert not mark.exists()


@pytest.mark.slow
def test_a_folder_that_began_without_takes_no_pass(mine, train_tiny, run_command, tmp_path):
    train_tiny("mlp_functional", "--epochs=1")
    resume = ["--resume", f"--workdir={tmp_path}/run", "--epochs=2"]
    refused = run_command("exercise", "train", mine(DENSE_BACKWARD), *resume)
    refused.assert_refused("with which the run began, SHA-256 none")


LAYERS = "flatten, relu, softmax_cross_entropy"


@pytest.mark.parametrize(
    ("source", "flags", "message"),
    [
        (
            DENSE_BACKWARD,
            ["--gradients=auto"],
            "gradients: expected manual or both with your own passes, got auto",
        ),
        (DENSE_BACKWARD, ["--kernels=fast"], "kernels: expected plain with your own passes, got f"),
        (None, ["--epochs=1"], "expected FILE with backward passes of yours"),
        (None, ["no.py"], "no.py: expected a file of yours: No such file"),
        ("x = 1", [], "mine.py: expected a function of an exercise"),
        ("def f(:", [], "mine.py: line 1: "),
        (DENSE_BACKWARD + BUGS["bug1"].code, [], "one pass of dense, got dense_backward and bug1"),
        (
            "def conv_backward(cache, dz, **sliding): return 1",
            [],
            f"a backward pass of conv, and mlp_functional has none (it has dense, {LAYERS})",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(source, flags, message, mine, train_by):
    given = [] if source is None else [mine(source)]
    train_by(*given, *flags).assert_refused(message)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            "    return {'kernel': x.T @ dz, 'bias': dz.sum(0)}, dz @ w",
            "mine.py: line 4: dz is (32, 3), w is (64, 3)",
        ),
        slow(
            "    return {'kernel': dz.T @ x, 'bias': dz.sum(0)}, dz @ w.T",
            'd_params["kernel"]: expected the shape (64, 3), got (3, 64)',
        ),
        slow("    return dz", "expected (d_params, dx)"),
        (
            "    import numpy\n    return numpy.asarray(dz)",
            "line 5: dz is (32, 3): NumPy needs numbers",
        ),
        (
            "    if dz.sum() > 0:\n        return 1\n    return 2",
            "line 4: if and while need a number",
        ),
        slow("    return {'kernel': float(w[0, 0])}, x", "line 4: this needs a number"),
    ],
)
def test_a_pass_that_cannot_be_traced_is_one_line(lines, message, mine, train_by, tmp_path):
    source = "def dense_backward(cache, dz):\n    x, params = cache\n    w = params['kernel']\n"
    outcome = train_by(mine(source + lines), "--even_if_wrong")
    assert outcome.status == 2 and message in outcome.err and outcome.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_functions_of_a_notebook_train_a_network(tiny, tmp_path):
    def dense_backward(cache, dz):
        x, params = cache
        d_params = {"kernel": x.T @ dz, "bias": dz.sum(axis=0)}
        return {name: d_params[name] for name in params}, dz @ params["kernel"].T

    def relu_backward(cache, dy):
        return jnp.maximum(dy, 0)

    quick: dict[str, Any] = dict(batch_size=32, epochs=2, devices=1)
    ours = jaxnets.Network("mlp", tiny, gradients="manual", kernels="plain", **quick)
    own = jaxnets.Network("mlp", tiny, find_rule=own_passes(dense_backward), **quick)
    assert (own.config.gradients, own.config.kernels) == ("manual", "plain")
    for network in (ours, own):
        network.fit(epochs=1, verbose=0)
    assert_same(own.state.params, ours.state.params)
    folder = own.save(tmp_path / "run")
    loaded = jaxnets.load(folder, data=tiny, find_rule=own_passes(dense_backward))
    for network in (loaded, own):
        network.fit(epochs=1, verbose=0)
    assert_same(loaded.state.params, own.state.params)
    with pytest.raises(UserError, match="passes with which the run began"):
        jaxnets.load(folder, data=tiny, find_rule=own_passes(relu_backward)).fit()
    with pytest.raises(RunFailedError, match="wrong ones of relu_backward"):
        jaxnets.Network("mlp", tiny, find_rule=own_passes(relu_backward), **quick)
    wrong_pass = own_passes(relu_backward, even_if_wrong=True)
    wrong = jaxnets.Network("mlp", tiny, find_rule=wrong_pass, **quick)
    assert np.isfinite(wrong.fit(verbose=0)["loss"]).all()


@pytest.mark.slow
def test_a_bug_whose_cache_is_another_trains_when_repaired(mine, tiny):
    """The forward pass of bug11 keeps y in place of x."""
    text = EXERCISES["bug11"].text()
    quick: dict[str, Any] = dict(batch_size=32, epochs=1, devices=1)
    quick |= dict(gradients="manual", kernels="plain")
    config = jaxnets.preset("mlp", **quick)
    wrong = own_passes(mine(text), even_if_wrong=True)
    wrong.judge(jaxnets.Experiment.create(config, tiny, None, wrong))
    assert [one.function for one in wrong.wrong] == ["bug11"]
    repaired = own_passes(mine(text.replace("y >= 0", "y > 0")))
    experiments = [
        jaxnets.Experiment.create(config, tiny, None, find_rule)
        for find_rule in (rule_of, repaired)
    ]
    repaired.judge(experiments[1])
    states = [experiment.train()[0] for experiment in experiments]
    assert_same(states[1].params, states[0].params)


MARKUP = "<script>alert(1)</script>"
FINDING = dict(function=MARKUP, layer="{0.x} {:99}", gradients=[MARKUP], reason=MARKUP)


@pytest.mark.parametrize(
    "comparison",
    [
        {"wrong": [FINDING, FINDING | {"gradients": []}], "right": [], "ended": MARKUP},
        {"wrong": [{MARKUP: 1}], "right": [], "ended": None},
        {"wrong": [FINDING | {"gradients": 1}], "right": [], "ended": None},
        {"wrong": [], "right": [1, {"epoch": 1}], "ended": None},
        {"wrong": MARKUP, "right": {MARKUP: 1}, "ended": [MARKUP]},
        {MARKUP: MARKUP},
    ],
)
def test_a_report_survives_any_comparison(comparison, run_command, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "metrics.jsonl").write_text("")
    (folder / "comparison.json").write_text(json.dumps(comparison))
    outcome = run_command("report", folder, f"--output={tmp_path}/r.html")
    assert outcome.status == 0 and MARKUP not in (tmp_path / "r.html").read_text("utf-8")
