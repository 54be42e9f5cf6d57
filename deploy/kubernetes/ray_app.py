"""The application that serve.yaml names: `jaxnets serve` as Ray Serve starts it by itself.

KubeRay wants a function rather than a command. deploy/Dockerfile brings this file into the image.
"""

from typing import Any

from fastapi import FastAPI
from ray import serve

from jaxnets.server.app import create_app
from jaxnets.server.service import Service


def build(given: dict[str, Any]) -> serve.Application:
    """The server of some runs; `given` are the args of serve.yaml, as `jaxnets serve` has them."""

    def make_app() -> FastAPI:  # In each replica.
        split = given.get("split", "50/50").split("/")
        share = float(split[0]) / sum(map(float, split))
        return create_app(Service(given["runs"], share, given["feedback"]))

    return serve.deployment(serve.ingress(make_app)(), name="jaxnets").bind()
