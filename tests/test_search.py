"""The search over settings and seeds: its results, its statistics, resuming after an interrupt."""

import csv
import json
import signal
import subprocess

import numpy as np
import pytest
from conftest import history, read_json
from scipy import stats

from jaxnets.base.proportions import paired_t_test, rounding_variance
from jaxnets.tune import ranking, search
from jaxnets.tune.train_many import TrainingSummary


def read(tmp_path):
    """The runs that search.json holds: {(point, seed): accuracy}."""
    runs = read_json(tmp_path / "run" / "search.json")["runs"]
    return {(str(run["point"]), run["seed"]): run["accuracy"] for run in runs}


def contents(folder):
    """The files in a folder, however deep."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def a_search(tmp_path, scores, num_images=5000):
    """A search that found these accuracies: {hidden: accuracies by seed}."""
    found = search.Search({"model": "mlp"}, {"hidden": [(size,) for size in scores]}, tmp_path)
    found.num_images = num_images
    for size, accuracies in scores.items():
        for seed, accuracy in enumerate(accuracies):
            found.runs[((size,),), seed] = TrainingSummary(0.1, 0.9, 1 - accuracy, accuracy)
    return found


@pytest.mark.slow
def test_every_combination_and_seed_is_trained_as_train_py_does(
    run_command, run_main, tiny_flags, tmp_path
):
    both = ["--model=mlp", "--loss=cross_entropy", "--parallel=pmap", *tiny_flags]
    over = ["--over=hidden=4,8x4", "--over=learning_rate=0.1,0.5,1"]
    shown = run_command("search", *over, "--seeds=3", *both)
    assert shown.status == 0, shown
    assert len(read(tmp_path)) == 2 * 3 * 3
    assert "hidden=8x4 learning_rate=0.5" in shown.out and "paired t-test over 3 seeds" in shown.out
    rows = list(csv.DictReader((tmp_path / "run" / "search.csv").read_text().splitlines()))
    assert len(rows) == 18 and {row["hidden"] for row in rows} == {"4", "8x4"}
    assert "</svg>" in (tmp_path / "run" / "search.svg").read_text("utf-8")

    one = ["--hidden=8,4", "--learning_rate=0.5", "--seed=1", f"--workdir={tmp_path / 'one'}"]
    assert run_main(*both, *one).status == 0
    expected = history(tmp_path / "one")[-1]["validation_accuracy"]
    assert read(tmp_path)["[[8, 4], 0.5]", 1] == pytest.approx(expected, abs=1e-9)


@pytest.mark.usefixtures("quick_steps")
@pytest.mark.slow
def test_an_interrupted_search_keeps_what_is_done_and_continues(
    run_command, tiny_flags, tmp_path, monkeypatch
):
    command = ["search", "--model=cnn", "--over=dropout=0,0.5", "--seeds=2", *tiny_flags]
    train_many, calls = search.train_many, []

    def interrupted(configs, *arguments):
        calls.append(len(configs))
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return train_many(configs, *arguments)

    monkeypatch.setattr(search, "train_many", interrupted)
    status, _, err = run_command(*command)
    kept = f"kept: {tmp_path / 'run'} (--resume --workdir={tmp_path / 'run'} continues it)"
    assert (status, err) == (130, f"error: interrupted; {kept}\n")
    before = read(tmp_path)
    assert len(before) == 2
    run_command(*command).assert_refused("already holds a search; --resume continues it")
    run_command(*command, "--resume", "--epochs=3").assert_refused("resume: expected", "as ")
    assert run_command(*command, "--resume").status == 0
    assert calls == [1] * 5  # two, the interrupted one, and only what was missing
    assert len(read(tmp_path)) == 4 and before.items() <= read(tmp_path).items()
    assert run_command(*command, "--resume", "--seeds=3").status == 0  # more seeds may follow
    assert len(read(tmp_path)) == 6 and len(calls) == 7


@pytest.mark.slow
def test_a_search_resumed_elsewhere_names_what_differs(run_command, tiny_flags, tmp_path):
    command = ["search", "--model=softmax", "--over=learning_rate=0.1,0.2", *tiny_flags]
    assert run_command(*command, "--seeds=1").status == 0
    path = tmp_path / "run" / "search.json"
    ours = read_json(path)
    others = {"versions": {**ours["versions"], "jax": "0.9"}, "cores": 99}
    path.write_text(json.dumps(ours | others))
    for seeds in (2, 3):  # The results keep what the search began with.
        outcome = run_command(*command, f"--seeds={seeds}", "--resume")
        jax, cores = ours["versions"]["jax"], ours["cores"]
        assert outcome.err == (
            f"warning: the run began under other conditions: cores was 99, now "
            f"{cores}; jax was 0.9, now {jax}; the result may differ in its last bits\n"
        )
        assert outcome.status == 0 and {name: read_json(path)[name] for name in others} == others
    path.write_text(json.dumps(ours))
    assert run_command(*command, "--seeds=3", "--resume").err == ""


BLOCKED = """if True:
    import sys
    from jaxnets.cli import commands
    from jaxnets.base.errors import run_main
    from jaxnets.tune import search

    def block(*_, **__):
        print("training", flush=True)
        sys.stdin.read()

    search.train_many = block
    sys.exit(run_main(commands.main))
"""


@pytest.mark.slow
def test_a_second_process_is_refused_until_the_first_ends(
    run_command, start_python, tiny_flags, tmp_path
):
    flags = ["--model=softmax", "--over=learning_rate=0.1", *tiny_flags]
    assert run_command("search", *flags, "--seeds=1").status == 0
    ways = [["--resume", "--seeds=2"], ["--seeds=2"]]
    with start_python("-c", BLOCKED, "search", *flags, *ways[0], stdin=subprocess.PIPE) as process:
        assert "training\n" in iter(process.stdout.readline, "")
        before = contents(tmp_path / "run")
        for more in ways:
            outcome = run_command("search", *flags, *more)
            outcome.assert_refused("another process is training in", str(tmp_path / "run"))
        assert contents(tmp_path / "run") == before
        process.kill()
        process.communicate()
    assert run_command("search", *flags, *ways[0]).status == 0


@pytest.mark.usefixtures("quick_steps")
@pytest.mark.slow
def test_a_run_that_diverged_has_no_loss_in_json(run_command, tiny_flags, tmp_path):
    flags = ["--model=softmax", "--optimizer=sgd", "--loss=mse", *tiny_flags, "--seeds=2"]
    over = "--over=learning_rate=0.1,9999"
    values = json.loads(run_command("search", over, *flags, "--json").out)
    assert values["seeds"] == 2 and len(values["ranking"]) == 2
    assert "NaN" not in (tmp_path / "run" / "search.json").read_text()


def test_p_is_scipys_paired_test_corrected_as_holm_did():
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(0.9, 0.01, 8), rng.normal(0.89, 0.01, 8)
    half, p = paired_t_test(ours - theirs, FINE, 0.05)
    low, high = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert half == pytest.approx((high - low) / 2, rel=1e-9)
    assert p == pytest.approx(stats.ttest_rel(ours, theirs).pvalue, rel=1e-9)
    # By hand: t = mean / (sd / sqrt(n)), 7 degrees of freedom.
    t = np.mean(ours - theirs) / (np.std(ours - theirs, ddof=1) / np.sqrt(8))
    assert p == pytest.approx(2 * stats.t.sf(abs(t), 7), rel=1e-9)
    # Holm 1979: 0.01 * 4, max(0.04, 0.02 * 3), max(..., 0.03 * 2), 0.5; in the order given.
    assert ranking.holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert ranking.holm([0.9, 0.8]) == [1.0, 1.0]
    assert np.isnan(paired_t_test([0.1], FINE, 0.05)).all()


def test_equal_leads_are_as_certain_as_the_images_are_many():
    """Their variance is 0, so that of rounding takes its place: Sheppard's 1/12 of a step²."""
    p = {count: paired_t_test([0.02] * 2, rounding_variance(count, count), 0.05)[1]
         for count in (50, 200, 6000)}  # fmt: skip
    for count, found in p.items():
        t = 0.02 / np.sqrt(2 / 12 / count**2 / 2)
        assert found == pytest.approx(2 * stats.t.sf(t, 1), rel=1e-9)
    assert p[50] > 0.15 and p[6000] < 0.01
    assert paired_t_test([0.0, 0.0], rounding_variance(50, 50), 0.05)[1] == 1.0
    drawn = np.random.default_rng(0).random((2, 100_000))  # Shares before they are rounded.
    error = np.diff(np.round(drawn * 15) / 15 - drawn, axis=0)
    assert rounding_variance(15, 15) == pytest.approx(error.var(), rel=0.02)


DRAWS = 3000
FINE = 1e-24  # The rounding of numbers that are not counts.


def share_called_significant(images, seeds, accuracy, rival, draws=DRAWS):
    """How often two settings, right on images with these chances, are called different."""
    rng = np.random.default_rng([images, seeds])
    a, b = (rng.binomial(images, p, (draws, seeds)) / images for p in (accuracy, rival))
    rounding = rounding_variance(images, images)
    return np.mean([paired_t_test(one, rounding, 0.05)[1] < 0.05 for one in a - b])


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("images", [15, 50, 200, 6000])
def test_a_false_alarm_is_rare_however_few_the_images_and_seeds(images, seeds):
    """Two settings that are the same: a lead is called significant in a twentieth at most."""
    for accuracy in (0.7, 0.9):
        alarms = share_called_significant(images, seeds, accuracy, accuracy)
        assert alarms <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / DRAWS), accuracy


def test_a_real_lead_is_found():
    for images, seeds, rival in ((200, 5, 0.8), (6000, 2, 0.7), (6000, 3, 0.88), (50, 5, 0.65)):
        assert share_called_significant(images, seeds, 0.9, rival, draws=500) > 0.8, images


def test_a_search_of_few_images_and_two_seeds_is_not_sure(tmp_path):
    scores = {4: [0.90, 0.88], 8: [0.92, 0.90]}
    few, many = (a_search(tmp_path, scores, num_images=count) for count in (50, 6000))
    assert "): not significant (p = 0.18" in ranking.Ranking(few).text()
    assert "): significant (p = 0.0015" in ranking.Ranking(many).text()
    assert [ranking.Ranking(one).values()["significant"] for one in (few, many)] == [False, True]


def test_a_lead_within_luck_is_not_called_equality(tmp_path):
    luck = a_search(tmp_path, {4: [0.80, 0.90, 0.85], 8: [0.82, 0.86, 0.88]})
    text = ranking.Ranking(luck).text()
    parts = [0.02, -0.04, 0.03]
    low, high = stats.ttest_1samp(parts, 0).confidence_interval(0.95)
    interval = f"95 % interval {low:+.4f} to {high:+.4f}"
    assert f"hidden=8 leads hidden=4 by 0.0033 in accuracy ({interval}): not significant" in text
    assert "Not shown to differ from the winner: hidden=4." in text

    clear = a_search(tmp_path, {4: [0.80, 0.81, 0.80], 8: [0.90, 0.92, 0.91], 16: [0.5, 0.6, 0.4]})
    text = ranking.Ranking(clear).text()
    assert "hidden=8 leads hidden=4 by 0.1067 in accuracy (95 % interval +0." in text
    assert "): significant (p = " in text
    assert ranking.Ranking(clear).values()["significant"] is True
    lines = text.splitlines()
    assert lines[1].split() == ["hidden=8", "0.9100", "±", "0.0100", "0.0900"]
    assert lines[2].split()[:4] == ["hidden=4", "0.8033", "±", "0.0058"]

    single = a_search(tmp_path, {4: [0.8], 8: [0.9]})
    assert "one seed cannot tell a lead from luck" in ranking.Ranking(single).text()


def test_the_picture_has_means_and_an_axis_spanning_the_scores(tmp_path):
    drawn = ranking.plot(a_search(tmp_path, {100: [0.96, 0.97], 200: [0.98, 0.99]})).standalone()
    means = drawn.index(">0.9650<"), drawn.index(">0.9850<")
    assert means[0] < means[1]  # The first setting stands above.
    assert drawn.index(">hidden=100<") < drawn.index(">hidden=200<")
    assert drawn.count('stroke="#c2410c"') == 2  # The deviations.
    assert drawn.count("<circle") == 4 + 1 and ">0.96<" in drawn and ">0.9<" not in drawn
