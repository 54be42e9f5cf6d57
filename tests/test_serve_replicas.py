"""jaxnets serve --ray=local: one application in several processes, which are killed."""

import asyncio
import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from conftest import HANGS
from served import ServerProcess, SoftmaxRun, inference, random_bytes, requests_of

from jaxnets.server import app
from jaxnets.server.feedback import read
from jaxnets.server.service import Assignment

# Ray gives its own processes a fixed time to start: not enough on cores that others keep busy.
pytestmark = pytest.mark.stress


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    pytest.importorskip("ray.serve", reason="pip install -e '.[ray]' brings it")
    folder = tmp_path_factory.mktemp("served")
    pair = [SoftmaxRun(folder / name, seed) for seed, name in enumerate("ab")]
    for run in pair:
        run.folder.close()
    return pair


@pytest.fixture(params=["sqlite", "postgresql"])
def server(request, start_python, runs, tmp_path):
    """A server of two replicas, and a function that reads its log."""
    if request.param == "sqlite":
        log = tmp_path / "log"
    else:
        log = request.getfixturevalue("postgres").create()
    process = ServerProcess(start_python, runs, log, "--ray=local", "--replicas=2")
    yield process, lambda: read(log)
    if process.child.poll() is None:
        process.stop()


def assert_stops(process):
    status, err = process.stop()  # Ray may tell of replicas before.
    assert status == 143 and err.endswith("stopped: what was accepted is answered and saved\n")


def replicas_of(process):
    """The processes of the replicas, which descend from the server's."""
    found, looked_at = [], [process.child.pid]
    while looked_at:
        for task in Path(f"/proc/{looked_at.pop()}/task").glob("*"):
            with contextlib.suppress(OSError):
                looked_at += map(int, (task / "children").read_text().split())
                name = (task / "cmdline").read_bytes()
                if b"ServeReplica:jaxnets" in name and task.name == task.parent.parent.name:
                    found.append(int(task.name))
    return found


@pytest.mark.oracle
def test_replicas_answer_as_one_server(server, runs):
    process, read_log = server
    images = random_bytes(40)
    expected = [run.probabilities(images / 255) for run in runs]
    assignment = Assignment(("a", "b"), 0.5)
    assert len(replicas_of(process)) == 2
    with httpx.Client(base_url=process.url, timeout=HANGS) as client:
        for number in range(80):  # Each user twice.
            k = number % 40
            headers = {"X-User": f"user {k}"}
            image = {"image": images[k].ravel().tolist()}
            answer = client.post("/predict?top=10", json=image, headers=headers).json()
            arm = assignment.arm(assignment.user(f"user {k}"))
            assert answer["arm"] == "AB"[arm]
            (picture,) = answer["pictures"]
            given = {int(one["label"]): one["probability"] for one in picture["predictions"]}
            found = [given[label] for label in range(10)]
            np.testing.assert_allclose(found, expected[arm][k], rtol=1e-5, atol=1e-7)
            feedback = {"answer": picture["answer"], "label": "7"}
            for _ in range(4):  # By any replica, and once.
                assert client.post("/feedback", json=feedback).json() == {"saved": True}
            other = client.post("/feedback", json={**feedback, "label": "8"})
            assert other.status_code == 409
        many = client.post("/v2/models/b/infer", json=inference(random_bytes(128, seed=1)))
        assert many.json()["outputs"][0]["shape"] == [128, 10]
        assert client.get("/v2/health/ready").json() == {"ready": True}
        assert client.get("/v2", headers={"Host": "evil.example"}).status_code == 400
        large = client.post("/predict", content=b"x" * (app.MAX_BODY + 1))
        assert large.status_code == 413
        assert "jaxnets_requests_total" in client.get("/metrics").text
        assert "s3cret" not in client.get("/metrics").text
    assert len(read_log()) == 80
    assert_stops(process)
    assert len(read_log()) == 80


async def use(client, user, accepted, until):
    """Predicts and gives feedback, again where no answer comes; notes what is accepted."""
    image = {"image": random_bytes(1)[0, ..., 0].tolist()}
    arms = set()

    async def asked(path, values):
        while not until.is_set():
            with contextlib.suppress(httpx.TransportError):
                reply = await client.post(path, json=values, headers={"X-User": user})
                if reply.status_code == 200:
                    return reply.json()
                assert reply.status_code >= 500, reply.text
            await asyncio.sleep(0.1)

    while not until.is_set():
        if answer := await asked("/predict", image):
            arms.add(answer["arm"])
            assert len(arms) == 1
            token = answer["pictures"][0]["answer"]
            if await asked("/feedback", {"answer": token, "correct": len(accepted) % 3 == 0}):
                accepted.append(token)


@pytest.mark.parametrize("kills", [1, 20])
def test_a_killed_replica_loses_no_accepted_feedback(server, kills):
    process, read_log = server
    accepted, until = [], threading.Event()

    def kill():
        for _ in range(kills):
            before = len(accepted)
            while len(accepted) < before + 20 or len(replicas_of(process)) < 2:
                time.sleep(0.01)
            os.kill(replicas_of(process)[0], signal.SIGKILL)
        before = len(accepted)
        while len(accepted) < before + 20:
            time.sleep(0.01)
        until.set()

    async def main():
        async with httpx.AsyncClient(base_url=process.url, timeout=HANGS) as client:
            users = [use(client, f"user {k}", accepted, until) for k in range(8)]
            await asyncio.gather(asyncio.to_thread(kill), *users)

    asyncio.run(main())
    assert_stops(process)
    found = [row.request for row in read_log()]
    assert set(requests_of(accepted)) <= set(found)
    assert len(found) == len(set(found))
