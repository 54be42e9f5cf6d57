"""How often a race of settings drops the truly best one, and how many runs it saves.

    python benchmarks/race.py [--races=2000] [--seed=0]
    python benchmarks/race.py --optuna [--races=300]      # pip install optuna
    python benchmarks/race.py --replay=runs/search-mlp    # a race of a search made without it

Eight settings get up to 20 seeds. One is truly better than the others by a gap, counted in standard
deviations of a run. `search --race` looks after every seed. It is compared with Student's paired
t-test at 5 %, uncorrected, after every seed from the third on; and with Optuna's WilcoxonPruner
with its defaults, for which the settings come one after the other in random order.

The second table has results that are not normal. All settings are equal there, except in its last
lines: those rivals are a little better, but some of their runs diverge. The third table has the
share of races of equal settings that dropped some setting within 40 seeds.
"""

import argparse
import importlib
import itertools
import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from jaxnets.tune.race import SIGNIFICANCE, drops, log_e, threshold

SETTINGS, SEEDS = 8, 20
# From the accuracies of a race, [N, K]: the settings that were dropped, and the number of runs.
Race = Callable[[np.ndarray], tuple[set[int], int]]


def draw(gap: float, rng: np.random.Generator) -> np.ndarray:
    """Normal accuracies in standard deviations of a run, [SEEDS, SETTINGS]; the first is best."""
    scores = rng.normal(size=(SEEDS, SETTINGS))
    scores[:, 0] += gap
    return scores


def by_e_value(scores: np.ndarray) -> tuple[set[int], int]:
    """The race of `search --race`; it ends when one setting is left."""
    found, (seeds, settings) = drops(scores), scores.shape
    ends = max(drop.seeds for drop in found.values()) if len(found) == settings - 1 else seeds
    runs = sum(drop.seeds for drop in found.values()) + (settings - len(found)) * ends
    return set(found), runs


def by_t_test(scores: np.ndarray) -> tuple[set[int], int]:
    """A race by the two-sided paired t-test at 5 %, as if each look were the only one."""
    racing, runs = np.ones(scores.shape[1], bool), 0
    differences = scores[:, :, None] - scores[:, None]
    for n in range(1, len(scores) + 1):
        if racing.sum() == 1:
            break
        runs += int(racing.sum())
        if n >= 3:
            so_far = differences[:n]
            spread = np.where(np.eye(len(racing)), 1, so_far.std(axis=0, ddof=1)) / math.sqrt(n)
            beats = so_far.mean(axis=0) / spread > stats.t.isf(SIGNIFICANCE / 2, n - 1)
            racing &= ~(beats & np.outer(racing, racing)).any(axis=0)
    return set(np.flatnonzero(~racing).tolist()), runs


def by_optuna(scores: np.ndarray) -> tuple[set[int], int]:
    """Optuna's WilcoxonPruner: each setting against the best complete one so far."""
    optuna: Any = importlib.import_module("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():  # It is experimental, and says so each time.
        warnings.simplefilter("ignore")
        pruner = optuna.pruners.WilcoxonPruner()
        study = optuna.create_study(direction="maximize", pruner=pruner)
        pruned, runs = set(), 0
        order = np.random.default_rng(scores[0].view(np.uint64)).permutation(scores.shape[1])
        for setting in order.tolist():
            trial = study.ask()
            for seed, score in enumerate(scores[:, setting].tolist()):
                trial.report(score, seed)
                runs += 1
                if trial.should_prune():
                    pruned.add(setting)
                    study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                    break
            else:
                study.tell(trial, float(scores[:, setting].mean()))
    return pruned, runs


def errors(race: Race, races: list[np.ndarray]) -> tuple[float, float]:
    """The share of races that dropped setting 0, and the mean share of runs that were trained."""
    ended = [race(scores) for scores in races]
    wrong = np.mean([0 in dropped for dropped, _ in ended])
    return float(wrong), float(np.mean([runs for _, runs in ended]) / races[0].size)


def not_normal(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Accuracies that are not normal, by the name of their distribution, [SEEDS, SETTINGS] each."""
    shape, noise = (SEEDS, SETTINGS), 0.002 * rng.normal(size=(SEEDS, SETTINGS))
    kinds = {
        f"{images} validation images, {p:g} right": rng.binomial(images, p, shape) / images
        for images, p in [(2, 0.5), (10, 0.9), (100, 0.98), (1000, 0.98)]
    }
    kinds["a deviation is half a validation image"] = np.round(noise / 0.004)
    kinds["heavy tails: Student's t, 3 degrees"] = rng.standard_t(3, shape)
    kinds["skewed: exponential"] = -rng.exponential(size=shape)
    kinds["half of the runs diverge"] = (0.98 + noise) * (rng.random(shape) < 0.5)
    for share in (0.05, 0.3):
        rivals = (0.99 + noise) * (rng.random(shape) >= share)
        rivals[:, 0] = 0.98 + noise[:, 0]
        kinds[f"rivals are better by .01, {100 * share:g} % of their runs diverge"] = rivals
    return kinds


def some_dropped(settings: int, races: int, rng: np.random.Generator) -> float:
    """The share of races of equal settings, over 40 seeds, that drop at least one of them."""
    scores = rng.normal(size=(40, settings, races))
    pairs = itertools.combinations(range(settings), 2)
    most = [log_e(scores[:, one] - scores[:, other]).max(axis=0) for one, other in pairs]
    return float(np.mean(np.max(most, axis=0) >= math.log(threshold(settings))))


def replay(folder: Path) -> None:
    """Prints how a race over a search's results ends, and what pairing its best two saves."""
    kept = json.loads((folder / "search.json").read_text())
    runs = {(str(run["point"]), run["seed"]): run["accuracy"] for run in kept["runs"]}
    points, seeds = (list(dict.fromkeys(keys)) for keys in zip(*runs, strict=True))
    scores = np.array([[runs[point, seed] for point in points] for seed in seeds])
    dropped, used = by_e_value(scores)
    second, best = scores[:, np.argsort(scores.mean(axis=0))[-2:]].T
    lead, alone = np.mean(best - second), np.var(best, ddof=1) + np.var(second, ddof=1)
    z = stats.norm.isf(SIGNIFICANCE / 2) + stats.norm.isf(0.2)
    print(f"the best two: a lead of {lead:.4f}, correlation {np.corrcoef(best, second)[0, 1]:.2f}")
    for name, variance in [("unpaired", alone), ("paired", np.var(best - second, ddof=1))]:
        print(f"  {name}: {math.ceil(z**2 * variance / lead**2)} seeds for a power of 80 %")


def main() -> None:
    """Prints the tables of docs/experiments.md."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--races", type=int)
    parser.add_argument("--optuna", action="store_true")
    parser.add_argument("--replay", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.replay:
        return replay(arguments.replay)
    rng = np.random.default_rng(arguments.seed)
    races = arguments.races or (300 if arguments.optuna else 2000)
    ways = {"e-value": by_e_value, "t-test": by_t_test}
    if arguments.optuna:
        ways |= {"Optuna": by_optuna}
    print(f"{races:,} races of {SETTINGS} settings, {SEEDS} seeds: best dropped, runs trained")
    print("gap  " + "  ".join(f"{name:>14}" for name in ways))
    for gap in (0, 0.3, 1, 2, 3):
        drawn = [draw(gap, rng) for _ in range(races)]
        cells = ["{:7.3f} {:6.3f}".format(*errors(way, drawn)) for way in ways.values()]
        print(f"{gap:3g}  " + "  ".join(cells), flush=True)
    if not arguments.optuna:
        drawn = [not_normal(rng) for _ in range(races)]
        for kind in drawn[0]:
            wrong, _ = errors(by_e_value, [kinds[kind] for kinds in drawn])
            print(f"{wrong:.3f}  {kind}")
        for settings in (2, 5, 8, 16):
            share = some_dropped(settings, races, np.random.default_rng(arguments.seed))
            print(f"{share:.3f}  some of {settings} equal settings dropped")


if __name__ == "__main__":
    main()
