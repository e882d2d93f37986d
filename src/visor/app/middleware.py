"""ASGI middleware in front of Streamlit: blocked paths, security headers, and limits on uploads."""

import asyncio
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from visor.app.settings import MAX_UPLOAD_BYTES

UPLOAD_PREFIX = "/_stcore/upload_file/"
UPLOAD_TIMEOUT = 300  # seconds; a stalled upload would hold its share for ever
BLOCKED_PATHS = ("/_stcore/metrics", "/_stcore/agent")  # figures of all sessions; an interface for programs
CACHEABLE_PREFIX = "/static/"  # Streamlit's own files; a browser may cache nothing else
HEADERS = {
    # The page requests nothing from other hosts, and no other page may frame it. Streamlit's page starts by an inline
    # script; its components bring styles, images and workers of their own.
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; "
    "connect-src 'self'; frame-ancestors 'self'; form-action 'self'; base-uri 'self'; object-src 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "permissions-policy": "geolocation=(), microphone=(), camera=()",
}


class RequestFilter:
    """ASGI middleware; ``stored_bytes`` returns the size of the uploads that Streamlit holds."""

    def __init__(self, app: ASGIApp, stored_bytes: Callable[[], int]) -> None:
        self._app, self._stored_bytes = app, stored_bytes
        self._arriving_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reject a request or pass it on."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        is_upload = scope.get("method") == "PUT" and scope["path"].startswith(UPLOAD_PREFIX)
        size = _content_length(Headers(scope=scope)) if is_upload else 0
        if status := self._rejection_status(scope["path"], size):
            await Response(status_code=status)(scope, receive, send)
            return
        self._arriving_bytes += size or 0
        try:
            response = self._app(scope, receive, _add_headers(send, scope["path"]))
            await (asyncio.wait_for(response, UPLOAD_TIMEOUT) if size else response)
        except asyncio.TimeoutError:
            await Response(status_code=408)(scope, receive, send)
        finally:
            self._arriving_bytes -= size or 0

    def _rejection_status(self, path: str, size: int | None) -> int | None:
        """Return the HTTP status of a rejected request, None for an accepted one."""
        if any(path == blocked or path.startswith(f"{blocked}/") for blocked in BLOCKED_PATHS):
            return 404
        if size is None:
            return 411
        return 507 if size and self._stored_bytes() + self._arriving_bytes + size > MAX_UPLOAD_BYTES else None


def _content_length(headers: Headers) -> int | None:
    """Return the declared length of a request; None for chunks, which need not keep to it."""
    length = headers.get("content-length", "")
    return int(length) if length.isdecimal() and "transfer-encoding" not in headers else None


def _add_headers(send: Send, path: str) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.update(HEADERS if path.startswith(CACHEABLE_PREFIX) else HEADERS | {"cache-control": "no-store"})
        await send(message)

    return send_with_headers
