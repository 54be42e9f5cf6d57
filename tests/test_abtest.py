"""The A/B test: its formulas beside SciPy, ville and enumeration, its false alarms, its words."""

import contextlib
import csv
import json
import math
import re
import shutil
import sqlite3
import sys
from typing import Any

import numpy as np
import pytest
from conftest import as_flags, read_json, write_idx_folder
from PIL import Image
from scipy import integrate, optimize, stats

import train
from benchmarks.abtest import draw, missing, returning, stops, z_alarms
from benchmarks.abtest import sequential as run_sequential
from jaxnets.abtest import classical, log, presentation, sequential
from jaxnets.abtest.log import UserAnswer, Users
from jaxnets.abtest.pairs import Pairs, PairsResult
from jaxnets.abtest.trial import Plan, compare_arms
from jaxnets.base.errors import UserError
from jaxnets.base.proportions import mcnemar, rounding_variance, two_sided_z, wilson
from jaxnets.drawing.charts import WIDTH
from jaxnets.server import feedback
from jaxnets.server.feedback import FeedbackLog, FeedbackRow

RNG = np.random.default_rng


def users_of(right, in_b, times=1):
    """Users who saw one model each, and gave some equal answers."""
    rows = zip(range(len(right)), in_b, right, strict=True)
    return Users.of(
        UserAnswer("AB"[int(b)], bool(r), str(user), "")
        for user, b, r in rows
        for _ in range(times)
    )


def text_of(found):
    return presentation.TrialResult(found, "log").text()


def split_by(share_b):
    return Plan(split=f"{1 - share_b:g}/{share_b:g}")


def trial_of(a, b, users, seed=0, plan=None, share_b=0.5):
    right, in_b = draw(a, b, 1, users, seed, share_b)
    return compare_arms(users_of(right[0], in_b[0]), plan or split_by(share_b))


# The sequential test.


@pytest.mark.parametrize("t", [1, 30, 500, 20_000])
def test_the_mixture_is_one_in_alpha_at_the_intervals_edge(t):
    """∫ exp(λ S - λ² t / 2) dN(λ; 0, ρ²) = 1 / α for S = t times the half width."""
    alpha, rho2 = 0.05, sequential.mixture(0.05)
    total = t * float(sequential.half_width(t, alpha, rho2))
    middle = total / (t + 1 / rho2)  # Of the integrand, around which it is narrow.
    spread = 1 / math.sqrt(t + 1 / rho2)

    def integrand(x):
        return math.exp(x * total - x**2 * t / 2) * stats.norm.pdf(x, scale=math.sqrt(rho2))

    ends = middle - 12 * spread, middle + 12 * spread
    mixed, _ = integrate.quad(integrand, *ends, epsabs=0, epsrel=1e-11)
    assert mixed == pytest.approx(1 / alpha, rel=1e-9)


@pytest.mark.parametrize(("alpha", "planned"), [(0.05, 500), (0.01, 500), (0.2, 30)])
def test_the_mixture_is_narrowest_where_planned(alpha, planned):
    def width(log_rho2):
        return float(sequential.half_width(planned, alpha, math.exp(log_rho2)))

    found = optimize.minimize_scalar(width, bounds=(-15, 5), method="bounded")
    rho2 = sequential.mixture(alpha, planned)
    assert math.exp(found.x) == pytest.approx(rho2, rel=1e-4)
    assert width(math.log(rho2)) <= found.fun * (1 + 1e-12)


@pytest.mark.oracle
@pytest.mark.parametrize("share_b", [0.5, 0.3])
def test_it_has_the_numbers_of_ville(share_b, monkeypatch):
    ville = pytest.importorskip("ville", reason="the oracle here, not installed")
    (right,), (in_b,) = draw(0.8, 0.9, 1, 5000, 0, share_b)
    theirs = ville.AsymptoticABTest(alpha=0.05, propensity=share_b, t_opt=500, min_samples=100)
    theirs.fit(right.astype(float), in_b.astype(float))
    their_rho2 = 1 / theirs._cs.rho_  # They find it numerically.
    assert sequential.mixture(0.05) == pytest.approx(their_rho2, rel=1e-5)
    monkeypatch.setattr(sequential, "mixture", lambda alpha, planned: their_rho2)
    ours = sequential.confidence_sequence(sequential.effects(right, in_b, share_b))
    assert np.abs(ours.estimate - theirs.estimate_).max() <= 1e-9
    for end, their_end in ((ours.low, theirs.lower_), (ours.high, theirs.upper_)):
        assert np.isinf(end[:99]).all()
        assert np.abs(end[99:] - their_end[99:]).max() <= 1e-9
    assert ours.decided.argmax() + 1 == theirs.stopping_time()


def test_p_says_at_which_alpha_it_would_be_decided():
    right, in_b = draw(0.8, 0.9, 20, 1500, 3)
    values = sequential.effects(right, in_b)
    found = sequential.confidence_sequence(values)
    np.testing.assert_array_equal(found.decided, found.p < 0.05)
    assert 0.2 < found.decided[:, -1].mean() < 1
    assert (np.diff(found.p) <= 0).all() and (found.p > 0).all()


def test_equal_values_are_no_certainty():
    for values in (np.full(500, 0.3), np.zeros(500)):
        found = sequential.confidence_sequence(values)
        assert np.isinf(found.low).all() and (found.p == 1).all()


def test_many_looks_mislead_the_z_test_alone():
    right, in_b = draw(0.8, 0.8, 500, 1000, seed=0)
    z = z_alarms(right, in_b)
    assert z[:, 99:].any(axis=1).mean() > 0.25
    assert 0.03 < z[:, -1].mean() < 0.07
    assert run_sequential(right, in_b).decided[:, -1].mean() <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize(("accuracy", "least"), [(0.5, 0.37), (0.9, 0.33), (0.95, 0.3)])
def test_two_thousand_experiments_of_two_thousand_users(accuracy, least):
    right, in_b = draw(accuracy, accuracy, 2000, 2000, seed=0)
    assert run_sequential(right, in_b).decided[:, -1].mean() <= 0.05
    assert least < z_alarms(right, in_b)[:, 99:].any(axis=1).mean() < 0.42


def test_a_rare_model_raises_no_more_false_alarms():
    right, in_b = draw(0.95, 0.95, 400, 2000, 0, share_b=0.1)
    assert run_sequential(right, in_b, 0.1).decided[:, -1].mean() <= 0.05
    early = sequential.confidence_sequence(sequential.effects(right, in_b, 0.1))
    assert early.decided[:, -1].mean() > 0.12  # Without the rule of ten answers.


def test_a_difference_is_found_and_every_interval_holds_it():
    right, in_b = draw(0.90, 0.95, 400, 2000, seed=1)
    found = run_sequential(right, in_b)
    stop = stops(found.decided)
    assert np.isfinite(stop).mean() > 0.87 and 700 < np.median(stop) < 1000
    misses = (found.low > 0.05) | (found.high < 0.05)
    assert misses.any(axis=1).mean() <= 0.05


def test_users_needed_are_enough():
    right, in_b = draw(0.85, 0.95, 300, 2000, seed=2)
    deviation = float(np.std(sequential.effects(right, in_b)))
    needed = sequential.users_needed(deviation, 0.1, 0.05, 0.8)
    assert 500 < needed < 1500
    assert run_sequential(right, in_b).decided[:, needed - 1].mean() >= 0.8
    assert sequential.users_needed(deviation, 0.1, 0.05, 0.9) > needed
    more = sequential.users_needed(deviation, 0.05, 0.05, 0.8)
    assert more > 4 * needed  # A test of one look takes 4 times as many.


# The tests of one look.


@pytest.mark.parametrize("counts", [(90, 100, 95, 100), (3, 40, 11, 35), (500, 1000, 460, 980)])
def test_the_z_test_is_the_chi2_test_of_the_table(counts):
    right_a, total_a, right_b, total_b = counts
    table = [[right_a, total_a - right_a], [right_b, total_b - right_b]]
    theirs: Any = stats.chi2_contingency(table, correction=False)
    assert classical.z_test(*counts) == pytest.approx(theirs.pvalue, rel=1e-9)


def test_intervals_of_shares_are_those_of_scipy_and_newcombe():
    theirs = stats.binomtest(95, 100).proportion_ci(0.95, method="wilson")
    assert wilson(95, 100, 0.05) == pytest.approx(tuple(theirs), rel=1e-9)
    # Newcombe 1998, table II, (a) and (b), method 10.
    for counts, printed in (
        ((48, 80, 56, 70), (0.0524, 0.3339)),
        ((3, 10, 9, 10), (0.1705, 0.8090)),
    ):
        assert classical.newcombe(*counts, 0.05) == pytest.approx(printed, abs=5e-5)
    # statsmodels 0.15.0: confint_proportions_2indep(95, 100, 90, 100, method="newcomb").
    printed = (-0.026272869479874825, 0.12962420365148347)
    assert classical.newcombe(90, 100, 95, 100, 0.05) == pytest.approx(printed, rel=1e-12)


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.5), (0.9, 0.95), (0.1, 0.6)])
def test_newcombes_interval_covers_as_it_says_over_every_outcome(a, b):
    n_a, n_b = 60, 80
    covered = 0.0
    for x in range(n_a + 1):
        for y in range(n_b + 1):
            low, high = classical.newcombe(x, n_a, y, n_b, 0.05)
            if low <= b - a <= high:
                covered += stats.binom.pmf(x, n_a, a) * stats.binom.pmf(y, n_b, b)
    assert 0.94 < covered < 0.975


@pytest.mark.parametrize(("only_a", "only_b"), [(0.1, 0.1), (0.02, 0.08), (0.05, 0.3)])
def test_the_paired_interval_covers_as_it_says_over_every_outcome(only_a, only_b):
    n, covered = 80, 0.0
    chance = stats.multinomial(n, [only_a, only_b, 1 - only_a - only_b])
    for x in range(n + 1):
        ys = np.arange(n - x + 1)
        chances = chance.pmf(np.stack([np.full_like(ys, x), ys, n - x - ys], axis=1))
        for y in ys[chances > 1e-9]:
            low, high = classical.paired_interval(x, int(y), n, 0.05)
            covered += chances[y] * (low <= only_b - only_a <= high)
    assert 0.94 < covered < 0.985


@pytest.mark.parametrize(("only_a", "only_b"), [(3, 12), (0, 4), (7, 7), (0, 0), (40, 65)])
def test_mcnemar_is_the_sum_over_a_fair_coins_outcomes(only_a, only_b):
    total = only_a + only_b
    chances = [math.comb(total, k) / 2**total for k in range(total + 1)]
    exact = sum(chance for chance in chances if chance <= chances[only_a] * (1 + 1e-12))
    same = sum(c for k, c in enumerate(chances) if k in (only_a, only_b)) / 2
    found = mcnemar(only_a, only_b)
    assert found == pytest.approx((exact, exact - same if total else 1), rel=1e-9)


@pytest.mark.parametrize(("n_a", "n_b"), [(2, 2), (5, 3), (4000, 3000)])
def test_t_tests_are_scipys_however_few_the_users(n_a, n_b):
    a, b = RNG(0).random(n_a) ** 0.1, RNG(1).random(n_b) ** 0.11
    welch: Any = stats.ttest_ind(b, a, equal_var=False)
    pairs: Any = stats.ttest_rel(b, a[:n_b])
    for theirs, ours in (
        (welch, classical.welch(a, b, 0.05)),
        (pairs, classical.paired_means(b - a[:n_b], 1e-24, 0.05)),
    ):
        (low, high), p = ours
        assert p == pytest.approx(theirs.pvalue, rel=1e-9)
        assert (low, high) == pytest.approx(np.clip(theirs.confidence_interval(0.95), -1, 1))


@pytest.mark.parametrize("share", [0.5, 1 / 3])
def test_users_who_are_all_alike_prove_nothing(share):
    values = np.full(7, share)
    assert classical.welch(values, values + 0.5, 0.05) == ((-1, 1), 1)


def test_equal_differences_prove_as_much_as_their_answers_are_many():
    """As in a search: two users may agree by chance, and seven rarely do (a fair coin: 0.016)."""
    rounding = rounding_variance(np.full(7, 3), np.full(7, 3))
    (low, high), p = classical.paired_means(np.full(7, 1 / 3), rounding, 0.05)
    assert p < 0.05 and 0 < low < 1 / 3 < high
    assert classical.paired_means(np.full(2, 1 / 3), rounding, 0.05)[1] > 0.05


@pytest.mark.parametrize(
    ("effect", "share", "alpha", "power", "printed"),
    [(0.05, 0.9, 0.05, 0.8, 434.43202), (0.02, 0.5, 0.01, 0.9, 18589.32239)]
    + [(-0.1, 0.4, 0.05, 0.8, 355.94281)],
)
def test_the_sample_size_is_that_of_statsmodels(effect, share, alpha, power, printed):
    """0.15.0: samplesize_proportions_2indep_onetail(effect, share, power, 1, alpha)."""
    other, mean = share + effect, share + effect / 2
    parts = share * (1 - share) + other * (1 - other), 2 * mean * (1 - mean)
    assert classical.sample_size(effect, alpha, power, *parts) == math.ceil(printed)


def test_so_many_users_and_pictures_have_the_power():
    x = np.arange(436)
    a, b = stats.binom.pmf(x, 435, 0.9), stats.binom.pmf(x, 435, 0.95)
    pooled = (x[:, None] + x[None]) / 870
    with np.errstate(divide="ignore", invalid="ignore"):
        z = (x[None] - x[:, None]) / np.sqrt(2 * 435 * pooled * (1 - pooled))
    found = np.abs(np.nan_to_num(z)) > stats.norm.isf(0.025)
    assert 0.79 < (a[:, None] * b[None] * found).sum() < 0.82

    pairs = Pairs(("a", "b"), "", 85, 5, 10, 0)  # The models disagree on 15 of 100.
    needed = int(pairs.needed(Plan(effect=0.05)) or 0)
    z, z_power = stats.norm.isf(0.025), stats.norm.ppf(0.8)
    parts = z * math.sqrt(0.15) + z_power * math.sqrt(0.15 - 0.05**2)
    assert needed == math.ceil((parts / 0.05) ** 2)
    power = 0.0
    for disagree, chance in enumerate(stats.binom.pmf(np.arange(needed + 1), needed, 0.15)):
        k = np.arange(disagree + 1)
        found = np.abs(2 * k - disagree) > stats.norm.isf(0.025) * math.sqrt(disagree)
        power += chance * stats.binom.pmf(k, disagree, 2 / 3)[found].sum()
    assert 0.79 < power < 0.82


# The log.


def write(path, text):
    path.write_text(text, "utf-8")
    return path


def test_several_answers_of_a_user_are_one_trial(tmp_path):
    path = write(
        tmp_path / "log.csv",
        "time,arm,correct,user,model\n3,B,1,eve,new\n1,a,1,ann,old\n2,A,0,ann,old\n\n"
        "2026-11-26T10:15:00,B,0,bob,new\n1.5,A,1,ann,older\n4,A,,eve,old\n",
    )
    users = Users.of(log.read_csv(path))
    nan = np.nan  # ann, eve, bob: by time.
    np.testing.assert_allclose(users.shares, [[2 / 3, nan], [nan, 1], [nan, 0]])
    np.testing.assert_array_equal(users.judged, [[3, 0], [0, 1], [0, 1]])
    np.testing.assert_array_equal(users.shown, [[3, 0], [1, 1], [0, 1]])
    assert users.models == {"A": ("old", "older"), "B": ("new",)}


def test_rows_without_a_user_are_users_of_their_own(tmp_path):
    rows = "".join(f"{arm},1,{name}\n" for arm, name in zip("ABBA", ["", " ", 3, ""], strict=True))
    users = Users.of(log.read_csv(write(tmp_path / "log.csv", "arm,correct,user\n" + rows)))
    np.testing.assert_array_equal(users.shown, [[1, 0], [0, 1], [0, 1], [1, 0]])


def test_answers_of_returning_users_are_no_trials():
    rng = RNG(0)
    by_user, by_answer = np.mean([returning(300, rng, looks=5) for _ in range(100)], axis=0)
    assert by_user <= 0.05 < 0.12 < by_answer


def test_twice_the_answers_of_the_same_users_show_no_more():
    right, in_b = draw(0.8, 0.85, 1, 600, 0)
    once, twice = (compare_arms(users_of(right[0], in_b[0], n), Plan()) for n in (1, 2))
    assert (once.p, once.interval) == (twice.p, twice.interval)
    assert (once.answers, twice.answers, twice.count) == (600, 1200, 600)
    assert "The 1,200 answers are not 1,200 trials" in text_of(twice)
    assert "trials" not in text_of(once)


def test_the_servers_log_and_csv_are_read_alike(tmp_path, run_command):
    right, in_b = draw(0.8, 0.9, 1, 300, 5)
    rows = [
        FeedbackRow(
            float(n), f"user {n % 200}", "cnn", "1", "AB"[int(b)], "7", None, bool(r), f"r{n}"
        )
        for n, (r, b) in enumerate(zip(right[0], in_b[0], strict=True))
    ]
    server = FeedbackLog(tmp_path / "log.sqlite")
    server.append(rows)
    with (tmp_path / "log.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["time", "user", "model", "arm", "correct"])
        table.writerows((r.time, r.user, "cnn version 1", r.arm, int(r.correct)) for r in rows)
    found = [
        run_command("abtest", tmp_path / f"log.{kind}", "--json") for kind in ("sqlite", "csv")
    ]
    server.close()  # It was open for writing while it was read.
    assert found[0].status == 0 and found[0] == found[1]
    values = json.loads(found[0].out)
    assert values["models"] == {arm: ["cnn version 1"] for arm in "AB"} and values["answers"] == 300
    text = run_command("abtest", tmp_path / "log.csv").out
    assert values["conclusions"] and values["limits"]
    assert all(sentence in text for sentence in values["conclusions"] + values["limits"])


def test_a_log_of_too_much_is_refused(tmp_path, run_command, monkeypatch):
    path = tmp_path / "log"
    with monkeypatch.context() as patch:
        patch.setattr(log, "MAX_ANSWERS", 3)
        outcome = run_command("abtest", write(path, "arm,correct\n" + 9 * "A,1\n"))
        outcome.assert_refused("at most 3")
    rows = "".join(f"A,1,{name}\n" for name in range(1001))
    outcome = run_command("abtest", write(path, "arm,correct,model\n" + rows))
    outcome.assert_refused("expected at most 1,000 models and versions, found more")


LIMITED = """
import resource, sys
from pathlib import Path
from jaxnets.abtest import log, presentation, trial
from jaxnets.base.errors import run_main

def main(arguments):
    users = log.read_users(arguments[0])
    print(presentation.TrialResult(trial.compare_arms(users, trial.Plan()), "log").text())
    return 0

used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
limit = used + int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sys.exit(run_main(main))
"""


@pytest.fixture
def run_limited(run_python):
    """Tests a log as `jaxnets abtest LOG` does, in a process that may take so many bytes."""

    def run(path, most):
        return run_python("-c", LIMITED, path, most)

    return run


def foreign_log(path, table, rows=1):
    """A database with another table of feedback, and rows in what it has of its columns."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute(table)
        values = {"id": None, "time": 1.0, "user": "ann", "model": "cnn", "version": "1"}
        values |= {"arm": "A", "prediction": "7", "correct": 1, "request": "r", "label": None}
        found = [row[1] for row in database.execute("pragma table_xinfo(feedback)") if not row[6]]
        command = (
            f"insert into feedback ({', '.join(found)}) values ({', '.join('?' * len(found))})"
        )
        for number in range(rows):
            values |= {
                "id": number,
                "user": f"user {number}",
                "request": f"r{number}",
                "arm": "AB"[number % 2],
            }
            database.execute(command, [values.get(name) for name in found])
        database.commit()
    return path


COMPUTED = """
create table feedback (
  id integer primary key, time real, user text, model text, version text, arm text, correct,
  request, prediction, label text generated always as (printf('%.*c', 60000, 'x'))
)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS bounds memory on Linux alone")
def test_a_log_whose_column_is_computed_takes_no_memory(tmp_path, run_limited):
    path = foreign_log(tmp_path / "log", COMPUTED, 2000)
    assert path.stat().st_size < 1 << 20
    outcome = run_limited(path, 64 << 20)  # All rows together: 120 MB.
    assert (outcome.status, outcome.err) == (0, "")


def test_a_table_without_end_is_left(tmp_path, run_command, monkeypatch):
    monkeypatch.setattr(feedback, "MAX_STEPS", 0)
    table = COMPUTED.partition(" text generated")[0] + ")"
    path = foreign_log(tmp_path / "log", table, 4)
    assert run_command("abtest", path).status == 0  # Below a million instructions.
    foreign_log(tmp_path / "long", table, 100_000)
    run_command("abtest", tmp_path / "long").assert_refused("expected a feedback log: interrupted")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS bounds memory on Linux alone")
def test_many_users_take_little_memory_each(tmp_path, run_limited):
    """Text, counts and lists of 300,000 users took 160 MB."""
    rows = (f"{n},user {n:08},{'AB'[n % 2]},{int(n % 7 > 0)}\n" for n in range(300_000))
    path = write(tmp_path / "log.csv", "time,user,arm,correct\n" + "".join(rows))
    outcome = run_limited(path, 100 << 20)
    assert (outcome.status, outcome.err) == (0, "") and "300,000 users" in outcome.out


@pytest.mark.slow
def test_a_log_is_read_without_the_servers_packages(run_python):
    code = """import sys
from jaxnets.abtest import log, presentation, trial
print({"fastapi", "starlette", "pydantic", "uvicorn", "jax"} & set(sys.modules))"""
    assert run_python("-c", code).out == "set()\n"


# What is said.


def test_a_better_model_is_named_with_interval_and_limits():
    found = trial_of(0.8, 0.95, 1000)
    text = text_of(found)
    assert found.winner == "B" and found.interval is not None and found.interval[0] > 0
    low, high = (f"{round(100 * end, 2):g}" for end in found.interval)
    assert f"B is better than A, by {low} to {high} percentage points (95 %, valid at any" in text
    assert f"decided after {found.decided_at} users. You may stop." in text
    assert "too large on average" in text and "before the start, and did not look before" in text
    worse = trial_of(0.95, 0.8, 1000)
    assert worse.winner == "A" and "A is better than B, by" in text_of(worse)


def test_no_difference_of_accuracies_is_beyond_one():
    in_b = np.arange(200) % 2 == 1
    trial = compare_arms(users_of(in_b, in_b), Plan())
    assert trial.interval and trial.interval[0] > 0.9 and trial.interval[1] == trial.once[1] == 1
    assert "to 100 percentage points" in text_of(trial)


def test_what_was_decided_stays_decided():
    seeds = (trial_of(0.9, 0.95, 1000, seed) for seed in range(100))
    found = next(t for t in seeds if t.winner and t.interval and t.interval[0] <= 0)
    at, text = found.decided_at or 0, text_of(found)
    low, high = found.interval_after(at) or (0, 0)
    then = f"by {round(100 * low, 2):g} to {round(100 * high, 2):g} percentage points"
    assert (
        low > 0 and f"B is better than A, as the test decided after {at} users: then {then}" in text
    )
    assert "contains 0 again" in text and found.sequence.p[-1] < 0.05


def test_too_few_users_or_wrong_answers_let_nothing_be_concluded():
    for users, accuracy, why in (
        (60, 0.8, "begins at 100 users, and there are 60"),
        (400, 0.99, "would have 10 right and 10 wrong answers"),
    ):
        found = trial_of(accuracy, accuracy, users)
        low = presentation.TrialResult(found, "log").values()["sequential"]["low"]
        assert (found.interval, found.winner, low) == (None,) * 3
        text = text_of(found)
        assert "Nothing may be concluded yet: the sequential test begins" in text and why in text


def test_no_difference_shown_is_not_called_none():
    found = trial_of(0.9, 0.9, 2000)
    text = text_of(found)
    assert found.winner is None and "No difference is shown yet" in text
    assert (
        f"by {found.needed:,} users in all, {int(found.needed or 0) - 2000:,} more than now" in text
    )
    assert "does not mean that the models are equally good" in text
    low, high = found.interval or (0, 0)
    between = Plan(effect=(abs(low) + abs(high)) / 2)
    assert "shown yet" in text_of(trial_of(0.9, 0.9, 2000, plan=between))
    close = text_of(trial_of(0.9, 0.9, 2000, plan=Plan(effect=0.1)))
    assert "Neither model is better by 10 percentage points or more" in close


def test_a_split_that_is_no_chance_forbids_every_conclusion():
    found = trial_of(0.7, 0.95, 1000, share_b=0.3, plan=Plan())
    text = text_of(found)
    assert found.unbalanced and found.winner is None
    assert "Conclude nothing: " in text and "better" not in text.partition("What you may not")[0]
    planned = trial_of(0.7, 0.95, 1000, share_b=0.3)
    assert not planned.unbalanced
    plan = presentation.TrialResult(planned, "log").values()["plan"]
    assert plan == dict(alpha=0.05, effect=0.02, power=0.8, share_b=0.3)


def test_feedback_that_goes_missing_differently_is_found():
    rng = RNG(0)
    for reported, answers, silence, found_by in (
        (0.4, 1, False, 1),  # By the split of the users who gave feedback,
        (0.4, 1, True, 2),  # by the share of answers with feedback,
        (0.3, 10, False, 2),  # and by the number of feedbacks.
        (0.3, 10, True, 2),
    ):
        shown = np.mean([missing(reported, 3000, rng, answers, silence) for _ in range(30)], axis=0)
        assert shown[found_by] >= 0.9 and shown[3] == 0
        assert shown[0] >= (0.8 if answers > 1 else 0.15)  # Without the checks.


@pytest.mark.parametrize("paired", [False, True])
def test_equal_habits_are_called_different_as_rarely_as_promised(paired):
    """However unequal the users are: some give feedback on every answer, most on none."""
    rng, found = RNG(1), []
    for _ in range(600):
        answers = rng.geometric(0.1, 200)[:, None] * np.ones(2, int)
        told = rng.binomial(answers, rng.beta(0.2, 0.6, (200, 1)))
        if not paired:
            in_b = rng.random(200) < 0.3
            answers, told = (counts * np.stack([~in_b, in_b], 1) for counts in (answers, told))
        plan = split_by(0.5 if paired else 0.3)
        users = Users(answers, told, rng.binomial(told, 0.8), {"A": (), "B": ()})
        found.append(compare_arms(users, plan).feedback_p)
    assert np.mean(np.array(found) < 0.001) < 0.006
    alarms = np.mean(np.array(found) < 0.05)
    assert (0.01 if paired else 0.03) < alarms < 0.07  # The sign test is exact: at most 0.05.


def test_feedback_that_differs_is_said_and_forbids_every_conclusion():
    answers = [UserAnswer("AB"[n % 2], n % 5 > 0, f"{n}", "") for n in range(2000)]
    more = [UserAnswer("B", True, f"{n}", "") for n in range(1, 500, 2)]
    found = compare_arms(Users.of(answers + more), Plan())
    text = text_of(found)
    assert found.lopsided and found.winner is None
    assert "a user gave feedback 1 times on A and 1.25 times on B. Equal habits" in text
    silent = [UserAnswer("A", None, f"{n}", "") for n in range(0, 500, 2)]
    values = presentation.TrialResult(
        compare_arms(Users.of(answers + silent), Plan()), "log"
    ).values()
    (said,) = values["conclusions"]
    assert "users gave feedback on 87.5 % of A's answers and 100 % of B's" in said
    assert values["lopsided"] and values["feedback"] == {"A": 0.875, "B": 1}
    assert values["answers"] == 2000


def test_a_difference_that_turns_round_forbids_every_conclusion():
    first, second = (draw(*pair, 1, 2000, 0) for pair in ((0.6, 0.95), (0.95, 0.6)))
    right, in_b = (np.concatenate([one[0], two[0]]) for one, two in zip(first, second, strict=True))
    found = compare_arms(users_of(right, in_b), Plan())
    assert found.drifts and found.winner is None
    assert "the difference changed while users came" in text_of(found)


def test_users_who_saw_both_models_are_compared_with_themselves():
    rng = RNG(0)
    right = rng.random((400, 2)) < (0.7, 0.8)
    answers = [
        UserAnswer("AB"[arm], bool(right[n, arm]), str(n), "") for n, arm in np.ndindex(400, 2)
    ]
    answers += [UserAnswer("A", True, f"only {n}", "") for n in range(7)]
    found = compare_arms(Users.of(answers), Plan())
    only_a, only_b = (right[:, 0] & ~right[:, 1]).sum(), (~right[:, 0] & right[:, 1]).sum()
    assert found.paired and found.users == (400, 400) and found.left_out == 7
    assert found.test == "McNemar's exact test"
    assert found.p == pytest.approx(stats.binomtest(only_b, only_a + only_b).pvalue)
    np.testing.assert_array_equal(found.values, right[:, 1] * 1.0 - right[:, 0])
    assert "7 users who saw only one model are left out" in text_of(found)


def test_models_that_always_agree_are_not_compared():
    answers = [UserAnswer(arm, n % 3 > 0, str(n), "") for n in range(200) for arm in "AB"]
    found = compare_arms(Users.of(answers), Plan())
    assert found.interval is None and found.needed is None and found.p == 1
    assert "both models were right equally often" in text_of(found)


# The command.


@pytest.fixture
def log_file(tmp_path):
    right, in_b = draw(0.8, 0.95, 1, 900, 0)
    rows = (f"{'AB'[int(b)]},{int(r)}\n" for r, b in zip(right[0], in_b[0], strict=True))
    return write(tmp_path / "log.csv", "arm,correct\n" + "".join(rows))


@pytest.mark.oracle
def test_the_interval_is_drawn_as_svg_or_png(log_file, tmp_path, run_command):
    outcome = run_command("abtest", log_file, f"--output={tmp_path / 'a.svg'}")
    assert (outcome.status, outcome.err) == (0, "") and "B is better than A" in outcome.out
    assert "</svg>" in (tmp_path / "a.svg").read_text()
    pytest.importorskip("resvg_py", reason="it draws PNG files; not installed")
    assert run_command("abtest", log_file, f"--output={tmp_path / 'a.png'}").status == 0
    with Image.open(tmp_path / "a.png") as drawn:
        assert drawn.width == 2 * WIDTH


def test_a_picture_shows_what_the_table_says():
    found = trial_of(0.8, 0.95, 3000)
    drawn = presentation.plot(found)
    low, high = (100 * end for end in found.interval or ())
    assert f"valid at all looks, is {low:.2f} to {high:.2f}" in drawn.alt
    assert f"decided after {found.decided_at:,} users" in drawn.standalone()
    (band,) = re.findall(r'<polygon points="([^"]*)"', drawn.standalone())
    places = np.array([pair.split(",") for pair in band.split()], float)
    curves = re.findall(r'<polyline points="([^"]*)"', drawn.standalone())
    x, estimate, below, above = (
        np.array([pair.split(",") for pair in curve.split()], float)[-1, at]
        for curve, at in zip([curves[0], *curves], (0, 1, 1, 1), strict=True)
    )
    edges = sorted(places[places[:, 0] == x, 1])  # Pixels grow downwards.
    assert edges[0] < above < estimate < below < edges[1]
    pixels_per_point = (below - above) / (200 * two_sided_z(0.05) * standard_error(found.values))
    assert edges[1] - edges[0] == pytest.approx((high - low) * pixels_per_point, rel=0.02)


def standard_error(values):
    return np.std(values, ddof=1) / math.sqrt(len(values))


@pytest.fixture(scope="module")
def runs(tiny_folder, tmp_path_factory):
    """Softmax regression that has learned little, and one that has learned."""
    data = dict(data_dir=tiny_folder, validation_size=40, batch_size=32, devices=1)
    folders = [tmp_path_factory.mktemp("abtest") / name for name in ("little", "more")]
    for folder, rate, epochs in zip(folders, (1e-4, 0.5), (1, 8), strict=True):
        own = dict(model="softmax", learning_rate=rate, epochs=epochs, workdir=folder)
        assert train.main(as_flags(**data, **own)) == 0
    return folders


@pytest.mark.slow
def test_two_runs_are_compared_on_the_same_pictures(runs, tiny, run_command):
    from jaxnets.predict.predict import load_predictor

    outcome = run_command("abtest", *runs, "--json")
    assert (outcome.status, outcome.err) == (0, "")
    values = json.loads(outcome.out)
    for arm, folder in zip("AB", runs, strict=True):
        assert values["accuracy"][arm] == read_json(folder / "result.json")["test_accuracy"]
    images = list(tiny.test.images)
    a, b = (
        load_predictor(str(folder), "picture").probabilities(images).argmax(1) == tiny.test.labels
        for folder in runs
    )
    assert values["pictures"] == 50 and values["both_right"] == (a & b).sum()
    assert values["only_b_right"] == (~a & b).sum() > values["only_a_right"] == (a & ~b).sum()
    theirs = stats.binomtest(values["only_a_right"], int((a != b).sum())).pvalue
    assert values["mcnemar"]["p"] == pytest.approx(theirs) and theirs < 0.05
    text = run_command("abtest", *runs).out
    assert all(sentence in text for sentence in values["conclusions"] + values["limits"])
    assert "B is better than A on pictures like these" in text
    assert re.search(rf"A right +{(a & b).sum()} +{(a & ~b).sum()}\n", text)


def test_a_run_beside_itself_shows_nothing(runs, run_command):
    outcome = run_command("abtest", runs[1], runs[1])
    assert "there is no difference to test" in outcome.out


def test_runs_of_other_pictures_with_equal_labels_are_refused(
    runs, tiny_arrays, tmp_path, run_command
):
    arrays = {**tiny_arrays, "t10k-images": 255 - tiny_arrays["t10k-images"]}
    other = shutil.copytree(runs[1], tmp_path / "run")
    config = read_json(other / "config.json")
    config["data_dir"] = str(write_idx_folder(tmp_path / "data", arrays))
    (other / "config.json").write_text(json.dumps(config))
    run_command("abtest", runs[0], other).assert_refused("test pictures differ")


def test_models_may_be_tested_on_other_pictures(runs, tiny_arrays, tmp_path, run_command):
    for part, name in (("train", "train"), ("t10k", "test")):
        arrays = (tiny_arrays[f"{part}-{kind}"] for kind in ("images", "labels"))
        for n, (image, label) in enumerate(zip(*arrays, strict=True)):
            folder = tmp_path / "pictures" / name / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            if n < 30:
                Image.fromarray(image.astype(np.uint8)).save(folder / f"{n}.png")
    outcome = run_command("abtest", *runs, f"--dataset={tmp_path / 'pictures'}", "--json")
    values = json.loads(outcome.out)
    assert (values["dataset"], values["pictures"]) == ("pictures", 30)
    assert values["accuracy"]["B"] > 0.8
    for folder in (tmp_path / "pictures").glob("*/2"):
        folder.rename(folder.with_name("3"))
    outcome = run_command("abtest", *runs, f"--dataset={tmp_path / 'pictures'}")
    outcome.assert_refused("expected the classes 0, 1, 2, pictures has 0, 1, 3")


def test_pairs_that_show_nothing_say_how_many_pictures_would():
    pairs = Pairs(("a", "b"), "mnist", 900, 20, 25, 55)
    text, needed = PairsResult(pairs, Plan(effect=0.01)).text(), pairs.needed(Plan(effect=0.01))
    assert "No difference is shown: of the 45 pictures" in text and needed is not None
    assert f"by {needed:,} pictures, {needed - 1000:,} more than here" in text


def test_numbers_of_an_empty_log_are_refused():
    with pytest.raises(UserError, match="expected at least 2 users of each model"):
        compare_arms(Users.of([]), Plan())
