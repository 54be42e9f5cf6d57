"""`jaxnets serve`."""

import importlib.util
from typing import Annotated

from jaxnets.base.errors import UserError, not_installed
from jaxnets.config.command import Flag, command
from jaxnets.config.fields import COUNT
from jaxnets.predict.commands import Engine
from jaxnets.runs.commands import RUN, OwnLayers, check_runs

HALVES = "50/50"


@command
def serve(
    runs: Annotated[
        tuple[str, ...],
        Flag(help=f"{RUN}; a second one is model B of an A/B test", metavar="RUN [RUN_B]"),
    ],
    *,
    split: Annotated[str, Flag(metavar="A/B")] = HALVES,
    host: Annotated[str, Flag(metavar="HOST")] = "127.0.0.1",
    port: Annotated[int, Flag((0, 65535))] = 8000,
    feedback: Annotated[
        str | None, Flag(metavar="FILE|URL", unset="feedback-RUN.sqlite next to the run")
    ] = None,
    ray: Annotated[
        str | None, Flag(metavar="local|ADDRESS", unset="one process, without Ray")
    ] = None,
    replicas: Annotated[int, Flag(COUNT)] = 1,
    engine: Engine = "jax",
    layers: OwnLayers = (),
    json: bool = False,
) -> int:
    """Classify pictures over HTTP with one run, or two in an A/B test.

    Args:
      split: percentages of users for A and B
      host: address to listen at; 0.0.0.0 is every address
      port: port to listen at; 0 takes a free one
      feedback: SQLite file to which the feedback is appended, or postgresql://USER@HOST/DATABASE
      ray: Ray cluster that serves in several processes: local starts one here, an address joins one
      replicas: with --ray: number of processes, each on one core
      json: print JSON: the address, the models, the log
    """
    if replicas > 1 and ray is None:
        raise UserError("replicas: expected --ray=local or --ray=ADDRESS with it")
    if len(runs) > 2:
        raise UserError("expected one run or two, got {}", len(runs))
    if len(runs) == 1 and split != HALVES:
        raise UserError("split: expected two runs with it, got one")
    share_b = share_of_b(split)
    check_runs(*runs, layers=layers)
    for name in ("fastapi", "uvicorn", "prometheus_client", "python_multipart", "sqlalchemy"):
        if importlib.util.find_spec(name) is None:
            raise not_installed(name, "serve")

    from jaxnets.server.start import serve

    return serve(
        runs,
        share=1 - share_b,
        host=host,
        port=port,
        feedback=feedback,
        as_json=json,
        cluster=ray,
        replicas=replicas,
        engine=engine,
        layers=layers,
    )


def share_of_b(split: str) -> float:
    """The share of the users who get B, from a text such as "50/50"."""
    parts = split.split("/")
    try:
        a, b = map(float, parts)
        if min(a, b) > 0 and a + b < float("inf"):
            return b / (a + b)
    except ValueError:
        pass
    raise UserError("split: expected two percentages such as 50/50, got {}", repr(split))
