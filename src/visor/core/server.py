"""HTTP servers of the app and the mock service: a listening socket, its URL, and uvicorn."""

import os
import socket
from collections.abc import Callable
from typing import Any

import uvicorn

from visor.core.errors import UserError

DEFAULTS: dict[str, Any] = {
    "http": "h11",
    "ws": "none",
    "lifespan": "off",
    "log_config": None,  # warnings go to stderr
    "log_level": "warning",
    "access_log": False,
    "server_header": False,
    "timeout_keep_alive": 30,
    "timeout_graceful_shutdown": 5,
}


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 picks a free one.

    Raises:
        UserError: The address is in use or does not belong to this machine.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        number = getattr(error, "errno", None) or 0  # negative numbers come from the resolver
        reason = os.strerror(number) if number > 0 else "no such address"
        raise UserError(f"cannot listen on {host}:{port} ({reason}); choose another --port or --host") from None


def url(listener: socket.socket, tls: bool = False) -> str:
    """Return the URL of a listening socket; with TLS, 127.0.0.1 is ``localhost``, as certificates are for names."""
    host, port = listener.getsockname()[:2]
    host = "localhost" if tls and host == "127.0.0.1" else f"[{host}]" if ":" in host else host
    return f"{'https' if tls else 'http'}://{host}:{port}"


def create_server(app: Callable[..., Any], **options: Any) -> uvicorn.Server:
    """Return a server of an ASGI application; ``options`` of ``uvicorn.Config`` replace those of ``DEFAULTS``."""
    return uvicorn.Server(uvicorn.Config(app, **DEFAULTS | options))


def serve(app: Callable[..., Any], listener: socket.socket, **options: Any) -> None:
    """Serve an ASGI application on a socket until SIGINT or SIGTERM; ``options`` as in ``create_server``."""
    create_server(app, **options).run(sockets=[listener])
