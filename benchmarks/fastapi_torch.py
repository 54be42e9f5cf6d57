"""A plain server of the CNN in FastAPI and PyTorch, which benchmarks/serve.py asks beside ours.

    python benchmarks/fastapi_torch.py RUN PORT

It is what their tutorials show: an endpoint, pydantic for JSON, one forward pass an image, on
uvicorn with uvloop and httptools. /tensor takes the bytes of the Open Inference Protocol and skips
the JSON before them.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
import uvicorn
from fastapi import FastAPI, Request
from pydantic import BaseModel
from safetensors.numpy import load_file

nn = torch.nn


def load(run: str) -> Any:
    """The network of a run's last checkpoint, in PyTorch's layout."""
    path = max(Path(run, "checkpoints").iterdir(), key=lambda path: int(path.stem))
    params = {n.removeprefix("params/"): x for n, x in load_file(path).items() if "params/" in n}

    def layer(made, name, kernel):
        made.weight.data = torch.from_numpy(np.ascontiguousarray(kernel))
        made.bias.data = torch.from_numpy(params[f"{name}/bias"])
        return made

    def convolution(name):
        kernel = params[f"{name}/kernel"].transpose(3, 2, 0, 1)
        return layer(nn.Conv2d(kernel.shape[1], kernel.shape[0], 3), name, kernel)

    channels, units = params["conv2/kernel"].shape[3], params["hidden/kernel"].shape[1]
    side = round((params["hidden/kernel"].shape[0] / channels) ** 0.5)
    hidden = params["hidden/kernel"].reshape(side, side, channels, units)
    hidden = hidden.transpose(3, 2, 0, 1).reshape(units, -1)
    logits = params["logits/kernel"].T
    return nn.Sequential(
        convolution("conv1"),
        nn.ReLU(),
        nn.MaxPool2d(2),
        convolution("conv2"),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        layer(nn.Linear(hidden.shape[1], units), "hidden", hidden),
        nn.ReLU(),
        layer(nn.Linear(units, len(logits)), "logits", logits),
    ).eval()


class Image(BaseModel):
    """A request in JSON."""

    image: list[float]


def create_app(network: Any) -> FastAPI:
    """The server's application."""
    app = FastAPI()

    def answer(image):
        with torch.inference_mode():
            probabilities = torch.softmax(network(image.reshape(1, 1, 28, 28) / 255), 1)[0]
        return {"label": str(int(probabilities.argmax())), "probabilities": probabilities.tolist()}

    @app.post("/predict")
    async def predict(image: Image):
        return answer(torch.tensor(image.image))

    @app.post("/tensor")
    async def tensor(request: Request):
        body = await request.body()
        skipped = int(request.headers["inference-header-content-length"])
        return answer(torch.frombuffer(bytearray(body[skipped:]), dtype=torch.uint8))

    return app


if __name__ == "__main__":
    torch.set_num_threads(1)  # Two threads wait for each other, a hundred times as long.
    app = create_app(load(sys.argv[1]))
    uvicorn.run(app, port=int(sys.argv[2]), log_level="error", access_log=False)
