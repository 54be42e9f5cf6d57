"""Starts the server: loads the runs, listens, answers until a signal comes."""

import asyncio
import contextlib
import functools
import ipaddress
import json
import logging
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from uvicorn import Config, Server

from jaxnets.base.display import short_path, show
from jaxnets.base.errors import DONE, UserError, first_line
from jaxnets.base.language import Text, _
from jaxnets.networks.own import know
from jaxnets.server import is_url
from jaxnets.server.app import create_app
from jaxnets.server.feedback import without_password
from jaxnets.server.models import SIZES, names_of
from jaxnets.server.replicas import GRACE, exit_on_signals, serve_replicas
from jaxnets.server.service import Service, log_line
from jaxnets.server.settings import Serving

BACKLOG = 1024  # Connections that the system accepts before this process does.
MAX_CONNECTIONS = 1000  # Further ones get a 503; many systems give a process 1,024 files.
KEEP_ALIVE = 60  # Seconds that a connection may be idle between two requests.


def serve(
    folders: Sequence[str],
    serving: Serving,
    *,
    engine: str = "jax",
    layers: Sequence[str] = (),
    as_json: bool = False,
) -> int:
    """Serves one or two runs until a signal comes; returns the exit status.

    Args:
      folders: The run folders, at most two.
      serving: Where to listen, with which users, log and processes.
      engine: What computes the networks, as in `load_predictor`.
      layers: The files that define the user's own layers, which a replica runs again.
      as_json: Whether the line that says where the server listens is JSON.

    Raises:
      UserError: A run cannot be served, the log cannot be written, or the address is not available.
    """
    listener, share = _listen(serving.host, serving.port), 1 - serving.share_of_b
    with contextlib.closing(listener):
        log = serving.feedback or str(default_log(folders))
        if shared := is_url(log):
            where = without_password(log)
        else:
            where = log = os.path.abspath(Path(log).expanduser())
        # If other processes serve, this one checks first whether they would fail.
        sizes = SIZES if serving.ray is None else SIZES[:1]
        service = Service(folders, share, log, sizes, engine)
        address = listener.getsockname()
        url = f"http://{f'[{address[0]}]' if ':' in address[0] else address[0]}:{address[1]}"
        is_loopback = ipaddress.ip_address(address[0].partition("%")[0]).is_loopback
        if not is_loopback:
            log_line(
                "warning: anyone who reaches {} may send pictures and feedback, and see training "
                "images: there is no login",
                address[0],
            )
        announce = functools.partial(_announce, service, url, where, as_json)
        names = {"localhost", "127.0.0.1", "[::1]", serving.host.lower()}
        hosts = frozenset(names) if is_loopback else None
        if serving.ray is None:
            return _run(create_app(service, hosts), listener, announce)
        asyncio.run(_close(service))
    runs = [os.path.abspath(folder) for folder in folders]

    def make_app() -> FastAPI:
        for file in layers:
            know(file)
        return create_app(Service(runs, share, log, engine=engine), hosts)

    return serve_replicas(
        make_app, serving.replicas, serving.ray, address[:2], not shared, announce
    )


def _announce(service: Service, url: str, feedback: str, as_json: bool) -> None:
    """Shows what is served, where, and where the feedback goes."""
    if as_json:
        models = [model.name for model in service.models]
        print(json.dumps({"url": url, "models": models, "feedback": feedback}), flush=True)
        return
    served = [_("{} version {}", m.name, m.version.name) for m in service.models]
    show(_("serving {} at {} (Ctrl-C stops)", _(" and ").join(served), url))
    show(_("feedback: {}", feedback if is_url(feedback) else short_path(feedback)))


async def _close(service: Service) -> None:
    async with service.running():
        pass


def default_log(folders: Sequence[str]) -> Path:
    """The file for the feedback of the runs: next to the folder of the first one."""
    name = "-".join(["feedback", *names_of(folders)])
    return Path(folders[0]).expanduser().resolve().parent / f"{name}.sqlite"


def _listen(host: str, port: int) -> socket.socket:
    """A socket at an address where no other process listens."""
    try:
        family, kind, protocol, _name, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise UserError("host: cannot listen at {}: {}", host, first_line(error)) from error
    try:
        # Windows would let another process share the port with the option that Unix needs.
        option = getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR)
        listener.setsockopt(socket.SOL_SOCKET, option, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        hint = Text("; --port=0 takes a free one") if port else ""
        raise UserError(
            "port: cannot listen at {}:{}: {}{}", host, port, first_line(error), hint
        ) from error
    return listener


def _run(app: FastAPI, listener: socket.socket, announce: Callable[[], None]) -> int:
    """Answers until a signal comes; returns the exit status."""
    config = Config(
        app,
        http="h11",  # It limits a request's head to 64 KiB.
        ws="none",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=GRACE,
    )
    exit_on_signals()  # uvicorn raises the stopping signal again when it has stopped.
    status: Any = DONE
    try:
        listener.listen(BACKLOG)
        logging.getLogger("python_multipart").setLevel("ERROR")  # The answer names the error.
        announce()
        Server(config).run(sockets=[listener])
    except SystemExit as stopped:
        status = stopped.code
    log_line("stopped: what was accepted is answered and saved")
    return status
