"""Download of files over HTTP: resumed after an interruption, limited in size, and verified."""

import errno
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from urllib.parse import SplitResult, urljoin, urlsplit

import requests
import urllib3
from requests.auth import HTTPBasicAuth
from tqdm import tqdm

from visor.core.errors import UserError, shorten
from visor.core.files import sha256_of_file

DOWNLOADS = Path("downloads")
TIMEOUT = (10, 60)  # seconds to connect, and without a byte
CHUNK_BYTES = 1 << 16
MAX_BYTES = 4 << 30  # the largest published weights have 600 MB
MAX_REDIRECTS = 10
REDIRECTS = (301, 302, 303, 307, 308)

Credentials = tuple[bytes, bytes]


def download(
    url: str, path: Path, sha256: str | None, max_bytes: int = MAX_BYTES, send_credentials: bool = False
) -> Path:
    """Download ``url`` to ``path`` unless it exists; a ``.part`` file of an interrupted download is completed.

    With ``send_credentials``, user and password are read from VISOR_DOWNLOAD_USER and VISOR_DOWNLOAD_PASSWORD, if set;
    they go to the host of ``url`` alone, over HTTPS alone, and not on to where it redirects.

    Raises:
        UserError: No network, access denied, an interrupted connection, a wrong address or answer, more than
            ``max_bytes``, or another SHA-256.
        OSError: ``path`` cannot be written; nothing of it is left if the disk is full.
    """
    sha256 = check_sha256(sha256, "sha256") if sha256 else None
    part = path.with_name(f"{path.name}.part")
    if not path.exists():
        credentials = _credentials(url) if send_credentials else None
        _check_address(url, url)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _download(url, part, max_bytes, credentials)
        except requests.HTTPError as error:
            status, advice = error.response.status_code, "download the file by hand and set its path in params.yaml"
            if send_credentials and status in (401, 403):
                advice = "set VISOR_DOWNLOAD_USER and VISOR_DOWNLOAD_PASSWORD in the environment"
            raise UserError(f"{shorten(url, 200)} responds with status {status}; {advice}") from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
            kept = part.stat().st_size if part.exists() else 0
            raise UserError(
                f"{shorten(url, 200)} cannot be downloaded ({type(error).__name__}, {kept:,} bytes so far are kept); "
                "check the network and run again"
            ) from None
        except OSError:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise
    complete = path if path.exists() else part
    if sha256 and (actual := sha256_of_file(complete)) != sha256:
        raise UserError(
            f"{complete} has SHA-256 {actual}, expected {sha256}; delete it and retry, or correct the checksum"
        )
    return path if complete == path else complete.replace(path)


def check_sha256(text: str, where: str) -> str:
    """Return a SHA-256 in small letters.

    Raises:
        UserError: It is not 64 hexadecimal digits. What is a part of a file's name must be nothing else.
    """
    if not re.fullmatch("[0-9a-fA-F]{64}", text):
        raise UserError(f"{where} is {shorten(repr(text))}; give the 64 hexadecimal digits that `sha256sum` prints")
    return text.lower()


def _download(url: str, part: Path, max_bytes: int, credentials: Credentials | None) -> None:
    """Append the rest to ``part``; a server that ignores or refuses the range sends everything again."""
    start = part.stat().st_size if part.exists() else 0
    with _get(url, start, credentials) as response:
        content_range = response.headers.get("Content-Range", "")
        resumed = response.status_code == 206 and content_range.startswith(f"bytes {start}-")
        if start and response.status_code in (206, 416) and not resumed:
            if content_range == f"bytes */{start}":
                return
            part.unlink()
            _download(url, part, max_bytes, credentials)
            return
        if response.status_code != 200 and not (
            start and resumed
        ):  # nobody asked for a part of a file from its start on
            raise requests.HTTPError(response=response)
        _receive(response, url, part, start if resumed else 0, max_bytes)


def _receive(response: requests.Response, url: str, part: Path, start: int, max_bytes: int) -> None:
    """Write the body of a response to ``part`` from ``start`` on, to the end of the file."""
    length = _content_length(response, url)
    if start + (length or 0) > max_bytes:
        raise _too_large(url, max_bytes)
    if length and shutil.disk_usage(part.parent).free < length:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(part))
    whole = re.fullmatch(r"bytes [0-9]{1,18}-[0-9]{1,18}/([0-9]{1,18})", response.headers.get("Content-Range", ""))
    size, total = start, int(whole[1]) if start and whole else start + length if length else None
    with (
        part.open("ab" if start else "wb") as file,
        tqdm(desc=part.stem, total=total, initial=start, unit="B", unit_scale=True, disable=None) as bar,
    ):
        for chunk in response.raw.stream(CHUNK_BYTES, decode_content=False):
            size += len(chunk)
            if size > max_bytes:
                break
            file.write(chunk)
            bar.update(len(chunk))
    if size > max_bytes:
        part.unlink()
        raise _too_large(url, max_bytes)
    if total and size != total:
        raise requests.ConnectionError("the connection was interrupted")


def _get(url: str, start: int, credentials: Credentials | None) -> requests.Response:
    """Return the response to a request from byte ``start`` on, after redirects; its body is unread."""
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    address = url
    for _ in range(1 + MAX_REDIRECTS):
        # Credentials of ~/.netrc would be sent in the absence of others.
        auth = HTTPBasicAuth(*credentials) if credentials and _same_host(address, url) else _no_credentials
        with _DirectSession() as session:
            response = session.get(address, headers=headers, auth=auth, stream=True, timeout=TIMEOUT)
        if response.status_code not in REDIRECTS:
            return response
        response.close()
        address = _next_address(url, address, response.headers.get("Location", ""))
    raise UserError(f"{shorten(url, 200)} redirects more than {MAX_REDIRECTS} times; download the file by hand")


class _DirectSession(requests.Session):
    """A session that follows no redirect: before that, it would read a body of any length."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


def _same_host(address: str, url: str) -> bool:
    return urlsplit(address)[:2] == urlsplit(url)[:2]  # scheme, host and port


def _no_credentials(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _next_address(url: str, address: str, location: str) -> str:
    """Return where a redirect leads.

    Raises:
        UserError: It leads nowhere, or from HTTPS to HTTP.
    """
    try:
        following = urljoin(address, location) if location else ""
    except ValueError:
        following = ""
    scheme = _check_address(following, f"{shorten(url, 200)} redirects to {shorten(ascii(location))}, which").scheme
    if address.startswith("https:") and scheme != "https":
        raise UserError(f"{shorten(url, 200)} redirects from https to http; download the file by hand")
    return following


def _check_address(url: str, where: str) -> SplitResult:
    """Return the parts of an address; raises UserError if it is none, or has a password in it."""
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address or not url.isprintable() or " " in url:
        raise UserError(f"{shorten(ascii(where)[1:-1], 300)} is not an address; give one like https://host/file")
    if "@" in parts.netloc:
        raise UserError(f"an address on {parts.hostname} has a user name in it; leave it out")
    return parts


def _content_length(response: requests.Response, url: str) -> int | None:
    """Return the length of a body, None if it is not said; raises UserError if it is no length."""
    text = response.headers.get("Content-Length")
    if text is None:
        return None
    if not re.fullmatch("[0-9]{1,18}", text):
        raise UserError(
            f"{shorten(url, 200)} says that it has {shorten(ascii(text))} bytes; try later, or download it by hand"
        )
    return int(text)


def _too_large(url: str, max_bytes: int) -> UserError:
    return UserError(f"{shorten(url, 200)} has more than {max_bytes:,} bytes; download it by hand if that is right")


def _credentials(url: str) -> Credentials | None:
    """Return user and password for the host of ``url``; raises UserError rather than send them unencrypted."""
    for name in ("USER", "PASSWORD"):
        if f"VISOR_{name}" in os.environ:
            raise UserError(f"VISOR_{name} was renamed to VISOR_DOWNLOAD_{name}; rename it in the environment")
    user, password = os.environ.get("VISOR_DOWNLOAD_USER"), os.environ.get("VISOR_DOWNLOAD_PASSWORD")
    if not user or not password:
        return None
    if not url.startswith("https:"):
        raise UserError(f"{shorten(url, 200)} is not https, and no password is sent to it; download the file by hand")
    return user.encode(), password.encode()
