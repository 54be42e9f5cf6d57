"""`jaxnets serve`."""

import importlib.util
from typing import Annotated

from jaxnets.base.errors import UserError, not_installed
from jaxnets.config.command import Flag, command
from jaxnets.predict.commands import Engine
from jaxnets.runs.commands import RUN, OwnLayers, check_runs
from jaxnets.server.settings import HALVES, Serving


@command
def serve(
    runs: Annotated[
        tuple[str, ...],
        Flag(help=f"{RUN}; a second one is model B of an A/B test", metavar="RUN [RUN_B]"),
    ],
    *,
    serving: Serving,
    engine: Engine = "jax",
    layers: OwnLayers = (),
    json: bool = False,
) -> int:
    """Classify pictures over HTTP with one run, or two in an A/B test.

    Args:
      json: print JSON: the address, the models, the log
    """
    if len(runs) > 2:
        raise UserError("expected one run or two, got {}", len(runs))
    if len(runs) == 1 and serving.split != HALVES:
        raise UserError("split: expected two runs with it, got one")
    check_runs(*runs, layers=layers)
    for name in ("fastapi", "uvicorn", "prometheus_client", "python_multipart", "sqlalchemy"):
        if importlib.util.find_spec(name) is None:
            raise not_installed(name, "serve")

    from jaxnets.server.start import serve

    return serve(runs, serving, engine=engine, layers=layers, as_json=json)
