"""One JSON request to a service: the key from the environment, patience where it is asked for, no redirect."""

import json
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import requests

from visor.core.errors import UserError

ATTEMPTS = 5
MAX_WAIT = 60.0  # seconds that are waited, at most, before one attempt
TIMEOUT = (10, 60)  # seconds to connect, and without a byte
RETRY_STATUSES = {429, 500, 502, 503, 504}
MAX_ANSWER_BYTES = 8 << 20
LOOPBACK = {"127.0.0.1", "::1", "localhost"}

AuthHook = Callable[[requests.PreparedRequest], requests.PreparedRequest]


class Reply(NamedTuple):
    """What a service sends back."""

    status: int
    body: bytes


def api_key(variable: str, service: str) -> str:
    """Return the key that the environment holds for a service.

    Raises:
        UserError: the variable is not set, or holds what no header can.
    """
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UserError(f"{variable} is not set in the environment; put the key of {service} into it")
    if not key.isascii() or not key.isprintable():
        raise UserError(f"{variable} holds characters that no key has; put the key of {service} into it")
    return key


def check_https(url: str, what: str) -> None:
    """Make sure that a key may be sent to an address, which ``what`` names.

    Raises:
        UserError: it is none, or the key would leave this machine in clear.
    """
    try:
        parts = urlsplit(url)
    except ValueError:  # half an IPv6 address
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"{what} {url} is no address; begin it with https://, or with http:// on this machine")
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        raise UserError(f"{what} {url} would send the key in clear; name one that begins with https://")


def header_auth(header: str, value: str) -> AuthHook:
    """Return what puts a key into a header; being authentication, no ``.netrc`` overrides it."""

    def authorise(request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers[header] = value
        return request

    return authorise


def post(session: requests.Session, url: str, authorise: AuthHook, body: Any) -> Reply:
    """Send JSON and return what comes back; what passes (overload, a break) is tried again, later each time.

    A redirect is returned, not followed: the key goes nowhere else.

    Raises:
        UserError: nobody answers, or the service is overloaded for longer than it is waited for.
    """
    problem = ""
    for attempt in range(ATTEMPTS):
        wait = 0.5 * 2**attempt
        try:
            with session.post(
                url, json=body, auth=authorise, timeout=TIMEOUT, allow_redirects=False, stream=True
            ) as response:
                reply = Reply(response.status_code, _read(response, url))
        except requests.RequestException as error:
            problem = type(error).__name__  # its text may quote headers
        else:
            if reply.status not in RETRY_STATUSES:
                return reply
            problem = f"status {reply.status}"
            wait = max(wait, _retry_after(response))
        if wait > MAX_WAIT:
            raise UserError(f"{url} asks to wait {wait:.0f} seconds; run again later: what it answered is remembered")
        if attempt + 1 < ATTEMPTS:
            time.sleep(wait)
    raise UserError(
        f"{url} does not answer ({problem}, {ATTEMPTS} attempts); check address and network and run again: "
        "what it answered is remembered"
    )


def get(session: requests.Session, url: str) -> Reply:
    """Return what an address answers to anybody, asked once.

    Raises:
        RequestException: it does not.
        UserError: it answers without end.
    """
    with session.get(url, timeout=TIMEOUT, allow_redirects=False, stream=True) as response:
        return Reply(response.status_code, _read(response, url))


def parse_json(reply: Reply, url: str) -> Any:
    """Return the JSON of a reply.

    Raises:
        UserError: it is not JSON.
    """
    try:
        return json.loads(reply.body)
    except (ValueError, RecursionError):
        raise UserError(f"{url} answers {reply.status} with what is not JSON; check the address") from None


def _read(response: requests.Response, url: str) -> bytes:
    """Return an answer's body, of a service that may send without end."""
    body = bytearray()
    for piece in response.iter_content(1 << 16):
        body += piece
        if len(body) > MAX_ANSWER_BYTES:
            raise UserError(f"{url} answers with more than {MAX_ANSWER_BYTES >> 20} MiB; check the address")
    return bytes(body)


def _retry_after(response: requests.Response) -> float:
    try:
        return max(0.0, float(response.headers.get("Retry-After", "0")))
    except ValueError:
        return 0.0  # a date; the own pace is slow enough
