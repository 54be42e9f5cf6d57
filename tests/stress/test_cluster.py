"""A search on a Ray cluster of three nodes: workers, nodes and drivers are killed, nothing is lost.

`pytest -m stress tests/stress/test_cluster.py --cases=N` kills N of each, by default 20.
"""

import importlib.util
import json
import os
import random
import signal
import time

import pytest
from cluster import loopback

SEARCH = "-m jaxnets search --model=softmax --augment=shift --over=learning_rate=0.1,0.2 --seeds=8"


@pytest.fixture(scope="module")
def cluster():
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    with loopback() as found:
        yield found


def results(folder):
    """What a search leaves: the files of its cells, and its runs in order."""
    kept = json.loads((folder / "search.json").read_text())
    files = {path.name: path.read_bytes() for path in (folder / "cells").iterdir()}
    return kept["runs"], files


@pytest.mark.stress
@pytest.mark.parametrize("what", ["worker", "node", "driver"])
@pytest.mark.parametrize("kills", [1, 20])
def test_a_kill_loses_nothing_and_trains_nothing_twice(
    what, kills, cluster, start_python, tiny_flags, tmp_path, request
):
    rng = random.Random(f"{request.config.getoption('seed')} {what}")
    kills = kills if kills == 1 else request.config.getoption("cases") or kills
    command = [*SEARCH.split(), *(flag for flag in tiny_flags if "workdir" not in flag)]

    def start(folder, *flags):
        env = {**os.environ, "NPROC": "1"}
        return start_python(*command, f"--workdir={folder}", *flags, env=env)

    alone = start(tmp_path / "alone")
    assert (alone.communicate()[1], alone.returncode) == ("", 0)
    expected = results(tmp_path / "alone")
    assert len(expected[0]) == len(expected[1]) == 16

    number = 0
    while kills:
        folder, ended = tmp_path / str(number), False
        while not ended:
            again = ["--resume"] if (folder / "search.json").exists() else []
            driver = start(folder, f"--ray={cluster.address}", *again)
            while driver.poll() is None:
                time.sleep(rng.uniform(0, 0.5))
                if not kills or not cluster.is_training() or driver.poll() is not None:
                    continue
                if what == "driver":
                    driver.kill()
                elif what == "node":
                    cluster.replace_node(rng.randrange(3))
                elif not cluster.kill_worker(rng.randrange(3)):
                    continue
                kills -= 1
            out, err = driver.communicate()
            ended = driver.returncode != -signal.SIGKILL
            assert not ended or (err, driver.returncode) == ("", 0), (out, err)
            assert not ended or out.lstrip().startswith("validation accuracy"), out
        assert results(folder) == expected
        number += 1


TASKS = """if True:
    import os, sys
    from jaxnets.tune.backends import RayCluster

    def work(task):
        if task == "memory":
            raise MemoryError
        if task == "killed":
            os._exit(1)
        return task / 2 if task else 1 / task

    backend = RayCluster(work, sys.argv[1])
    for task in (3, "memory", "killed"):
        backend.submit(task)
    found = dict(backend.collect() for _ in range(3))
    backend.submit(0)
    raised = False
    try:
        backend.collect()
    except ZeroDivisionError:
        raised = True
    backend.close()  # Until then stdout is silent.
    print(found["killed"].status, found[3], *map(str, found["memory"]))
    print("a bug raises" if raised else "a bug raises nothing")
"""


@pytest.mark.stress
def test_each_task_has_a_result_or_a_line(cluster, run_python):
    outcome = run_python("-c", TASKS, cluster.address)
    assert outcome.out == "1 1.5 not enough memory 1\na bug raises\n", outcome
