"""Batches made ahead: the same, in the same order, and no thread left behind."""

import contextlib
import threading
import time
from concurrent.futures import Future

import pytest
from conftest import HANGS

from jaxnets.data.prefetch import DEPTH, prefetch


@pytest.fixture(autouse=True)
def no_thread_is_left_behind():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def test_the_items_come_in_their_order_and_an_error_where_its_item_is_asked_for():
    assert list(prefetch(iter(range(100)))) == list(range(100))
    assert list(prefetch(iter([]))) == []
    assert list(prefetch(iter([None, None]))) == [None, None]
    ahead = prefetch(1 // number for number in (1, -1, 0))
    assert [next(ahead), next(ahead)] == [1, -1]
    with pytest.raises(ZeroDivisionError):
        next(ahead)


def test_items_are_made_ahead_but_only_a_few():
    made, enough = [], threading.Event()

    def items():
        for number in range(20):
            made.append(number)
            if len(made) == 1 + DEPTH:
                enough.set()
            yield number

    with contextlib.closing(prefetch(items())) as ahead:
        assert next(ahead) == 0
        assert enough.wait(HANGS)
        time.sleep(0.05)
        assert made == list(range(1 + DEPTH))


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_loop_that_ends_early_ends_the_thread(error):
    with pytest.raises(error), contextlib.closing(prefetch(iter(range(10**9)))) as ahead:
        for number in ahead:
            if number == 3:
                raise error


def test_a_loop_that_ends_early_waits_for_the_item_in_the_making_alone(monkeypatch):
    made, go_on = [], threading.Event()

    def items():
        for number in range(20):
            made.append(number)
            if number:
                go_on.wait(HANGS)
            yield number

    cancelled = []

    def cancel(future):
        cancelled.append(cancel_one(future))
        if len(cancelled) == 5:  # The generator has closed.
            go_on.set()

    cancel_one = Future.cancel
    monkeypatch.setattr(Future, "cancel", cancel)
    ahead = prefetch(items(), depth=5)
    assert next(ahead) == 0
    ahead.close()
    assert made in ([0], [0, 1])
