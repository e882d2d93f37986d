"""Download of files over HTTP: resumed after an interruption, and verified."""

import os
from pathlib import Path

import requests
from tqdm import tqdm

from visor.core.errors import UserError
from visor.core.files import sha256_of_file

DOWNLOADS = Path("downloads")
TIMEOUT = (10, 60)  # seconds to connect, and without a byte
CHUNK_BYTES = 1 << 16


def download(url: str, path: Path, sha256: str | None) -> Path:
    """Download ``url`` to ``path`` unless it exists; a ``.part`` file of an interrupted download is completed.

    User and password for the host are read from VISOR_DOWNLOAD_USER and VISOR_DOWNLOAD_PASSWORD, if set.

    Raises:
        UserError: No network, access denied, an interrupted connection, or another SHA-256.
    """
    part = path.with_name(f"{path.name}.part")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _download(url, part)
        except requests.HTTPError as error:
            status, advice = error.response.status_code, "download the file by hand and set its path in params.yaml"
            if status in (401, 403):
                advice = "set VISOR_DOWNLOAD_USER and VISOR_DOWNLOAD_PASSWORD in the environment"
            raise UserError(f"{url} responds with status {status}; {advice}") from None
        except requests.RequestException as error:
            kept = part.stat().st_size if part.exists() else 0
            raise UserError(
                f"{url} cannot be downloaded ({type(error).__name__}, {kept:,} bytes so far are kept); "
                "check the network and run again"
            ) from None
    complete = path if path.exists() else part
    if sha256 and (actual := sha256_of_file(complete)) != sha256:
        raise UserError(
            f"{complete} has SHA-256 {actual}, expected {sha256}; delete it and retry, or correct the checksum"
        )
    return path if complete == path else complete.replace(path)


def _download(url: str, part: Path) -> None:
    """Append the rest to ``part``; a server that ignores or refuses the range sends everything again."""
    start = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with requests.get(url, headers=headers, auth=_credentials(), stream=True, timeout=TIMEOUT) as response:
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
        total = start + length if length else None
        with (
            part.open("ab" if resumed else "wb") as file,
            tqdm(desc=part.stem, total=total, initial=start, unit="B", unit_scale=True, disable=None) as bar,
        ):
            for chunk in response.iter_content(CHUNK_BYTES):
                file.write(chunk)
                bar.update(len(chunk))
    if length and part.stat().st_size != start + length:
        raise requests.ConnectionError("the connection was interrupted")
    return None


def _credentials() -> tuple[str, str] | None:
    for name in ("USER", "PASSWORD"):
        if f"VISOR_{name}" in os.environ:
            raise UserError(f"VISOR_{name} was renamed to VISOR_DOWNLOAD_{name}; rename it in the environment")
    user, password = os.environ.get("VISOR_DOWNLOAD_USER"), os.environ.get("VISOR_DOWNLOAD_PASSWORD")
    return (user, password) if user and password else None
