"""The server in several processes, its replicas, under Ray Serve: on this machine or on a cluster.

Each replica is the whole application of `app.py` with its own models. They share only the log: its
key signs their answers, and a hash determines a user's model, so any replica takes any request.
"""

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI

from jaxnets.base.errors import BY_SIGNAL, UserError, first_line, not_installed
from jaxnets.machine.ray_cluster import join_ray
from jaxnets.server.service import log_line

NAME = "jaxnets"  # The name of the application in the cluster, and of its one deployment.
AT_A_TIME = 256  # Requests that a replica handles at a time: four of its largest batches.
GRACE = 20  # Seconds that requests may still take after the signal to stop.
WAITING = 4096  # Requests that may wait for a replica; Ray answers further ones with 503.


def exit_on_signals() -> None:
    """Lets Ctrl-C and SIGTERM raise SystemExit with the exit status."""

    def stop(number: int, frame: object) -> None:
        sys.exit(BY_SIGNAL + number)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)


def serve_replicas(
    make_app: Callable[[], FastAPI],
    replicas: int,
    cluster: str,
    address: tuple[str, int],
    one_machine: bool,
    on_start: Callable[[], None],
) -> int:
    """Serves an application in several processes until a signal comes; returns the exit status.

    Args:
      make_app: Makes the application, in each replica.
      replicas: Their number. Each computes on one core, and on one GPU if the cluster has some.
      cluster: "local" for a new cluster, or the address of one.
      address: The host and the port at which Ray's proxies listen.
      one_machine: Whether the replicas must be on one machine, because their log is a file there.
      on_start: Called when the replicas can answer.

    Raises:
      UserError: The cluster cannot be joined, or has no room for the replicas.
    """
    is_own = cluster == "local"
    if is_own:  # On a busy machine Ray would kill its proxy after 5 seconds, before it has run.
        os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")

    def make_on_one_core() -> FastAPI:
        os.environ["NPROC"] = "1"  # XLA heeds it when it starts.
        return make_app()

    stdout = sys.stdout
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))  # Ray's output about replicas.
        ray = join_ray(cluster, num_cpus=replicas if is_own else None)
        stack.callback(ray.shutdown)
        try:
            from ray import serve  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise not_installed("ray[serve]", "ray") from None
        logging.getLogger("ray.serve").setLevel("ERROR")
        resources = _resources(ray, replicas, one_machine)
        deployment = serve.deployment(
            serve.ingress(make_on_one_core)(),
            name=NAME,
            num_replicas=replicas,
            max_ongoing_requests=AT_A_TIME,
            max_queued_requests=WAITING,
            graceful_shutdown_timeout_s=GRACE,
            ray_actor_options={"num_cpus": 1, "num_gpus": int("GPU" in resources)},
        )
        try:
            serve.start(http_options=dict(zip(("host", "port"), address, strict=True)))
            serve.run(deployment.bind(), name=NAME, logging_config={"log_level": "ERROR"})
        except (RuntimeError, TimeoutError, ray.exceptions.RayError) as error:
            raise UserError("ray: the replicas do not start: {}", first_line(error)) from None

        def announce() -> None:
            with contextlib.redirect_stdout(stdout):
                on_start()

        status = _wait_for_a_signal(announce)
        serve.delete(NAME)
    log_line("stopped: what was accepted is answered and saved")
    return status


def _wait_for_a_signal(on_start: Callable[[], None]) -> Any:
    """Waits until Ctrl-C or SIGTERM comes; returns the exit status."""
    exit_on_signals()
    try:
        on_start()
        threading.Event().wait()
    except SystemExit as stopped:
        return stopped.code


def _resources(ray: Any, replicas: int, one_machine: bool) -> dict[str, float]:
    """The cluster's cores and GPUs; UserError if it has no room for the replicas."""
    machines = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    if one_machine and len(machines) > 1:
        raise UserError(
            "feedback: expected postgresql://... for a cluster of {} machines, got a "
            "file of this one",
            len(machines),
        )
    resources: dict[str, float] = ray.cluster_resources()
    if (cores := resources.get("CPU", 0)) < replicas:  # Ray would wait for more.
        raise UserError(
            "replicas: expected at most {}, the cluster's cores, got {}", f"{cores:g}", replicas
        )
    return resources
