"""jaxnets serve: what each route answers, whom, and what it refuses; in this process."""

import contextlib
import json
import re
import sqlite3
import threading
import time
from typing import Any

import jax
import numpy as np
import pytest
from conftest import HANGS
from fastapi import HTTPException
from served import NAMES, Served, SoftmaxRun, inference, png, random_bytes

from jaxnets.base.display import one_line
from jaxnets.predict.predict import load_predictor
from jaxnets.server import app, models, protocol, service
from jaxnets.server.feedback import read
from jaxnets.server.service import Assignment, Ticket, sign, verify
from jaxnets.training.pixels import to_float

INFER = "/v2/models/a/infer"
CURLS_OWN = "application/x-www-form-urlencoded"  # The type that curl says unless told.
COMPILED = "/jax/core/compile/backend_compile_duration"


def assert_near(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    pair = {name: SoftmaxRun(folder / name, seed) for seed, name in enumerate("ab")}
    yield pair
    for run in pair.values():
        run.folder.close()


@pytest.fixture(scope="module")
def server(runs, tmp_path_factory):
    log = tmp_path_factory.mktemp("log") / "feedback.sqlite"
    with Served([run.path for run in runs.values()], log) as server:
        yield server


# The Open Inference Protocol


def test_the_protocol_describes_the_server_and_its_models(server):
    assert server.get("/v2/health/live") == {"live": True}
    assert server.get("/v2/health/ready") == {"ready": True}
    assert server.get("/v2")["extensions"] == ["binary_tensor_data"]
    for path in ("/v2/models/b", "/v2/models/b/versions/1"):
        assert server.get(path) == {
            "name": "b",
            "versions": ["1"],
            "platform": "jax",
            "inputs": [{"name": "images", "datatype": "FP32", "shape": [-1, 28, 28, 1]}],
            "outputs": [
                {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]},
                {"name": "labels", "datatype": "BYTES", "shape": [-1]},
            ],
        }
        assert server.get(f"{path}/ready") == {"name": "b", "version": "1", "ready": True}


@pytest.mark.parametrize("shape", [(3, 28, 28, 1), (3, 28, 28), (3, 784)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_inference_in_json_is_numpys(server, runs, shape, dtype):
    images = random_bytes(3)
    given = images if dtype == np.uint8 else to_float(images)
    answer = server.post(
        "/v2/models/a/versions/1/infer", inference(given.reshape(shape), id="mine")
    )
    expected = runs["a"].probabilities(images / 255)
    probabilities, labels = answer.pop("outputs")
    assert answer == {"model_name": "a", "model_version": "1", "id": "mine"}
    assert probabilities["shape"] == [3, 10]
    found = np.reshape(probabilities["data"], (3, 10))
    assert_near(found, expected)
    assert labels["data"] == [str(k) for k in expected.argmax(axis=1)]


@pytest.mark.parametrize(
    ("kind", "dtype"), [("UINT8", "u1"), ("FP32", "<f4"), ("FP64", "<f8"), ("FP16", "<f2")]
)
def test_inference_in_bytes_is_numpys(server, runs, kind, dtype):
    images = random_bytes(2) if kind == "UINT8" else (random_bytes(2) // 16 / 16).astype(dtype)
    content = images.tobytes()
    tensor = {"name": "images", "datatype": kind, "shape": [2, 784]}
    tensor["parameters"] = {"binary_data_size": len(content)}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    answer = server.ask("POST", INFER, content=head + content, headers=headers)
    length = int(answer.headers["inference-header-content-length"])
    outputs = json.loads(answer.content[:length])["outputs"]
    assert [one["parameters"]["binary_data_size"] for one in outputs] == [80, 10]
    found = np.frombuffer(answer.content[length : length + 80], "<f4").reshape(2, 10)
    expected = runs["a"].probabilities(images / (255 if kind == "UINT8" else 1))
    assert_near(found, expected)
    labels = "".join(f"\1\0\0\0{k}" for k in expected.argmax(axis=1))
    assert answer.content[length + 80 :] == labels.encode()


@pytest.mark.parametrize("pixel", [np.nan, np.inf, -0.5, 1.5])
def test_wrong_numbers_in_bytes_are_refused(server, pixel):
    content = np.full(784, pixel, "<f4").tobytes()
    tensor = {"name": "images", "datatype": "FP32", "shape": [1, 784]}
    tensor["parameters"] = {"binary_data_size": len(content)}
    head = json.dumps({"inputs": [tensor]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    message = server.refusal(400, "POST", INFER, content=head + content, headers=headers)
    assert "pixels from 0 to 1" in message


def test_requests_at_a_time_share_batches_and_nothing_is_compiled(server, runs):
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if event == COMPILED else None
    )
    images = random_bytes(60)
    before = metric(server, "jaxnets_batch_images_count", model="a")
    answers = server.post_all(INFER, [inference(image[None]) for image in images])
    many = server.post(INFER, inference(images))
    expected = runs["a"].probabilities(images / 255)
    for found, row in zip(answers, expected, strict=True):
        assert_near(found.json()["outputs"][0]["data"], row)
    found = np.reshape(many["outputs"][0]["data"], (60, 10))
    assert_near(found, expected)
    assert not compiled
    # The 60 single ones came while the first was computed; 15 batches of four are the fewest.
    assert 15 + 15 <= metric(server, "jaxnets_batch_images_count", model="a") - before <= 60


def metric(server, name, **labels):
    text = server.ask("GET", "/metrics").text
    shown = ",".join(f'{key}="{value}"' for key, value in labels.items())
    found = re.search(rf"^{name}{{{re.escape(shown)}}} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0


# Pictures


def test_a_picture_is_answered_as_predict_answers_it(server, runs, tmp_path):
    page = np.full((90, 70), 250, np.uint8)
    page[20:70, 30:36] = 15
    (tmp_path / "one.png").write_bytes(png(page))
    predictors = [load_predictor(str(run.path)) for run in runs.values()]
    wanted = [predictor([tmp_path / "one.png"])[0] for predictor in predictors]
    kinds = [{"Content-Type": kind} for kind in ("image/png", CURLS_OWN)]
    answers = [
        server.ask("POST", "/compare?top=10", content=png(page), headers=headers)
        for headers in (*kinds, {})
    ]
    form = server.ask("POST", "/compare?top=10", files={"one": ("one.png", png(page))})
    for answer in (*answers, form):
        for found, row, arm, name in zip(answer.json()["answers"], wanted, "AB", "ab", strict=True):
            assert (found["model"], found["version"], found["arm"]) == (name, "1", arm)
            (picture,) = found["pictures"]
            order = np.argsort(-row, kind="stable")
            assert [one["label"] for one in picture["predictions"]] == [str(k) for k in order]
            probabilities = [one["probability"] for one in picture["predictions"]]
            assert_near(probabilities, row[order])


@pytest.mark.parametrize("largest", [255, 1])
def test_pixels_in_json_are_the_networks_own(server, runs, largest):
    images = random_bytes(2)[..., 0]
    pixels = images if largest == 255 else (images / 255)
    values = {"images": pixels.tolist(), "max": largest}
    answer = server.post("/compare?top=1", values)
    headers, content = {"Content-Type": CURLS_OWN}, b"\n " + json.dumps(values).encode()
    unsaid = server.ask("POST", "/compare?top=1", content=content, headers=headers).json()
    answers = answer["answers"] + unsaid["answers"]
    for found, run in zip(answers, [*runs.values()] * 2, strict=True):
        best = [picture["predictions"][0] for picture in found["pictures"]]
        expected = run.probabilities(images / 255)
        assert [one["label"] for one in best] == [str(k) for k in expected.argmax(axis=1)]
        assert_near([one["probability"] for one in best], expected.max(axis=1))


def test_bytes_become_the_floats_of_the_training():
    values = protocol.to_numbers([[*range(256)]])
    images = protocol.checked_images("image", values, (16, 16, 1), 255)
    np.testing.assert_array_equal(images.ravel(), to_float(np.arange(256, dtype=np.uint8)))


# Who is answered by which model, and feedback


def blank():
    return {"image": [0] * 784}


def test_a_user_keeps_one_model_and_the_split_holds(server):
    for key in ("ann", "bob", "käthe"):
        headers = {"X-User": key.encode()}
        arms = {server.post("/predict", blank(), headers=headers)["arm"] for _ in range(3)}
        assert len(arms) == 1
    keys = [f"user {number}" for number in range(4000)]
    for share in (0.5, 0.9, 0, 1):
        first, again = Assignment(("a", "b"), share), Assignment(("a", "b"), share)
        other = Assignment(("a", "c"), share)
        arms = np.array([first.arm(first.user(key)) for key in keys])
        assert (arms == [again.arm(again.user(key)) for key in keys]).all()
        # Within five standard errors; the hashes, and so the numbers, are always the same.
        assert abs((arms == 0).mean() - share) <= 5 * (share * (1 - share) / 4000) ** 0.5
        if share == 0.5:  # Another experiment divides the users anew.
            agree = np.mean(arms == [other.arm(other.user(key)) for key in keys])
            assert abs(agree - 0.5) < 5 * 0.5 / 4000**0.5
    assert Assignment(("a",), 0).arm("0" * 32) == 0


def test_feedback_is_saved_once_with_all_that_the_test_needs(server, runs):
    log = server.service.log.place
    before = len(read(log))
    answers = server.post("/compare", {"image": random_bytes(1)[0, ..., 0].tolist()})["answers"]
    a, b = (found["pictures"][0] for found in answers)
    best = [picture["predictions"][0]["label"] for picture in (a, b)]
    expected = [run.probabilities(random_bytes(1) / 255).argmax() for run in runs.values()]
    assert best == [str(k) for k in expected]
    assert server.post("/feedback", {"answer": a["answer"], "correct": True}) == {"saved": True}
    assert server.post("/feedback", {"answer": a["answer"], "label": best[0]}) == {"saved": True}
    again = {"answer": a["answer"], "correct": False}
    assert "different feedback" in server.refusal(409, "POST", "/feedback", json=again)
    wrong = next(name for name in NAMES if name != best[1])
    server.post("/feedback", {"answer": b["answer"], "label": wrong})
    first, second = read(log)[before:]
    assert (first.model, first.version, first.arm, first.prediction) == ("a", "1", "A", best[0])
    assert (first.label, first.correct) == (best[0], True)
    assert (second.model, second.arm, second.label, second.correct) == ("b", "B", wrong, False)
    assert first.request == second.request and first.user == second.user
    assert metric(server, "jaxnets_feedback_total", arm="A", correct="true") >= 1
    for route, status in (("feedback", 200), ("feedback", 409), ("compare", 200)):
        assert metric(server, "jaxnets_requests_total", route=route, status=status) >= 1


def test_only_the_servers_own_answers_are_taken():
    ticket = Ticket("r", "u", "m", "1", "A", "7")
    text = sign(b"key", ticket)
    assert verify(b"key", text) == ticket
    changed = text[:-6] + ("A" if text[-6] != "A" else "B") + text[-5:]
    for other in (changed, "", "A" * 64, "é", text * 100):
        with pytest.raises(HTTPException, match="expected the text of an answer"):
            verify(b"key", other)
    with pytest.raises(HTTPException):
        verify(b"other", text)


# New versions


@pytest.fixture
def looking(monkeypatch):
    """Lets a server look for new checkpoints a hundred times a second."""
    monkeypatch.setattr(models, "LOOK_EVERY", 0.01)


def wait_for(server, version):
    """Asks until a version answers: no request may fail meanwhile."""
    image, end = random_bytes(1), time.monotonic() + HANGS
    while True:
        assert time.monotonic() < end, version
        answer = server.post(INFER, inference(image))
        if answer["model_version"] == version:
            return np.array(answer["outputs"][0]["data"]), image / 255


@contextlib.contextmanager
def requests(server):
    """Asks one request after another meanwhile; the list gets the refused ones' texts."""
    done, failed = threading.Event(), []

    def ask():
        while not done.is_set():
            answer = server.ask("POST", INFER, json=inference(random_bytes(3)))
            failed.extend([answer.text] * (answer.status_code != 200))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield failed
    finally:
        done.set()
        asking.join()


def test_a_new_checkpoint_takes_over_without_a_lost_request(tmp_path, looking, monkeypatch, capfd):
    reports = []  # Stderr is read once, at the end: capfd loses what is written while it reads.
    report = service.log_line

    def noted(text, *values):
        reports.append(text.format(*values))
        report(text, *values)

    monkeypatch.setattr(service, "log_line", noted)
    run = SoftmaxRun(tmp_path / "a", step=1)
    with run.folder, Served([run.path], tmp_path / "log") as server, requests(server) as failed:
        compiled = server.service.models[0].version.compiled
        run.save(2, seed=5)
        found, images = wait_for(server, "2")
        assert_near(found, run.probabilities(images)[0])
        assert server.service.models[0].version.compiled is compiled  # Nothing new to compile.
        earlier = server.post("/v2/models/a/versions/1/infer", inference(random_bytes(1)))
        assert earlier["model_version"] == "1"  # A client may have asked for it.
        assert server.get("/v2/models/a")["versions"] == ["1", "2"]

        (run.path / "checkpoints" / "3.safetensors").write_bytes(b"damaged")  # 2 is still there.
        run.save(4, seed=6)
        wait_for(server, "4")
        run.folder.close()
        replaced = SoftmaxRun(tmp_path / "a", seed=7, step=4)  # As many steps, other numbers.
        found, images = wait_for(server, "4.2")
        assert_near(found, replaced.probabilities(images)[0])
        replaced.folder.close()

        SoftmaxRun(tmp_path / "a", seed=8, step=9, names=tuple("abcdefghij")).folder.close()
        end = time.monotonic() + HANGS
        while not any("still serving 4.2: expected the classes" in line for line in reports):
            assert time.monotonic() < end, reports
            wait_for(server, "4.2")
    assert not failed
    shown = capfd.readouterr().err
    assert all(one_line(line) in shown for line in reports)


# What is refused


def tensor(**changes):
    values = {"name": "images", "datatype": "UINT8", "shape": [1, 784], "data": [0] * 784}
    return {"inputs": [{**values, **changes}]}


@pytest.mark.parametrize(
    ("status", "path", "values", "complaint"),
    [
        (422, INFER, {}, "inputs: expected, but missing"),
        (422, INFER, tensor(name="x"), "inputs.0.name: expected 'images', got 'x'"),
        (422, INFER, tensor(shape=[True, 784]), "shape.0: expected a valid integer, got True"),
        (422, INFER, tensor(shape=[-1, -784]), "shape.0: expected greater than or equal to 1, got"),
        (422, INFER, tensor(data=["x"] * 784), "data: expected a list of numbers"),
        (422, INFER, tensor(data=[[0] * 783, [0]]), "lists of one length"),
        (422, INFER, tensor(data=[10**400] * 784), "data: expected a list of numbers"),
        (422, INFER, tensor(data={}), "data: expected a list of numbers"),
        (422, INFER, tensor(data=["255"] * 784), "data: expected a list of numbers"),
        (422, INFER, tensor(data=[[0] * 783 + [True]]), "data: expected a list of numbers"),
        (400, INFER, tensor(data=[]), "data: expected 784 numbers, got 0"),
        (400, INFER, tensor(shape=[10**30, 784]), "numbers, got 784"),
        (400, INFER, tensor(shape=[784]), "images: expected the shape [N, 28, 28, 1] or [N, 784]"),
        (400, INFER, tensor(data=[256] + [0] * 783), "pixels from 0 to 255"),
        (400, INFER, tensor(data=[-1] + [0] * 783), "pixels from 0 to 255"),
        (400, INFER, tensor(data=[1.5] * 784, datatype="FP32"), "pixels from 0 to 1"),
        (400, INFER, tensor(parameters={"binary_data_size": 784}), "either data or"),
        (422, "/predict", {}, "expected image or images"),
        (422, "/predict", {"image": [0] * 784, "images": []}, "expected image or images"),
        (422, "/predict", {"image": [0] * 784, "max": 2}, "max: expected 1 or 255, got 2"),
        (400, "/predict", {"image": [0] * 783}, "expected the shape"),
        (400, "/predict", {"images": [[0] * 784] * 1025}, "expected 1 to 1,024 images, got 1,025"),
        (422, "/predict?top=0", {"image": [0] * 784}, "top: expected greater than or equal to 1"),
        (422, "/feedback", {"correct": True}, "answer: expected, but missing"),
        (422, "/feedback", {"answer": "x", "correct": 1}, "correct: expected a valid bool"),
        (400, "/feedback", {"answer": "x", "correct": True}, "expected the text of an answer"),
    ],
)  # fmt: skip
def test_wrong_values_are_refused_in_one_line(server, status, path, values, complaint):
    assert complaint in server.refusal(status, "POST", path, json=values)


@pytest.mark.parametrize(
    ("status", "content", "complaint"),
    [
        (422, b"", "body: expected, but missing"),
        (422, b"{", "JSON: Expecting"),
        (422, b"[]", "body: expected a valid dictionary"),
        (400, b'{"image": ' + b"[" * 200_000, "There was an error parsing the body"),
        (400, b'{"image": [' + b"9" * 5000 + b"]}", "There was an error parsing the body"),
        (400, b'{"image": [' + b"1e999," * 783 + b"0]}", "pixels from 0 to 255"),
        (400, b'{"image": [' + b"NaN," * 783 + b"0]}", "pixels from 0 to 255"),
    ],
)
def test_wrong_json_is_refused_in_one_line(server, status, content, complaint):
    headers = {"Content-Type": "application/json"}
    message = server.refusal(status, "POST", "/predict", content=content, headers=headers)
    assert complaint in message


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"GIF89a", "picture:"),
        (png(random_bytes(1)[0, ..., 0])[:-40], "picture:"),
        (png(np.full((90, 70), 250, np.uint8)), "picture:"),  # There is no ink.
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\1\0\0\0\1\0\0\1\0\0\0\0", "picture:"),
    ],
)
def test_what_is_no_picture_is_refused_in_one_line(server, content, complaint):
    headers = {"Content-Type": "application/octet-stream"}
    assert complaint in server.refusal(400, "POST", "/predict", content=content, headers=headers)
    form = server.refusal(400, "POST", "/predict", files={"x": ("picture", content)})
    assert complaint in form


def test_a_request_of_the_wrong_kind_is_refused(server):
    refusal = server.refusal
    assert "expected a, b" in refusal(404, "GET", "/v2/models/<script>/ready")
    for path in ("/v2/models/a/versions/2", "/v2/models/a?version=2"):
        assert "expected version 1" in refusal(404, "GET", path)
    for path in ("/x", "/x.js", "/%2e%2e/%2e%2e/etc/passwd", "/a%00b"):
        assert refusal(404, "GET", path) == "expected a path of /openapi.json"
    assert "expected a method" in refusal(405, "GET", "/predict")
    assert "body: expected a valid dictionary" in refusal(
        422, "POST", "/feedback", content=b'{"answer": "x"}', headers={"Content-Type": "text/plain"}
    )
    assert "expected files" in refusal(400, "POST", "/predict", files={"x": (None, "text")})
    many = [("x", ("x.png", b""))] * 65
    assert "Too many files" in refusal(400, "POST", "/predict", files=many)
    for status, length in ((422, "x"), (422, "-1"), (422, "0")):
        headers = {"Inference-Header-Content-Length": length}
        refusal(status, "POST", INFER, content=b"{}", headers=headers)
    key = {"X-User": "x" * 257}
    assert "x-user: String should have" in refusal(
        422, "POST", "/predict", json=blank(), headers=key
    )


@pytest.mark.parametrize(
    "content", [b"--y\r\n", b"--x\r\nno header\r\n\r\n", b"--x--\r\nmore", b""]
)
def test_a_damaged_form_is_refused(server, content):
    for kind in ("multipart/form-data", "multipart/form-data; boundary=x"):
        headers = {"Content-Type": kind}
        answer = server.ask("POST", "/predict", content=content, headers=headers)
        assert answer.status_code in (400, 422) and list(answer.json()) == ["error"]


@pytest.mark.parametrize("charset", ["undefined", "punycode", "hex", "no_such", "utf-8"])
def test_a_forms_charset_may_be_any_of_pythons_codecs(server, charset):
    """Some of them refuse every name, or this one; without its name the picture is read."""
    disposition = 'Content-Disposition: form-data; name="a"; filename="x"'
    content = f"--B\r\n{disposition}\r\n\r\nno picture\r\n--B--\r\n"
    headers = {"Content-Type": f"multipart/form-data; boundary=B; charset={charset}"}
    told = server.refusal(400, "POST", "/predict", content=content, headers=headers)
    refused, read = "form: expected names in its charset", "x: "
    expected = {"undefined": refused, "punycode": (refused, read)}  # Python 3.13 decodes this one.
    assert told.startswith(expected.get(charset, read))


def test_a_body_over_the_limit_is_refused(server):
    async def parts():  # Of a length that is not declared.
        for _ in range(17):
            yield bytes(1 << 20)

    headers = {"Content-Type": "image/png"}
    for content in (bytes(app.MAX_BODY + 1), parts()):
        message = server.refusal(413, "POST", "/predict", content=content, headers=headers)
        assert message == "expected at most 16,777,216 bytes"
    server.post("/predict", blank())


def test_too_many_images_at_a_time_are_put_off(server, monkeypatch):
    monkeypatch.setattr(server.service.models[0].version.images, "most", 3)
    assert "try again" in server.refusal(503, "POST", INFER, json=inference(random_bytes(4)))
    server.post(INFER, inference(random_bytes(3)))


def test_another_host_than_this_machine_is_refused(runs, tmp_path):
    hosts = frozenset({"localhost", "[::1]"})
    with Served([runs["a"].path], tmp_path / "log", hosts=hosts) as server:
        assert server.get("/v2/health/live")
        for host in ("localhost:8000", "[::1]:8000", "LOCALHOST"):
            assert server.ask("GET", "/v2", headers={"Host": host}).status_code == 200
        evil = ("evil.example", "evil.example:8000", "localhost.evil.example", "[::2]", "")
        for host in (*evil, "[::1]evil.example", "[::1]:80.evil.example", "localhost:evil.example"):
            assert server.ask("GET", "/v2", headers={"Host": host}).status_code == 400, host


def test_a_fault_is_one_line_here_and_a_500_there(server, monkeypatch, capfd):
    def broken(*_):
        raise ZeroDivisionError("secret\nof the server")

    monkeypatch.setattr(server.service, "find", broken)
    assert server.refusal(500, "POST", INFER, json=tensor()) == "the server has a fault"
    error = "error: POST /v2/models/a/infer: ZeroDivisionError: secret of the server\n"
    assert capfd.readouterr().err == error


# The page, the description


def test_the_page_forbids_inline_programs_and_has_none(server):
    answer = server.ask("GET", "/")
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self';" in policy and "unsafe" not in policy
    assert "set-cookie" not in answer.headers
    html = answer.text
    assert '<section id="answers" hidden>' in html
    assert not re.search(r"<script(?! src=)|<style|\son\w+=|\sstyle=|javascript:", html)
    linked = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert "answers.js" in linked and "run.js" in linked
    for name in set(linked) - {"data:,"}:
        assert server.ask("GET", f"/{name}").status_code == 200, name


@pytest.mark.parametrize(("side", "is_plain"), [(64, False), (100, True)])
def test_pictures_in_colour_have_the_page_or_the_plain_one(side, is_plain, tmp_path):
    run = SoftmaxRun(tmp_path / "run", names=("cat", "<b>", "c"), shape=(side, side, 3))
    with run.folder, Served([run.path], tmp_path / "log") as server:
        html = server.ask("GET", "/").text
        assert '<section id="answers" hidden>' in html and "<b>" not in html
        assert ('id="paper"' not in html) == is_plain
        linked = set(re.findall(r'(?:src|href)="([\w.]+)"', html))
        assert linked >= {"answers.js", "answers.css", "page.css", "run.js", "texts.js"}
        for name in linked:
            answer = server.ask("GET", f"/{name}")
            assert answer.status_code == 200, name
            assert "unsafe" not in answer.headers["content-security-policy"]


def test_a_plain_page_shows_names_as_text(tmp_path):
    names = ("<script>alert(1)</script>", "b\u202e", "\ud800")
    run = SoftmaxRun(tmp_path / "<b>x", names=names)
    with run.folder, Served([run.path], tmp_path / "log") as server:
        assert server.service.models[0].name == "-b-x"
        answer = server.ask("GET", "/")
        assert "<script>alert" not in answer.text
        found = server.ask("POST", "/predict", json=blank())
        assert found.headers["content-type"] == "application/json"
        labels = [one["label"] for one in found.json()["pictures"][0]["predictions"]]
        shown = [names[0], "b\\u202e", "\\ud800"]  # As a terminal may show them, too.
        assert sorted(labels) == sorted(shown)
        token = found.json()["pictures"][0]["answer"]
        outputs = server.post("/v2/models/-b-x/infer", tensor())["outputs"]
        assert outputs[1]["data"][0] == labels[0]
        server.post("/feedback", {"answer": token, "correct": True})
        for name in shown:
            pixels = random_bytes(1, len(name)).ravel().tolist()
            found = server.post("/predict", {"image": pixels})["pictures"][0]["answer"]
            assert server.post("/feedback", {"answer": found, "label": name}) == {"saved": True}
        log: Any = server.service.log
        assert {row.label for row in read(log.place)} >= set(shown)


def test_the_description_has_every_route(server):
    described = server.get("/openapi.json")
    assert described["openapi"].startswith("3.1")
    found = {(path, method) for path, item in described["paths"].items() for method in item}
    read = {"/", "/metrics", "/v2", "/v2/health/live", "/v2/health/ready"}
    for path in read:
        assert server.ask("GET", path).status_code == 200
    of_model = {("", "get"), ("/ready", "get"), ("/infer", "post")}
    assert found == {
        *((path, "get") for path in read),
        *((path, "post") for path in ("/predict", "/compare", "/feedback")),
        *((f"/v2/models/{{name}}{end}", method) for end, method in of_model),
        *((f"/v2/models/{{name}}/versions/{{version}}{end}", method) for end, method in of_model),
    }
    for name in ("Pixels", "Feedback", "Inference", "Answer", "Inferred", "Error"):
        assert described["components"]["schemas"][name]["properties"]
    for status in ("200", "4XX", "503"):
        operation = described["paths"]["/predict"]["post"]
        assert operation["responses"][status]["content"]["application/json"]["schema"]


# The command


def test_a_log_that_cannot_be_written_is_refused(run_command, runs, tmp_path):
    flags = ["--port=0", f"--feedback={tmp_path / 'nowhere' / 'log'}"]
    run_command("serve", runs["a"].path, *flags).assert_refused("feedback: cannot write to")
    with sqlite3.connect(tmp_path / "log") as foreign:
        foreign.execute("create table setting (name text primary key, value)")
        foreign.execute("insert into setting values ('key', 'a text')")
    foreign.close()
    flags = ["--port=0", f"--feedback={tmp_path / 'log'}"]
    run_command("serve", runs["a"].path, *flags).assert_refused("its key is not 32 bytes")


def test_two_runs_of_other_classes_are_refused(run_command, runs, tmp_path):
    other = SoftmaxRun(tmp_path / "other", names=tuple("abc"))
    other.folder.close()
    flags = ["--port=0", f"--feedback={tmp_path / 'log'}"]
    outcome = run_command("serve", runs["a"].path, other.path, *flags)
    outcome.assert_refused("expected two runs on the same images and classes")
    assert not (tmp_path / "log").exists()


def test_the_extra_is_named_where_it_is_missing(run_command, runs, monkeypatch):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *_: None if name == "uvicorn" else found(name)
    )
    outcome = run_command("serve", runs["a"].path)
    outcome.assert_refused("uvicorn is not installed", "pip install 'jaxnets[serve]'")
