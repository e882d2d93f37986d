"""HTTP servers of the app and the mock service: a listening socket, its URL, and uvicorn with deadlines."""

import asyncio
import os
import socket
from asyncio import constants
from collections.abc import Callable
from typing import Any, ClassVar

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from visor.core.errors import UserError

HEADER_SECONDS, BODY_SECONDS = 5.0, 300.0


class DeadlineProtocol(H11Protocol):
    """HTTP/1.1 that drops a client whose headers or body do not arrive in time: uvicorn waits for them for ever.

    What the client owes is its state in h11: ``IDLE`` until its headers are complete, ``SEND_BODY`` until its body is.
    """

    seconds: ClassVar[dict[Any, float]] = {h11.IDLE: HEADER_SECONDS, h11.SEND_BODY: BODY_SECONDS}
    _owed: Any = None
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin with the deadline of the first headers."""
        super().connection_made(transport)
        self._restart(self.conn.their_state)

    def data_received(self, data: bytes) -> None:
        """Begin with the next deadline as soon as the client has met the last one."""
        super().data_received(data)
        is_web_socket = self.transport.get_protocol() is not self  # it has pings, and this protocol hears no more
        self._restart(None if is_web_socket else self.conn.their_state)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the deadline."""
        super().connection_lost(exc)
        self._restart(None)

    def _restart(self, owed: Any) -> None:
        if owed is self._owed:
            return
        if self._deadline:
            self._deadline.cancel()
        self._owed, seconds = owed, self.seconds.get(owed)
        self._deadline = self.loop.call_later(seconds, self.transport.abort) if seconds else None


DEFAULTS: dict[str, Any] = {
    "http": DeadlineProtocol,
    "loop": "asyncio",
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
    constants.SSL_HANDSHAKE_TIMEOUT = HEADER_SECONDS  # uvicorn has no option for it
    return uvicorn.Server(uvicorn.Config(app, **DEFAULTS | options))


def serve(app: Callable[..., Any], listener: socket.socket, **options: Any) -> None:
    """Serve an ASGI application on a socket until SIGINT or SIGTERM; ``options`` as in ``create_server``."""
    create_server(app, **options).run(sockets=[listener])
