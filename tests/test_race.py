"""The race of settings: its e-value beside SciPy's integrals, its errors in simulation, its use."""

import json
import math
import shutil
from typing import Any

import numpy as np
import pytest
from conftest import read_json
from scipy import integrate, stats

from benchmarks.race import by_e_value, by_optuna, by_t_test, draw, errors, not_normal
from jaxnets.tune import cells, search
from jaxnets.tune.race import PRIOR, SIGNIFICANCE, drops, first_look, log_e, threshold
from jaxnets.tune.train_many import DIVERGED, TrainingSummary

RNG = np.random.default_rng


def e_of_t(n, t):
    """The e-value of n differences whose t-statistic is t."""
    shape = np.arange(n) - (n - 1) / 2
    return float(np.exp(log_e(shape / shape.std(ddof=1) + t / math.sqrt(n)))[-1])


@pytest.mark.parametrize(("n", "t"), [(2, 1.0), (3, -2.5), (5, 0.0), (8, 4.0), (20, -3.0)])
def test_the_e_value_is_the_mean_likelihood_ratio_of_t(n, t):
    def integrand(effect):
        density = stats.nct.pdf(t, n - 1, effect * math.sqrt(n))
        return density * stats.norm.pdf(effect, scale=PRIOR)

    mixed, _ = integrate.quad(integrand, -8 * PRIOR, 8 * PRIOR, epsrel=1e-9, limit=200)
    assert e_of_t(n, t) == pytest.approx(mixed / stats.t.pdf(t, n - 1), rel=1e-6)


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_the_mean_e_value_of_equal_settings_is_one(n):
    def integrand(t):
        return e_of_t(n, t) * stats.t.pdf(t, n - 1)

    mean, _ = integrate.quad(integrand, 0, np.inf, epsrel=1e-6, limit=200)
    assert 2 * mean == pytest.approx(1, rel=1e-4)


def test_stopping_when_one_likes_raises_no_false_alarms():
    e = np.exp(log_e(RNG(0).normal(0, 7, (200, 4000))))
    for x in (5, 20):
        share = (e >= x).any(axis=0).mean()
        assert 0.4 / x < share <= 1 / x
    stops = np.where((e[:4] >= 2).any(axis=0), (e[:4] >= 2).argmax(axis=0), 3)
    stopped = np.take_along_axis(e, stops[None], axis=0)  # Bounded: its mean is known well.
    assert stopped.mean() == pytest.approx(1, abs=4 * stopped.std() / math.sqrt(4000))
    # As the units of the differences: neither their size nor the settings' order plays a role.
    differences = RNG(1).normal(1, 1, (20, 5))
    np.testing.assert_allclose(log_e(-1e-3 * differences), log_e(differences), rtol=1e-12)


def test_a_race_of_two_equal_settings_rarely_has_a_winner():
    scores = RNG(0).normal(size=(100, 2, 20_000))
    evidence = log_e(scores[:, 0] - scores[:, 1]).max(axis=0)
    won = evidence >= math.log(threshold(2))
    found = [len(drops(scores[:, :, race])) for race in range(50)]
    assert found == won[:50].tolist()
    assert 0.02 < won.mean() <= SIGNIFICANCE


def test_a_race_rarely_leaves_one_of_two_equal_settings():
    scores = RNG(0).normal(size=(200, 60, 3)) - [0, 0, 3]
    assert np.mean([len(drops(one)) == 2 for one in scores]) <= SIGNIFICANCE


@pytest.mark.parametrize(("gap", "most"), [(0, 1), (1, 0.95), (2, 0.65), (3, 0.45)])
def test_a_race_keeps_the_best_and_saves_runs(gap, most):
    rng = RNG(gap)
    races = [draw(gap, rng) for _ in range(300)]
    wrong, used = errors(by_e_value, races)
    assert wrong <= SIGNIFICANCE and used <= most
    if gap == 0:
        assert errors(by_t_test, races)[0] > 0.3


def test_results_that_are_not_normal_may_be_raced():
    rng = RNG(2)
    drawn = [not_normal(rng) for _ in range(200)]
    for kind in drawn[0]:
        wrong, _ = errors(by_e_value, [kinds[kind] for kinds in drawn])
        # But not where a good setting fails now and then: few seeds cannot know it.
        assert (wrong > 0.4) if "% of their runs diverge" in kind else (wrong <= SIGNIFICANCE)


@pytest.mark.oracle
@pytest.mark.slow
def test_optunas_pruner_drops_the_best_more_often():
    pytest.importorskip("optuna", reason="the pruner beside ours, not installed")
    rng = RNG(0)
    races = [draw(0.3, rng) for _ in range(60)]
    assert errors(by_optuna, races)[0] > 2 * SIGNIFICANCE
    assert errors(by_e_value, races)[0] <= SIGNIFICANCE


NAN = math.nan
GOOD = [0.90, 0.92, 0.91, 0.90, 0.92, 0.91]


@pytest.mark.parametrize(
    ("rivals", "dropped"),
    [
        ([GOOD], {}),  # All are ties.
        ([[0.5] * 6], {1: 4}),  # As soon as two settings allow.
        ([[x - 0.1 for x in GOOD]], {1: 4}),  # The same difference each time.
        ([[0.0] * 6, [0.0] * 6], {1: 4, 2: 4}),  # Both have diverged.
        ([[0.5, 0.5, 0.5, NAN, NAN, NAN]], {}),
        ([[0.5, 0.5, 0.5, 0.5, NAN, NAN]], {1: 4}),
        ([[0.5, NAN, 0.5, 0.5, 0.5, 0.5]], {}),  # As far as all results are there.
        ([[0.5] * 6, [*GOOD[:3], NAN, NAN, NAN]], {}),
        ([[0.5] * 6] * 7, dict.fromkeys(range(1, 8), 5)),  # More rivals: more is asked for.
    ],
)
def test_a_race_of_odd_results(rivals, dropped):
    found = drops(np.array([GOOD, *rivals]).T)
    assert {setting: drop.seeds for setting, drop in found.items()} == dropped
    assert all(drop.by == 0 and drop.e >= threshold(1 + len(rivals)) for drop in found.values())


def test_one_always_remains_and_fell_by_the_rule():
    for seed in range(15):
        scores = RNG(seed).normal(RNG(seed).normal(0, 1, 5), 1, (15, 5)).round(1)
        found, racing = drops(scores), set(range(5))
        assert len(found) < 5
        for n in range(first_look(5), 16):
            for setting, drop in found.items():
                lead = scores[:n, drop.by] - scores[:n, setting]
                if drop.seeds == n:
                    assert {setting, drop.by} <= racing and lead.sum() > 0
                    assert drop.e == pytest.approx(e_of(lead)) and drop.e >= threshold(5)
            racing -= {setting for setting, drop in found.items() if drop.seeds == n}
            for one in racing:
                for other in racing:
                    lead = scores[:n, other] - scores[:n, one]
                    assert not (lead.sum() > 0 and e_of(lead) >= threshold(5))


def e_of(differences):
    """The e-value by Student's t, as in the literature; SciPy's t."""
    n, r = len(differences), 1 + len(differences) * PRIOR**2
    if not differences.std():
        return r ** ((n - 1) / 2) if differences.any() else r**-0.5
    test: Any = stats.ttest_1samp(differences, 0)
    t, v = test.statistic, n - 1
    return r**-0.5 * ((1 + t**2 / v) / (1 + t**2 / (v * r))) ** (n / 2)


def accuracy_of(hidden, seed):
    """Of networks of which 2 is hopeless, 6 diverges, and 8 is a little better than 4."""
    luck, own = (RNG([seed, number]).normal(0, 0.01) for number in (0, hidden))
    return {2: 0.3, 4: 0.812, 6: 0.0, 8: 0.83}[hidden] + (luck + 2 * own) * (hidden != 6)


@pytest.fixture
def trained(monkeypatch):
    """The cells that searches train, in order: their files by (hidden, seed). They take no time."""
    files = {}

    def train_missing(found, seeds):
        for point, seed in found.missing(seeds):
            hidden = point[0][0]
            name = f"{cells.digest(found.cell(point, seed))}.json"
            files[hidden, seed] = found.folder / cells.FOLDER / name
            accuracy = accuracy_of(hidden, seed)
            ended = TrainingSummary(0.1, 0.9, 1 - accuracy, accuracy) if accuracy else DIVERGED
            found.keep([(point, seed)], [ended])

    monkeypatch.setattr(search, "train_missing", train_missing)
    return files


def test_a_race_trains_what_is_left_and_resumes_as_it_was(
    run_command, tiny_flags, tmp_path, trained
):
    command = ["search", "--model=mlp", "--over=hidden=2,8,4,6", "--race", *tiny_flags, "--seed=7"]
    whole = run_command(*command, "--seeds=40")
    assert whole.status == 0, whole
    # Four seeds together, then those that are left; 4 drops out late, and the race is over.
    everything = list(trained)
    assert everything[:16] == [(hidden, seed) for hidden in (2, 8, 4, 6) for seed in range(7, 11)]
    rest = everything[16:]
    last = max(seed for _, seed in rest)
    assert rest == [(hidden, seed) for seed in range(11, last + 1) for hidden in (8, 4)]
    assert 15 < last < 46
    rows = [line.split() for line in whole.out.splitlines()]
    assert [row[0] for row in rows[1:5]] == [f"hidden={hidden}" for hidden in (8, 4, 2, 6)]
    seeds = last - 6
    assert rows[1][-1] == rows[2][-2] == str(seeds) and rows[2][-1] == "hidden=8"
    assert rows[3][-2:] == rows[4][-2:] == ["4", "hidden=8"]
    runs = f"{seeds} seeds and {2 * seeds + 8} runs"
    assert f"hidden=8 has won the race after {runs}." in whole.out
    assert "an e-value of 30 against it; the truly best one is ever dropped" in whole.out
    drawn = (tmp_path / "run" / "search.svg").read_text("utf-8")
    assert ", 4 seeds<" in drawn and f", {seeds} seeds<" in drawn

    files = dict(trained)
    for done in (0, 3, 16, 17, 20, len(everything)):  # Also in the middle of a seed.
        for run in everything[done:]:
            files[run].unlink()
        trained.clear()
        again = run_command(*command, "--seeds=40", "--resume")
        assert (again.out, sorted(trained)) == (whole.out, sorted(everything[done:]))
    run_command(*command, "--cell=1/2").assert_refused("race: expected no --cell")
    run_command(*command[:-1], "--seeds=40", "--resume").assert_refused("'race_from': 7", "got")
    command.remove("--race")
    run_command(*command, "--resume").assert_refused("'race_from': None")


def test_a_race_that_is_not_over_says_who_is_left(run_command, tiny_flags, trained):
    command = ["search", "--model=mlp", "--race", *tiny_flags]
    shown = json.loads(run_command(*command, "--over=hidden=2,8,4", "--seeds=6", "--json").out)
    first, second, third = shown["ranking"]
    assert "2 of 3 are still in the race after 6 seeds and 16 runs:" in shown["verdict"]
    assert shown["race"] == {"alpha": SIGNIFICANCE, "e": 20.0} and not shown["significant"]
    assert first["beaten_by"] is second["beaten_by"] is first["e"] is first["p"] is None
    assert 0 < second["e"] < 20 <= third["e"] and third["seeds"] == 4
    own = [accuracy_of(2, seed) for seed in range(4)]
    assert third["accuracy"] == pytest.approx(np.mean(own))
    run_command(*command, "--over=hidden=2").assert_refused("race: expected two settings or more")


@pytest.mark.slow
def test_a_race_of_real_networks_ends_as_the_whole_search(run_command, tiny_flags, tmp_path):
    command = [
        "search",
        "--model=softmax",
        "--over=learning_rate=1e-5,1e-4,1e-3,0.01,0.03,0.1,0.3,1",
    ]
    command += [*tiny_flags, "--seeds=7", "--json"]
    path = tmp_path / "run" / "search.json"
    assert run_command(*command).status == 0
    runs = read_json(path)["runs"]
    whole = {(run["point"][0], run["seed"]): run["accuracy"] for run in runs}
    shutil.rmtree(path.parent)
    raced = json.loads(run_command(*command, "--race").out)
    found = drops(np.reshape(list(whole.values()), (8, 7)).T)
    assert len(whole) == 56 and 1 <= len(found) < 8
    kept = {(run["point"][0], run["seed"]): run["accuracy"] for run in read_json(path)["runs"]}
    assert kept == pytest.approx({run: whole[run] for run in kept})
    assert len(kept) == sum(rank["seeds"] for rank in raced["ranking"]) < 56
