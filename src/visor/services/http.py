"""JSON over HTTP with an API key: retries where the service asks for them, no redirects, answers of limited size."""

import json
import logging
import os
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.exceptions import RequestException
from urllib3 import BaseHTTPResponse, Retry
from urllib3.exceptions import InvalidHeader, ResponseError

from visor.core.errors import UserError, shorten

ATTEMPTS = 5
MAX_WAIT = 60.0  # seconds before one attempt
TIMEOUT = (10, 60)  # seconds to connect, and without a byte
RETRY_STATUSES = frozenset({429, 500, 502, 503, 504})
MAX_ANSWER_BYTES = 8 << 20
LOOPBACK = {"127.0.0.1", "::1", "localhost"}


class Reply(NamedTuple):
    """Status and body of a service's answer."""

    status: int
    body: bytes


class ServiceRetry(Retry):
    """Retries that wait before the first one, too, and fail where the service asks for more than ``MAX_WAIT``."""

    RETRY_AFTER_STATUS_CODES = RETRY_STATUSES  # 413 is an answer about the image

    def increment(
        self, method: Any = None, url: Any = None, response: BaseHTTPResponse | None = None, *rest: Any, **more: Any
    ) -> "ServiceRetry":
        """Count an attempt and drop its answer, which urllib3 would read to an end that may never come."""
        retry = super().increment(method, url, response, *rest, **more)
        if response is not None:
            response.close()
        return retry

    def get_backoff_time(self) -> float:
        """Return the seconds before the next attempt if the service names none."""
        return float(self.backoff_factor * 2 ** (len(self.history) - 1))

    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
        """Return the seconds that the service names, or raise ``ResponseError`` if they are too many."""
        try:
            seconds = super().get_retry_after(response)
        except InvalidHeader:
            return None
        if seconds and seconds > MAX_WAIT:
            raise ResponseError(f"asks to wait {seconds:.0f} s")
        return seconds


def keys_from_environment(variable: str, description: str, separator: str | None = None) -> list[str]:
    """Return the API key in an environment variable, or the keys between separators; ``UserError`` if none is valid."""
    former = os.environ.get(variable.replace("VISOR_MOCK_", "VISOR_RANGE_"), "")  # the name until version 0.1
    text = os.environ.get(variable, former)
    keys = [key.strip() for key in (text.split(separator) if separator else [text]) if key.strip()]
    if not keys:
        raise UserError(f"{shorten(variable)} is not set; set it to {description}")
    if not all(key.isascii() and key.isprintable() for key in keys):
        raise UserError(f"{variable} contains characters other than printable ASCII; set it to {description}")
    return keys


def check_https(url: str, name: str) -> None:
    """Check that an API key may be sent to a URL; ``name`` is where the URL was given.

    Raises:
        UserError: It is not a URL, or the key would leave this machine unencrypted.
    """
    try:
        parts = urlsplit(url)
        (parts.hostname or "").encode("idna"), parts.port  # raise ValueError, as half an IPv6 address does
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(
            f"{name} {shorten(url, 120)} is not a URL; begin it with https://, or with http:// on this machine"
        )
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        raise UserError(f"{name} {shorten(url, 120)} would send the API key unencrypted; use an https:// URL")


def open_session(header: str, value: str) -> requests.Session:
    """Return a session that sends ``value`` in a header and retries requests to an overloaded service."""

    def authorise(request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers[header] = value
        return request

    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # It would print a line for each retry.
    session = requests.Session()
    session.auth = authorise  # As authentication, no .netrc replaces it.
    retry = ServiceRetry(
        ATTEMPTS - 1,
        allowed_methods={"POST"},
        status_forcelist=RETRY_STATUSES,
        backoff_factor=0.5,
        raise_on_status=False,
    )
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    return session


def post(session: requests.Session, url: str, body: Any) -> Reply:
    """Send JSON; a redirect is returned and not followed, so that the key goes nowhere else.

    Raises:
        UserError: The service does not answer, is overloaded for too long, or answers without end.
    """
    try:
        with session.post(url, json=body, timeout=TIMEOUT, allow_redirects=False, stream=True) as response:
            reply = _read(response, url)
        if reply.status not in RETRY_STATUSES:
            return reply
        problem = f"status {reply.status}"
    except ResponseError as error:
        raise UserError(f"{url} {error}; run again later, answers so far are cached") from None
    except RequestException as error:
        problem = type(error).__name__  # its text may quote headers
    advice = "check address and network and run again, answers so far are cached"
    raise UserError(f"{url} does not answer ({problem}, {ATTEMPTS} attempts); {advice}")


def get(url: str) -> Reply:
    """Request a URL once, without a key; raises ``RequestException``, or ``UserError`` if the answer is too long."""
    with requests.get(url, timeout=TIMEOUT, allow_redirects=False, stream=True) as response:
        return _read(response, url)


def parse_json(reply: Reply, url: str) -> Any:
    """Return the JSON of a reply, or raise ``UserError``."""
    try:
        return json.loads(reply.body)
    except (ValueError, RecursionError):
        raise UserError(f"{url} answers {reply.status} with a body that is not JSON; check the address") from None


def _read(response: requests.Response, url: str) -> Reply:
    body = bytearray()
    for piece in response.iter_content(1 << 16):
        body += piece
        if len(body) > MAX_ANSWER_BYTES:
            raise UserError(f"{url} answers with more than {MAX_ANSWER_BYTES >> 20} MiB; check the address")
    return Reply(response.status_code, bytes(body))
