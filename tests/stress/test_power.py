"""Power cuts: what they leave is resumed or refused, and what was saved is kept.

`pytest -m stress tests/stress/test_power.py [--cases=1000] [--seed=0]` tries many more states.
"""

import collections
import fnmatch
import os
import random

import power
import pytest
from conftest import VALIDATION, as_flags, slow, stress
from power import Event, LostError, Recorder, Runs

from jaxnets.base.errors import UserError
from jaxnets.tune.search import Search
from jaxnets.tune.train_many import TrainingSummary


@pytest.fixture(scope="module")
def flags(tiny_folder):
    flags = dict(model="softmax", data_dir=tiny_folder, validation_size=VALIDATION, batch_size=32)
    return as_flags(**flags, epochs=2, checkpoint_every="1steps", devices=1)


@pytest.fixture(scope="module")
def runs(flags, tmp_path_factory):
    return Runs(tmp_path_factory.mktemp("power"), flags)


@pytest.fixture(scope="module")
def events(runs):
    return runs.record("--keep=1")


def outcomes(runs, events, count):
    """What came of so many states, or LostError."""
    rng = random.Random(0)
    states = list(runs.states(events, 20, rng))
    return {runs.check(*state) for state in rng.sample(states, min(count, len(states)))}


@pytest.mark.slow
def test_a_power_cut_at_any_moment_loses_nothing_saved(runs, events):
    assert outcomes(runs, events, 200) == {"refused, nothing saved", "resumed", "finished"}


@pytest.mark.slow
def test_what_it_leaves_is_trained_to_the_same_bits(runs, events):
    states = [state for state in runs.states(events, 4, random.Random(0)) if state[0].get("saved")]
    assert runs.check(*states[len(states) // 2], train_on=True) == "trained to its end"


def without(unsafe):
    """The events of code that never waits for those files and folders."""
    return lambda events: [e for e in events if e.kind != "sync" or e.inode not in unsafe(events)]


def folders(events):
    return {e.inode for e in events if e.kind in ("link", "unlink", "rename")}


def files(events):
    return {e.inode for e in events if e.kind == "sync"} - folders(events)


def folder_of(pattern):
    return lambda events: {
        e.inode for e in events if e.kind == "link" and fnmatch.fnmatch(e.details[0], pattern)
    }


def metrics(events):
    return {e.details[1] for e in events if e.kind == "link" and e.details[0] == "metrics.jsonl"}


def swapped(first, second):
    """The events of code that does the second before the first, where one follows the other."""

    def swap(events):
        events = list(events)
        for i in range(len(events) - 1):
            if events[i].kind == first and events[i + 1].kind == second:
                events[i], events[i + 1] = events[i + 1], events[i]
        return events

    return swap


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrong",
    [
        without(files),
        without(folders),
        without(folder_of("runs")),
        without(folder_of("a")),
        without(folder_of("config.json.*.partial")),
        without(folder_of("9.safetensors.*.partial")),
        without(metrics),
        swapped("sync", "rename"),
        swapped("sync", "unlink"),
    ],
    ids=["files", "folders", "runs/", "a/", "run folder", "checkpoints/", "metrics.jsonl",
         "rename first", "prune first"],
)  # fmt: skip
def test_code_that_does_not_wait_for_the_disk_is_found(runs, events, wrong):
    assert wrong(events) != events
    with pytest.raises(LostError):
        outcomes(runs, wrong(events), 10**9)


@pytest.mark.slow
def test_a_cut_or_zeroed_record_hides_none_that_was_saved(runs, events):
    (inode,) = metrics(events)
    appended = [n for n, e in enumerate(events) if (e.kind, e.inode) == ("write", inode)]
    at = appended[-1]
    assert len(appended) == 2 and events[at].details[0] > 0  # The second epoch's.
    before = [event for event in events[:at] if event.kind != "start"]
    states = runs.states([*before, Event("start"), events[at]], 1000, random.Random(0), cuts=40)
    found = [runs.check(*state) for state in states]
    assert set(found) == {"resumed"} and len(found) > 100


def test_what_a_search_has_written_survives(tmp_path):
    recorder, over, folder = Recorder(tmp_path / "root"), {"hidden": [(4,), (8,)]}, "runs/search"
    (tmp_path / "root").mkdir()
    found = Search({"model": "mlp"}, over)
    with recorder, found.open(str(tmp_path / "root" / folder), resume=False):
        for seed in range(3):
            runs = [(point, seed) for point in found.points]
            found.keep(runs, 2 * [TrainingSummary(0.1, 0.9, 0.2, 0.8)])
            recorder.promise("runs", len(found.runs))
    root, kept = (tmp_path / "root").stat().st_ino, set()
    for number, (promised, state) in enumerate(
        power.crash_states(recorder.events, root, 20, random.Random(0))
    ):
        power.write_state(state, tmp_path / str(number))
        again = Search({"model": "mlp"}, over)
        try:
            with again.open(str(tmp_path / str(number) / folder), resume=True):
                kept.add(len(again.runs))
        except UserError as error:
            assert not promised and "no search.json in" in str(error)
        assert len(again.runs) >= promised.get("runs", 0)
    assert kept == {0, 2, 4, 6}


@pytest.mark.parametrize(
    ("cases", "trained"),
    [slow(400, 4), stress(1000, 20)],
)
def test_what_follows_a_run_in_its_folder_loses_nothing(flags, tmp_path, request, cases, trained):
    """So many states are also `trained` to their end."""
    rng, runs = random.Random(request.config.getoption("seed")), Runs(tmp_path, flags)
    found = [runs.record(), runs.record("--resume", "--epochs=3")]
    found.append(runs.record("--overwrite", "--seed=1", stop_after=10))
    last = runs.folder / "checkpoints" / "9.safetensors"
    os.truncate(last, last.stat().st_size - 1)
    runs.promised["saved"] = (1, 8)
    found.append(runs.record("--resume"))
    states = [state for events in found for state in runs.states(events, 64, rng)]
    drawn = rng.sample(states, min(len(states), request.config.getoption("cases") or cases))
    outcomes = collections.Counter(
        runs.check(*state, train_on=number < trained) for number, state in enumerate(drawn)
    )
    assert outcomes["trained to its end"] and outcomes["resumed"] and outcomes["finished"]
