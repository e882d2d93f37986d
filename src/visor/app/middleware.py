"""Stands before Streamlit's server: what it answers to, what browsers may keep, and how much may be sent."""

import asyncio
from collections.abc import Callable
from typing import Any

Scope = dict[str, Any]
Call = Callable[..., Any]

MAX_UPLOAD_BYTES = 1 << 30  # files that were sent and not yet dropped, of all sessions
UPLOAD = "/_stcore/upload_file/"
UPLOAD_TIMEOUT = 300  # seconds: one that stalls would hold its share for ever
BLOCKED_PATHS = ("/_stcore/metrics", "/_stcore/agent")  # figures of all sessions; an interface for programs
CACHEABLE_PREFIX = (
    "/static/"  # Streamlit's own files, the same for everybody; nothing else may stay in a browser's cache
)
HEADERS = {
    # No other machine is asked for anything, and no other page may frame this one. Streamlit's page starts by a script
    # in itself; its parts bring styles, pictures and workers of their own making.
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; "
    "connect-src 'self'; frame-ancestors 'self'; form-action 'self'; base-uri 'self'; object-src 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "permissions-policy": "geolocation=(), microphone=(), camera=()",
}


class RequestFilter:
    """An ASGI middleware. ``hosts``: names that a request may call this machine by; ``held``: bytes of the files that
    Streamlit keeps.
    """

    def __init__(self, app: Call, hosts: frozenset[str], held: Callable[[], int]) -> None:
        self._app, self._hosts, self._held = app, hosts, held
        self._arriving = 0

    async def __call__(self, scope: Scope, receive: Call, send: Call) -> None:
        """Answer, or pass on, a request."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        path, headers = scope["path"], dict(scope["headers"])
        size = _length(headers) if scope.get("method") == "PUT" and path.startswith(UPLOAD) else 0
        status = self._rejection_status(path, headers, size)
        if status:
            await _refuse(scope, send, status)
            return
        self._arriving += size or 0
        try:
            answer = self._app(scope, receive, _with_headers(send, path))
            await (asyncio.wait_for(answer, UPLOAD_TIMEOUT) if size else answer)
        except asyncio.TimeoutError:
            await _refuse(scope, send, 408)
        finally:
            self._arriving -= size or 0

    def _rejection_status(self, path: str, headers: dict[bytes, bytes], size: int | None) -> int | None:
        """Return the status of an answer that is none."""
        if _name(headers.get(b"host", b"").decode("latin-1")) not in self._hosts:
            return 421  # a stranger's name that leads here: DNS rebinding
        if any(path == closed or path.startswith(f"{closed}/") for closed in BLOCKED_PATHS):
            return 404
        if size is None:
            return 411
        return 507 if size and self._held() + self._arriving + size > MAX_UPLOAD_BYTES else None


def _length(headers: dict[bytes, bytes]) -> int | None:
    """Return how long a request says it is; one in chunks need not keep to that."""
    if b"transfer-encoding" in headers:
        return None
    length = headers.get(b"content-length", b"")
    return int(length) if length.isdigit() else None


def _name(host: str) -> str:
    """Return a Host header without its port."""
    return host.partition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0].lower()


def _with_headers(send: Call, path: str) -> Call:
    async def sending(message: Scope) -> None:
        if message["type"] == "http.response.start":
            own = dict(HEADERS) if path.startswith(CACHEABLE_PREFIX) else HEADERS | {"cache-control": "no-store"}
            kept = [(name, value) for name, value in message["headers"] if name.decode().lower() not in own]
            message["headers"] = kept + [(name.encode(), value.encode()) for name, value in own.items()]
        await send(message)

    return sending


async def _refuse(scope: Scope, send: Call, status: int) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})
