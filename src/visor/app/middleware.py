"""ASGI middleware in front of Streamlit: who may request what, how much and how often, and security headers."""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from visor.app import settings

UPLOAD_PREFIX = "/_stcore/upload_file/"  # followed by the session and the file
MEDIA_PREFIX = "/media/"
UPLOAD_TIMEOUT, STALL_TIMEOUT = 300.0, 30.0  # seconds for an upload, and without a byte of it
TOO_MANY_MESSAGES = 1008  # WebSocket close code: a policy is violated
VISITOR_COOKIE = "visor_visitor"  # a secret of the browser, which proves that a download is its own
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
ENCRYPTED_HEADERS = {"strict-transport-security": "max-age=86400"}  # a day: it concerns other ports of the host, too


class RequestFilter:
    """ASGI middleware in front of Streamlit.

    Args:
        app: Streamlit.
        stored_bytes: Returns the size of the uploads that Streamlit holds, by session.
        owns_download: Returns whether the visitor with this cookie may download this path.
    """

    def __init__(
        self, app: ASGIApp, stored_bytes: Callable[[], Counter[str]], owns_download: Callable[[str, str], bool]
    ) -> None:
        self._app, self._stored_bytes, self._owns_download = app, stored_bytes, owns_download
        self._arriving = Counter[str]()  # bytes by session

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reject a request or pass it on."""
        if scope["type"] == "websocket":
            await self._app(scope, *_limit_messages(receive, send))
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        send = _add_headers(scope, send)
        if status := self._rejection_status(scope):
            await Response(status_code=status)(scope, receive, send)
        elif _is_upload(scope):
            await self._upload(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _rejection_status(self, scope: Scope) -> int | None:
        """Return the HTTP status of a rejected request, None for an accepted one."""
        path, cookies = scope["path"], HTTPConnection(scope).cookies
        if any(path == blocked or path.startswith(f"{blocked}/") for blocked in BLOCKED_PATHS):
            return 404
        if path.startswith(MEDIA_PREFIX) and not self._owns_download(cookies.get(VISITOR_COOKIE, ""), path):
            return 404
        if not _is_upload(scope):
            return None
        size = _content_length(Headers(scope=scope))
        if size is None:
            return 411
        held = self._arriving + self._stored_bytes()
        is_full = held.total() + size > settings.MAX_UPLOAD_BYTES
        return 507 if is_full or held[_upload_session(scope)] + size > settings.MAX_SESSION_UPLOAD_BYTES else None

    async def _upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on an upload whose bytes keep arriving; others would hold their share of the memory for ever."""
        session, size = _upload_session(scope), _content_length(Headers(scope=scope)) or 0

        async def receive_in_time() -> Message:
            return await asyncio.wait_for(receive(), STALL_TIMEOUT)

        self._arriving[session] += size
        try:
            await asyncio.wait_for(self._app(scope, receive_in_time, send), UPLOAD_TIMEOUT)
        except asyncio.TimeoutError:
            await Response(status_code=408)(scope, receive, send)
        finally:
            self._arriving[session] -= size
            self._arriving += Counter()  # drops sessions without bytes


def _is_upload(scope: Scope) -> bool:
    return scope["method"] == "PUT" and scope["path"].startswith(UPLOAD_PREFIX)


def _upload_session(scope: Scope) -> str:
    return str(scope["path"].removeprefix(UPLOAD_PREFIX).partition("/")[0])


def _content_length(headers: Headers) -> int | None:
    """Return the declared length of a request; None for chunks, which need not keep to it."""
    length = headers.get("content-length", "")
    return int(length) if length.isdecimal() and "transfer-encoding" not in headers else None


def _limit_messages(receive: Receive, send: Send) -> tuple[Receive, Send]:
    """Close a page that sends messages faster than a hand can click: each is a run of the page's script."""
    tokens, updated, closed = float(settings.MESSAGES), time.monotonic(), False

    async def receive_limited() -> Message:
        nonlocal tokens, updated, closed
        message = await receive()
        now = time.monotonic()
        tokens = min(settings.MESSAGES, tokens + (now - updated) * settings.MESSAGES_PER_SECOND) - 1
        updated = now
        if tokens < 0 and message["type"] == "websocket.receive":
            await send({"type": "websocket.close", "code": TOO_MANY_MESSAGES, "reason": "too many messages"})
            closed, message = True, {"type": "websocket.disconnect", "code": TOO_MANY_MESSAGES}
        return message

    async def send_while_open(message: Message) -> None:
        if not closed:
            await send(message)

    return receive_limited, send_while_open


def _add_headers(scope: Scope, send: Send) -> Send:
    """Add security headers to every answer, and to a page the cookie of a visitor who has none."""
    is_encrypted = scope["scheme"] == "https"
    extra = HEADERS | (ENCRYPTED_HEADERS if is_encrypted else {})
    if not scope["path"].startswith(CACHEABLE_PREFIX):
        extra |= {"cache-control": "no-store"}
    is_new = not HTTPConnection(scope).cookies.get(VISITOR_COOKIE)

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.update(extra)
            if is_new and headers.get("content-type", "").startswith("text/html"):
                cookie = f"{VISITOR_COOKIE}={secrets.token_urlsafe(32)}; Path=/; HttpOnly; SameSite=Strict"
                headers.append("set-cookie", f"{cookie}; Secure" if is_encrypted else cookie)
        await send(message)

    return send_with_headers
