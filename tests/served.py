"""Runs to serve, whose answers NumPy knows, and a server in this process."""

import asyncio
import contextlib
import io
import json
import signal
import threading

import httpx
import numpy as np
from conftest import HANGS
from itsdangerous import URLSafeSerializer
from PIL import Image

from jaxnets.config.resolve import preset
from jaxnets.data.datasets import Dataset, Split
from jaxnets.experiment import Experiment
from jaxnets.machine.platform import Processes
from jaxnets.runs.checkpoints import tree_of
from jaxnets.runs.run import Run, write_config
from jaxnets.runs.run_folder import RunFolder
from jaxnets.server.app import create_app
from jaxnets.server.service import Service
from jaxnets.training.step import Checkpoint

NAMES = tuple("0123456789")


class SoftmaxRun:
    """A run of softmax regression on digits, with drawn parameters, which NumPy computes too."""

    def __init__(self, path, seed=0, step=1, names=NAMES, shape=(28, 28, 1)):
        split = Split(np.zeros((4, *shape), np.uint8), np.array([0, 1, 2, 0], np.int32))
        data = Dataset("pictures", len(names), split, split, split, "none", names)
        experiment = Experiment.create(preset("softmax", batch_size=2, devices=1), data)
        self.path, self.folder = path, RunFolder.create(str(path), "softmax", overwrite=True)
        write_config(self.folder, experiment)
        self._classes = len(names)
        self._run = Run(experiment, self.folder, Processes(), Checkpoint(experiment.init_state()))
        self.save(step, seed)

    def save(self, step, seed):
        """Saves a checkpoint with other parameters."""
        rng, (tree,) = np.random.default_rng(seed), [tree_of(self._run.checkpoint, self._classes)]
        (name,) = tree["params"]
        shapes = {key: leaf.shape for key, leaf in tree["params"][name].items()}
        drawn = {key: rng.normal(0, 0.2, shape) for key, shape in shapes.items()}
        self.params = {key: values.astype(np.float32) for key, values in drawn.items()}
        self.folder.save(step, {**tree, "params": {name: self.params}})
        self.folder.wait()

    def probabilities(self, images):
        """The probabilities of images [N, ...] from 0 to 1, in float64."""
        rows = np.asarray(images, np.float64).reshape(len(images), -1)
        z = rows @ self.params["kernel"].astype(np.float64) + self.params["bias"]
        p = np.exp(z - z.max(axis=1, keepdims=True))
        return p / p.sum(axis=1, keepdims=True)


def random_bytes(count, seed=0):
    """Images [N, 28, 28, 1] of bytes."""
    return np.random.default_rng(seed).integers(0, 256, (count, 28, 28, 1), np.uint8)


def png(pixels):
    """A picture's file."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def inference(images, **more):
    """The JSON of a request of the Open Inference Protocol."""
    values = np.asarray(images)
    kind = "UINT8" if values.dtype == np.uint8 else "FP32"
    tensor = {"name": "images", "datatype": kind, "shape": list(values.shape)}
    return {"inputs": [{**tensor, "data": values.ravel().tolist()}], **more}


class Served:
    """A server without a socket: its application, in an event loop in a thread of its own."""

    def __init__(self, folders, log, share=0.5, sizes=(1, 4), hosts=None, engine="jax"):
        self.service = Service([str(folder) for folder in folders], share, log, sizes, engine)
        self.app = create_app(self.service, hosts)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self):
        self._thread.start()
        self._stack = contextlib.AsyncExitStack()
        self._client = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app, raise_app_exceptions=False),
            base_url="http://localhost",
        )
        self.run(self._stack.enter_async_context(self.service.running()))
        self.run(self._stack.enter_async_context(self._client))
        return self

    def __exit__(self, *_):
        self.run(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, coroutine):
        """What a coroutine returns in the server's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def ask(self, method, path, **request):
        """One answer."""
        return self.run(self._client.request(method, path, **request))

    def get(self, path):
        """A GET's JSON."""
        answer = self.ask("GET", path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path, values, **request):
        """A POST's JSON."""
        answer = self.ask("POST", path, json=values, **request)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post_all(self, path, requests):
        """The answers to requests at the same time."""

        async def together():
            return await asyncio.gather(*(self._client.post(path, json=r) for r in requests))

        return self.run(together())

    def refusal(self, status, method, path, **request):
        """The error's text, which must be one line of JSON."""
        answer = self.ask(method, path, **request)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/json"
        (message,) = json.loads(answer.content).values()
        assert message.isprintable() and len(message) <= 300
        return message


class ServerProcess:
    """A server as a process, and where it listens."""

    def __init__(self, start_python, runs, log, *flags):
        command = ["-m", "jaxnets", "serve", *(run.path for run in runs)]
        flags = ["--port=0", "--json", f"--feedback={log}", *flags]
        self.child = start_python(*command, *flags)
        self.log = log
        told = self.child.stdout.readline()
        assert told, self.child.communicate(timeout=HANGS)
        self.url = json.loads(told)["url"]
        self.address = "127.0.0.1", int(self.url.rpartition(":")[2])

    def stop(self, number=signal.SIGTERM):
        """Stops it by a signal; returns its exit status and stderr."""
        self.child.send_signal(number)
        _, err = self.child.communicate(timeout=HANGS)
        return self.child.returncode, err


def requests_of(tokens):
    """The requests that answers name; only this server's key proves them, which is not asked."""
    return [URLSafeSerializer("").loads_unsafe(token)[1][0] for token in tokens]
