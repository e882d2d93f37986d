"""Files over HTTP: resumed after a break, and verified."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from tqdm import tqdm

from visor.core.errors import UserError
from visor.core.files import sha256_of_file

DOWNLOADS = Path("downloads")
TIMEOUT = (10, 60)  # seconds to connect, and without a byte
PIECE_BYTES = 1 << 16


def download(url: str, path: Path, sha256: str | None) -> Path:
    """Fetch ``url`` to ``path``, unless it is there; the ``.part`` that a break left beside it is completed.

    The name and password of the host, if it wants them, are read from VISOR_USER and VISOR_PASSWORD.

    Raises:
        UserError: no network, access refused, a connection that broke, or a SHA-256 that differs.
    """
    part = path.with_name(f"{path.name}.part")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with _network_errors(url, part):
            _download(url, part)
    complete = path if path.exists() else part
    found = sha256_of_file(complete) if sha256 else None
    if found != sha256:
        raise UserError(
            f"{complete} has SHA-256 {found}, not {sha256}; delete it and run again, or correct the checksum"
        )
    return path if complete == path else complete.replace(path)


def _download(url: str, part: Path) -> None:
    """Append what ``part`` lacks; a server that ignores or refuses the range sends everything again."""
    start = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    user, password = os.environ.get("VISOR_USER"), os.environ.get("VISOR_PASSWORD")
    auth = (user, password) if user and password else None
    with requests.get(url, headers=headers, auth=auth, stream=True, timeout=TIMEOUT) as response:
        content_range = response.headers.get("Content-Range", "")
        resumed = response.status_code == 206 and content_range.startswith(f"bytes {start}-")
        if start and response.status_code in (206, 416) and not resumed:
            if content_range == f"bytes */{start}":
                return None
            part.unlink()
            return _download(url, part)
        response.raise_for_status()
        length = int(response.headers.get("Content-Length", 0))
        start = start if resumed else 0
        with (
            part.open("ab" if resumed else "wb") as file,
            tqdm(
                desc=part.stem,
                total=start + length if length else None,
                initial=start,
                unit="B",
                unit_scale=True,
                disable=None,
            ) as bar,
        ):
            for piece in response.iter_content(PIECE_BYTES):
                file.write(piece)
                bar.update(len(piece))
    if length and part.stat().st_size != start + length:
        raise requests.ConnectionError("the connection broke")
    return None


@contextmanager
def _network_errors(url: str, part: Path) -> Iterator[None]:
    try:
        yield
    except requests.HTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise UserError(
                f"{url} refuses access ({status}); set VISOR_USER and VISOR_PASSWORD in the environment"
            ) from None
        raise UserError(f"{url} answers {status}; fetch the file by hand and set its path in params.yaml") from None
    except requests.RequestException as error:
        done = part.stat().st_size if part.exists() else 0
        raise UserError(
            f"{url} cannot be fetched ({type(error).__name__}, {done:,} bytes so far are kept); "
            "check the network and run again"
        ) from None
