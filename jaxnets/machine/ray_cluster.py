"""Joins a Ray cluster, which trains the cells of a search and holds the replicas of a server."""

import importlib
import logging
import os
import secrets
import warnings
from typing import Any

from jaxnets.base.errors import UserError, first_line, not_installed


def join_ray(cluster: str, num_cpus: int | None = None) -> Any:
    """Joins a cluster, or starts one on this machine; returns the module `ray`.

    Args:
      cluster: "local" for a new cluster on this machine, or the address of one.
      num_cpus: The number of tasks that a new cluster runs at a time; None for the machine's cores.

    Raises:
      UserError: Ray is not installed, or the cluster cannot be joined.
    """
    # Ray would look for the `uv run` that started us, and report its use to its makers.
    os.environ |= {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    own: dict[str, Any] = {}
    if cluster == "local":
        own = dict(include_dashboard=False, num_cpus=num_cpus)
        # Ray listens at every address, and runs what it is sent: only with a token.
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    try:
        ray: Any = importlib.import_module("ray")
    except ModuleNotFoundError:
        raise not_installed("ray", "ray") from None
    try:
        with warnings.catch_warnings():
            # JAX warns of forks; these are replaced by Ray's programs at once.
            warnings.simplefilter("ignore", RuntimeWarning)
            ray.init(cluster, log_to_driver=False, logging_level=logging.ERROR, **own)
    except Exception as error:  # Ray's start raises a plain one.
        raise UserError("ray: no cluster at {}: {}", cluster, first_line(error)) from None
    return ray
