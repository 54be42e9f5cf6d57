"""jaxnets serve as a process: clients of others, signals, kills, and strangers."""

import asyncio
import contextlib
import io
import signal
import socket
import threading
from pathlib import Path

import httpx
import numpy as np
import pytest
from browser import CHROMIUM, Browser
from conftest import HANGS, stress
from PIL import Image
from served import ServerProcess, SoftmaxRun, png, random_bytes, requests_of

from jaxnets.server.feedback import read

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    pair = [SoftmaxRun(folder / name, seed) for seed, name in enumerate("ab")]
    for run in pair:
        run.folder.close()
    return pair


@pytest.fixture
def start(start_python, runs, tmp_path):
    """Starts a server of the two runs."""
    started = []

    def start(*flags):
        started.append(ServerProcess(start_python, runs, tmp_path / "log", *flags))
        return started[-1]

    yield start
    for process in started:
        process.child.kill()
        process.child.communicate(timeout=HANGS)


@pytest.fixture(scope="module")
def server(start_python, runs, tmp_path_factory):
    process = ServerProcess(start_python, runs, tmp_path_factory.mktemp("log") / "log")
    yield process
    status, err = process.stop()
    assert (status, err) == (143, "stopped: what was accepted is answered and saved\n")


@pytest.mark.oracle
def test_tritonclient_speaks_to_it(server, runs):
    http = pytest.importorskip("tritonclient.http", reason="pip install -e '.[clients]' brings it")
    waits = {"connection_timeout": HANGS, "network_timeout": HANGS}
    client = http.InferenceServerClient(server.url.removeprefix("http://"), **waits)
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("a") and client.is_model_ready("b", "1")
    assert not client.is_model_ready("c")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    metadata = client.get_model_metadata("a")
    (tensor,) = metadata["inputs"]
    assert (tensor["shape"], metadata["versions"]) == ([-1, 28, 28, 1], ["1"])
    images = random_bytes(5).astype(np.float32) / 255
    expected = runs[0].probabilities(images)
    for binary in (True, False):
        given = http.InferInput(tensor["name"], list(images.shape), tensor["datatype"])
        given.set_data_from_numpy(images, binary_data=binary)
        names = [output["name"] for output in metadata["outputs"]]
        asked = [http.InferRequestedOutput(name, binary_data=binary) for name in names]
        for outputs in (asked, None):
            result = client.infer("a", [given], outputs=outputs, request_id="7")
            assert result.get_response()["id"] == "7"
            found = result.as_numpy("probabilities")
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
            as_bytes = binary or not outputs
            labels = [x.decode() if as_bytes else x for x in result.as_numpy("labels")]
            assert labels == [str(k) for k in expected.argmax(axis=1)]
    wrong = http.InferInput("images", [1, 3], "FP32")
    wrong.set_data_from_numpy(np.zeros((1, 3), np.float32))
    with pytest.raises(Exception, match="expected the shape"):
        client.infer("a", [wrong])
    client.close()


@pytest.mark.oracle
def test_schemathesis_finds_nothing(server, run_python, tmp_path):
    pytest.importorskip("schemathesis", reason="pip install -e '.[clients]' brings it")
    # What is valid by the description alone may have the wrong number of pixels.
    flags = ["--checks=all", "--exclude-checks=positive_data_acceptance", "--seed=0"]
    flags += ["--max-examples=25", "--generation-database=none", "--suppress-health-check=all"]
    flags += [f"--request-timeout={HANGS}"]
    code = "from schemathesis.cli import schemathesis; schemathesis()"
    outcome = run_python("-c", code, "run", f"{server.url}/openapi.json", *flags)
    assert outcome.status == 0, outcome.out


async def ask_on(client, process, answered, until):
    """Predicts and gives feedback until the server is gone; notes the feedback that it accepted."""
    image = {"image": random_bytes(1)[0, ..., 0].tolist()}
    with contextlib.suppress(httpx.TransportError):
        while not until.is_set():
            reply = await client.post("/predict", json=image)
            if reply.status_code == 503:
                return
            (picture,) = reply.json()["pictures"]
            feedback = {"answer": picture["answer"], "correct": len(answered) % 3 == 0}
            reply = await client.post("/feedback", json=feedback)
            assert reply.status_code == 200, reply.text
            answered.append(picture["answer"])


def under_load(process, act, users=8, least=30):
    """Acts on a server that users ask and answer; returns the accepted feedback's answers."""
    answered, until = [], threading.Event()

    async def main():
        async with httpx.AsyncClient(base_url=process.url, timeout=HANGS) as client:
            asking = [ask_on(client, process, answered, until) for _ in range(users)]
            tasks = [asyncio.create_task(one) for one in asking]
            while len(answered) < least:
                await asyncio.sleep(0.001)
            acted = asyncio.create_task(asyncio.to_thread(act))
            await asyncio.gather(*tasks, acted)

    asyncio.run(main())
    return answered


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_under_load_loses_nothing_that_was_accepted(start, tmp_path, number, status):
    process = start()
    ended = []
    answered = under_load(process, lambda: ended.append(process.stop(number)))
    assert ended == [(status, "stopped: what was accepted is answered and saved\n")]
    found = [row.request for row in read(tmp_path / "log")]
    assert set(requests_of(answered)) <= set(found) and len(found) == len(set(found))


@pytest.mark.parametrize("kills", [2, stress(20)])
def test_kill_9_under_load_loses_no_accepted_feedback(start, tmp_path, kills):
    answered = []
    for _ in range(kills):
        process = start()
        answered += under_load(process, process.child.kill)
        found = [row.request for row in read(tmp_path / "log")]
        assert set(requests_of(answered)) <= set(found)
        assert len(found) == len(set(found))


# The page


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_the_page_shows_both_models_and_its_buttons_save_feedback(server, tmp_path):
    before = len(read(server.log))
    with Browser(tmp_path / "chromium") as browser:
        browser.resize(390, 844)
        browser.call("Page.navigate", url=server.url)
        browser.wait(
            "document.readyState === 'complete' && document.querySelector('.card') !== null"
        )
        assert browser.evaluate("document.querySelector('#answers').hidden")
        points = [browser.place("#paper", *point) for point in ((0.3, 0.2), (0.7, 0.2), (0.5, 0.8))]
        browser.mouse("mousePressed", *points[0])
        for point in points:
            browser.mouse("mouseMoved", *point)
        browser.mouse("mouseReleased", *points[-1], 0)
        browser.wait("document.querySelectorAll('.model-answer').length === 2")
        browser.click("[data-arm=A][data-kind=right]")
        browser.click("[data-arm=B][data-kind=wrong]")
        browser.wait("document.querySelectorAll('.model-buttons button:disabled').length === 4")
        while len(read(server.log)) < before + 2:
            browser.frame()
        first, second = read(server.log)[before:]
        assert [(row.model, row.arm, row.correct) for row in (first, second)] == [
            ("a", "A", True),
            ("b", "B", False),
        ]
        assert first.request == second.request
        shown = "[...document.querySelectorAll('.model-best')].map((best) => best.innerText)"
        assert browser.evaluate(shown) == [first.prediction, second.prediction]
        footer = "document.querySelector('footer').innerText"
        assert browser.evaluate(footer).endswith("saves your feedback, and no picture.")
        browser.click("#language")
        assert browser.evaluate(footer).endswith("它保存你的反馈，不保存图片。")
        assert "已保存" in browser.evaluate("document.querySelector('#answers').innerText")
        assert browser.evaluate("document.documentElement.scrollWidth") <= 390
        assert browser.evaluate("document.cookie") == "" and not browser.problems()
        assert all(url.startswith((server.url, "data:")) for url in browser.requests())


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_the_plain_page_asks_about_several_pictures(start_python, tmp_path):
    names = ("bicycle", "cat", "<b>piano")
    pair = [SoftmaxRun(tmp_path / f"run-{n}", n, names=names, shape=(100, 100, 3)) for n in (0, 1)]
    for run in pair:
        run.folder.close()
    pictures = np.random.default_rng(0).integers(0, 256, (2, 100, 100, 3), np.uint8)
    for n, pixels in enumerate(pictures):
        (tmp_path / f"{n}.png").write_bytes(png(pixels))
    (tmp_path / "bad.png").write_bytes(b"no picture")
    process = ServerProcess(start_python, pair, tmp_path / "log")
    try:
        with Browser(tmp_path / "chromium") as browser:
            browser.resize(390, 844)
            browser.call("Page.navigate", url=process.url)
            browser.wait(
                "document.readyState === 'complete' && document.querySelector('#file') !== null"
            )

            def give(*files):
                root = browser.call("DOM.getDocument")["root"]["nodeId"]
                node = browser.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
                paths = [str(tmp_path / file) for file in files]
                browser.call("DOM.setFileInputFiles", nodeId=node, files=paths)

            give("0.png", "1.png")
            browser.wait("document.querySelectorAll('.model-answer').length === 4")
            best = "[...document.querySelectorAll('.model-best')].map((best) => best.innerText)"
            expected = [run.probabilities(pictures / 255).argmax(axis=1) for run in pair]
            assert browser.evaluate(best) == [names[run[n]] for n in (0, 1) for run in expected]
            images = "[...document.querySelectorAll('.asked img')].map((one) => one.naturalWidth)"
            browser.wait(f"{images}.join() === '100,100'")
            browser.click(".asked:nth-of-type(2) [data-arm=B][data-kind=wrong]")
            while not (rows := read(process.log)):
                browser.frame()
            assert [(row.arm, row.correct) for row in rows] == [("B", False)]
            assert rows[0].prediction == names[expected[1][1]]
            browser.click("#language")
            shown = browser.evaluate("document.body.innerText")
            assert "<b>piano" in shown and "已保存" in shown and "Pictures" not in shown
            colours = set()
            for _ in range(2):
                browser.click("#theme")
                colours.add(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
            assert len(colours) == 2
            assert browser.evaluate("document.documentElement.scrollWidth") <= 390
            assert browser.evaluate("document.cookie") == "" and not browser.problems()
            assert all(
                url.startswith((process.url, "data:", "blob:")) for url in browser.requests()
            )
            give("bad.png")
            browser.wait("document.querySelector('.asked .problem') !== null")
            problem = browser.evaluate("document.querySelector('.asked .problem').innerText")
            assert problem.startswith("没有回答：这个文件不是图片（JPEG, ")
            browser.click("#language")
            problem = browser.evaluate("document.querySelector('.asked .problem').innerText")
            assert problem.startswith("No answer: picture: not a picture (JPEG, ")
    finally:
        process.stop()


# Strangers


def assert_serves(process):
    assert httpx.get(f"{process.url}/v2/health/ready", timeout=HANGS).json() == {"ready": True}


def test_half_bodies_and_slow_heads_keep_nobody_out(start):
    process = start()
    body = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    body += b"Content-Length: 1000\r\nExpect: 100-continue\r\n\r\n"
    with contextlib.ExitStack() as stack:

        def connect():
            return stack.enter_context(socket.create_connection(process.address, HANGS))

        bodies = [connect() for _ in range(300)]
        for stream in bodies:
            stream.sendall(body)
        for stream in bodies:
            assert stream.recv(1 << 10).startswith(b"HTTP/1.1 100 ")
            stream.sendall(b"x")
        for _ in range(100):
            connect().sendall(b"GET / HTTP/1.1\r\nX: ")
        for _ in range(20):
            assert_serves(process)
        assert process.stop(signal.SIGKILL)[0] == -signal.SIGKILL


def test_an_endless_head_and_body_are_refused(server):
    head = b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 200_000
    body = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    body += b"Transfer-Encoding: chunked\r\n\r\n" + (b"100000\r\n" + bytes(1 << 20) + b"\r\n") * 17
    for content, status in ((head, b"400"), (body, b"413")):
        with socket.create_connection(server.address, HANGS) as stream:
            with contextlib.suppress(ConnectionError):  # It may close the connection before.
                stream.sendall(content)
            with contextlib.suppress(ConnectionError):
                assert stream.recv(1 << 12).startswith(b"HTTP/1.1 " + status)
        assert_serves(server)


def resident(process, name):
    """Bytes of a process in memory: the most so far (VmHWM), or those now (VmRSS)."""
    text = Path(f"/proc/{process.child.pid}/status").read_text()
    return int(text.partition(name)[2].split()[0]) << 10


@pytest.mark.stress
def test_the_memory_of_large_pictures_is_given_back(start):
    process = start()
    page = np.full((90, 70), 250, np.uint8)
    page[20:70, 30:36] = 15
    stream = io.BytesIO()
    picture = Image.fromarray(page).resize((5000, 5000)).convert("RGBA")
    picture.save(stream, "PNG", compress_level=1)

    def ask(content):
        answer = httpx.post(f"{process.url}/predict", content=content, timeout=HANGS)
        assert answer.status_code == 200, answer.text

    ask(png(page))
    before = resident(process, "VmRSS:")
    ask(stream.getvalue())
    grown = resident(process, "VmRSS:") - before
    assert grown < (resident(process, "VmHWM:") - before) / 4
