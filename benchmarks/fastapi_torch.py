"""A plain server of the CNN in FastAPI and PyTorch, with which benchmarks/serve.py compares ours.

    python -m benchmarks.fastapi_torch RUN PORT

It follows their tutorials: an endpoint, pydantic for JSON, one forward pass for each image, on
uvicorn with uvloop and httptools. /tensor takes the bytes of the Open Inference Protocol and skips
the JSON before them.
"""

import sys
from pathlib import Path
from typing import Any

import torch  # pyright: ignore[reportMissingImports]
import uvicorn
from fastapi import FastAPI, Request  # pyright: ignore[reportMissingImports]
from pydantic import BaseModel  # pyright: ignore[reportMissingImports]
from safetensors.numpy import load_file

from benchmarks.peers.networks import layers_of, network_of
from benchmarks.peers.pytorch import build, set_params


def load(run: str) -> Any:
    """The network of a run's last checkpoint, in PyTorch's layout."""
    path = max(Path(run, "checkpoints").iterdir(), key=lambda path: int(path.stem))
    arrays, network = load_file(path), network_of("cnn")
    params = {
        layer: {name: arrays[f"params/{layer}/{name}"] for name in ("kernel", "bias")}
        for layer, _, _ in layers_of(network)
    }
    model = build(network)
    set_params(model, params)
    return model.eval()


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
