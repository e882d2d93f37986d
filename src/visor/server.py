"""Runs the range on a socket of its own until it is told to stop."""

import os
import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from visor.core.errors import UserError


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 takes a free one.

    Raises:
        UserError: the address is taken or is not this machine's.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        number = getattr(error, "errno", None) or 0  # below 0: of the resolver
        reason = os.strerror(number) if number > 0 else "no such address"
        raise UserError(f"{host}:{port} cannot be listened on ({reason}); choose another --port or --host") from None


def address(listener: socket.socket) -> str:
    """Return the URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(app: FastAPI, listener: socket.socket, started: Callable[[uvicorn.Server], None] | None = None) -> None:
    """Answer until SIGINT or SIGTERM, or until ``should_exit`` of the server that ``started`` is told of."""
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,  # warnings alone, to stderr
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    if started:
        started(server)
    server.run(sockets=[listener])
