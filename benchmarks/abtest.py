"""How often an A/B test that is looked at after every user is wrong, and how soon it decides.

    python benchmarks/abtest.py [--experiments=2000] [--users=2000] [--seed=0] [--plot=FILE]
    python benchmarks/abtest.py --returning [--experiments=1000] [--users=800]
    python benchmarks/abtest.py --missing [--experiments=1000] [--users=4000]

Users come one by one; a fair coin gives each model A or B, whose answer is right with the model's
accuracy. In an A/A experiment both models are the same, so every alarm is false. The sequential
test is that of the program; the z-test is the usual two-proportion one, at the 5 % level. Both look
after every user from the 100th on. The z-test also looks from the first user on, and once at the
end.

`--plot` draws docs/abtest-looks.svg: the share of A/A experiments with a false alarm so far.

`--returning` lets each user come back, with ten answers in all, spread over the experiment. Each
user's own accuracy is drawn from Beta(0.9, 0.1), whose mean is 0.9: most are always right or always
wrong. The sequential test looks 60 times. In one version a user counts once, with the share of
right answers so far; in the other, wrongly, each answer counts as a user.

`--missing` leaves most answers without feedback. Both models are right with probability 0.9. A user
reports an answer with probability 0.2, but a right answer of B with a different one. How often is
the decision wrong, and what do the checks find? Users give one answer; ten; and ten with a log that
also has the answers without feedback.
"""

import argparse
import time

import numpy as np

from jaxnets.abtest.classical import two_sided_z
from jaxnets.abtest.log import Users
from jaxnets.abtest.sequential import (
    MIN_USERS,
    Sequence,
    are_enough,
    confidence_sequence,
    effects,
)
from jaxnets.abtest.trial import Plan, compare_arms
from jaxnets.drawing.charts import Caption, Guides, Line, Scale, Series, curves, percent

ALPHA = 0.05


def draw(
    a: float, b: float, experiments: int, users: int, seed: int, share_b: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """Right answers and models, [experiments, users] bool each."""
    rng = np.random.default_rng(seed)
    in_b = rng.random((experiments, users)) < share_b
    return rng.random((experiments, users)) < np.where(in_b, b, a), in_b


def z_alarms(right: np.ndarray, in_b: np.ndarray) -> np.ndarray:
    """Whether the two-proportion z-test after each user is significant, [experiments, users]."""
    t, n_b = np.arange(1, right.shape[1] + 1), np.cumsum(in_b, axis=1)
    right_b, right_all = np.cumsum(right & in_b, axis=1), np.cumsum(right, axis=1)
    n_a, pooled = t - n_b, right_all / t
    with np.errstate(divide="ignore", invalid="ignore"):
        z = right_b / n_b - (right_all - right_b) / n_a
        z /= np.sqrt(pooled * (1 - pooled) * (1 / n_a + 1 / n_b))
    return np.abs(np.nan_to_num(z, posinf=0, neginf=0)) > two_sided_z(ALPHA)


def one_look_misses(right: np.ndarray, in_b: np.ndarray, truth: float) -> np.ndarray:
    """Whether the 95 % interval of one look leaves out the truth, [experiments, users]."""
    t, n_b = np.arange(1, right.shape[1] + 1), np.cumsum(in_b, axis=1)
    right_b = np.cumsum(right & in_b, axis=1)
    n_a, right_a = t - n_b, np.cumsum(right, axis=1) - right_b
    with np.errstate(divide="ignore", invalid="ignore"):
        a, b = right_a / n_a, right_b / n_b
        error = np.sqrt(a * (1 - a) / n_a + b * (1 - b) / n_b)
    return np.abs(b - a - truth) > two_sided_z(ALPHA) * error


def sequential(right: np.ndarray, in_b: np.ndarray, share_b: float = 0.5) -> Sequence:
    """The sequential test of the program."""
    values, begins = effects(right, in_b, share_b), are_enough(right, in_b)
    return confidence_sequence(values, ALPHA, begins=begins)


def stops(alarms: np.ndarray) -> np.ndarray:
    """After how many users each experiment raises its first alarm; infinity for never."""
    return np.where(alarms.any(axis=1), alarms.argmax(axis=1) + 1.0, np.inf)


def print_false_alarms(experiments: int, users: int, seed: int) -> None:
    """Prints how often A/A experiments are wrong, for several accuracies and splits."""
    print(f"A/A: wrong of {experiments:,} experiments of {users:,} users, looked at after each")
    print("accuracy  B's share  sequential  z from 100th  z from 1st  z once")
    for accuracy, share in [
        *((p, 0.5) for p in (0.5, 0.8, 0.9, 0.95, 0.99)),
        (0.9, 0.2),
        (0.9, 0.1),
    ]:
        right, in_b = draw(accuracy, accuracy, experiments, users, seed, share)
        z = z_alarms(right, in_b)
        rates = [
            sequential(right, in_b, share).decided[:, -1].mean(),
            z[:, MIN_USERS - 1 :].any(axis=1).mean(),
            z.any(axis=1).mean(),
            z[:, -1].mean(),
        ]
        print(f"{accuracy:8g}  {share:9g}  " + "  ".join(f"{rate:10.4f}" for rate in rates))


def print_power(a: float, b: float, experiments: int, users: int, seed: int) -> None:
    """Prints how often and how soon a true difference is found, and how often an interval errs."""
    right, in_b = draw(a, b, experiments, users, seed + 1)
    found = sequential(right, in_b)
    stop = stops(found.decided)
    quarters = np.quantile(stop, [0.25, 0.5, 0.75], method="higher")
    wrong = ((found.low > b - a) | (found.high < b - a)).any(axis=1)
    misses = one_look_misses(right, in_b, b - a)[:, MIN_USERS - 1 :]
    ends = np.isfinite(stop)
    rows = np.flatnonzero(ends)
    estimates = found.estimate[rows, stop[rows].astype(int) - 1]
    print(f"\n{a:g} against {b:g}, {experiments:,} experiments of at most {users:,} users")
    print(f"sequential: finds it in {ends.mean():.4f}, after a median of {quarters[1]:,.0f} users")
    print(f"  a quarter by {quarters[0]:,.0f}, three quarters by {quarters[2]:,.0f}")
    print(f"  finds the wrong model better in {(estimates < 0).mean():.4f}")
    print(f"  the mean estimate at that stop: {estimates.mean():.4f}, the truth {b - a:.4f}")
    print(f"  its interval leaves out the truth at some look in {wrong.mean():.4f}")
    print(f"  a 95 % interval of one look does in {misses.any(axis=1).mean():.4f}")
    z = z_alarms(right, in_b)
    for at in (870, users):
        if at <= users:
            print(f"z-test, one look after {at:,}: finds it in {z[:, at - 1].mean():.4f}")


def returning(
    users: int, rng: np.random.Generator, answers: int = 10, looks: int = 60
) -> list[bool]:
    """Whether an A/A experiment with returning users is wrong: by user, and by answer."""
    accuracy, in_b = rng.beta(0.9, 0.1, (users, 1)), rng.random(users) < 0.5
    first = np.arange(users)[:, None] / users  # Times from 0 to 1.
    later = first + rng.random((users, answers - 1)) * (1 - first)
    times = np.concatenate([first, later], axis=1)
    right = rng.random((users, answers)) < accuracy
    order = np.argsort(times, axis=None)
    each, each_in_b = right.ravel()[order] * 1.0, np.repeat(in_b, answers)[order]
    wrong = [False, False]
    for look in np.linspace(0.1, 1, looks):
        came = times <= look
        count = came.sum(axis=1)
        seen, total = count > 0, int(count.sum())
        shares = (right & came).sum(axis=1)[seen] / count[seen]
        for way, (values, model) in enumerate(
            [(shares, in_b[seen]), (each[:total], each_in_b[:total])]
        ):
            found = sequential(values, model)
            wrong[way] |= bool(found.low[-1] > 0 or found.high[-1] < 0)
    return wrong


def print_returning(experiments: int, users: int, seed: int) -> None:
    """Prints how often A/A experiments with returning users are wrong."""
    rng = np.random.default_rng(seed)
    by_user, by_answer = np.mean([returning(users, rng) for _ in range(experiments)], axis=0)
    print(f"A/A, {experiments:,} experiments of {users:,} users with ten answers each: wrong in")
    print(f"{by_user:.4f} if a user counts once, {by_answer:.4f} if each answer does (seed {seed})")


def missing(
    reported: float, users: int, rng: np.random.Generator, answers: int = 1, silence: bool = False
) -> list[bool]:
    """The result of an experiment with equal models if right answers of B are reported so often.

    Returns:
      Whether the sequential test decides, whether the check of the split finds it, whether the
      check of the feedback finds it, and whether a better model is named nevertheless.
    """
    in_b = rng.random(users) < 0.5
    right = rng.binomial(answers, 0.9, users)
    right_told = rng.binomial(right, np.where(in_b, reported, 0.2))
    told = right_told + rng.binomial(answers - right, 0.2)
    arms = np.stack([~in_b, in_b], axis=1)
    judged, right_told = told[:, None] * arms, right_told[:, None] * arms
    shown = answers * arms if silence else judged
    seen = shown.any(axis=1)
    trial = compare_arms(
        Users(shown[seen], judged[seen], right_told[seen], {"A": (), "B": ()}), Plan()
    )
    return [trial.decided_at is not None, trial.unbalanced, trial.lopsided, bool(trial.winner)]


def print_missing(experiments: int, users: int, seed: int) -> None:
    """Prints how often equal models are decided where feedback goes missing, and what is found."""
    print(f"{experiments:,} experiments of {users:,} users, equal models, seed {seed}")
    print("B's right reported  answers  silence   decides    split  feedback  named")
    for reported in (0.2, 0.21, 0.22, 0.25, 0.3, 0.4):
        for answers, silence in ((1, False), (1, True), (10, False), (10, True)):
            rng = np.random.default_rng(seed)
            runs = [missing(reported, users, rng, answers, silence) for _ in range(experiments)]
            rates = "  ".join(f"{rate:7.4f}" for rate in np.mean(runs, axis=0))
            print(f"{reported:18g}  {answers:7}  {silence!s:7}  {rates}")


def plot(path: str, experiments: int, users: int, seed: int) -> None:
    """Draws the share of A/A experiments at 0.9 with a false alarm so far."""
    right, in_b = draw(0.9, 0.9, experiments, users, seed)
    z = z_alarms(right, in_b)
    z[:, : MIN_USERS - 1] = False
    decided, series = sequential(right, in_b).decided, []
    for number, (alarms, name) in enumerate(
        [(z, "z-test after every user"), (decided, "sequential test")]
    ):
        share = np.maximum.accumulate(alarms, axis=1).mean(axis=0).tolist()
        label = f"{name}: {100 * share[-1]:.1f} %"
        series.append(Series(label, range(1, users + 1), share, number))
    figure = curves(
        Caption(
            "abtest-looks",
            "A/A experiments with a false alarm",
            "; ".join(one.label for one in series),
        ),
        series,
        x=Scale("users so far"),
        y=Scale(show=percent),
        guides=Guides(level=Line("promised: 5 %", ALPHA)),
    )
    figure.save(path)


def main() -> None:
    """Prints the tables of docs/abtest.md, or draws its picture."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--experiments", type=int)
    parser.add_argument("--users", type=int)
    parser.add_argument("--returning", action="store_true")
    parser.add_argument("--missing", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot")
    arguments = parser.parse_args()
    experiments, users = (1000, 800) if arguments.returning else (2000, 2000)
    if arguments.missing:
        experiments, users = 1000, 4000
    sizes = arguments.experiments or experiments, arguments.users or users, arguments.seed
    if arguments.returning:
        return print_returning(*sizes)
    if arguments.missing:
        return print_missing(*sizes)
    if arguments.plot:
        return plot(arguments.plot, *sizes)
    began = time.perf_counter()
    print_false_alarms(*sizes)
    print_power(0.90, 0.95, *sizes)
    print_power(0.90, 0.95, sizes[0], 2 * sizes[1], sizes[2])
    print(f"\nseed {arguments.seed}; {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
