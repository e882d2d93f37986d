"""Files: atomic writes, JSON whose bytes repeat, metrics, checksums, Git."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from socket import gethostname
from typing import Any
from zlib import crc32

import psutil

from visor.core.errors import UserError, shorten

MAX_PIXELS = 50_000_000  # of one image: a phone's 48 megapixels pass
MAX_FILE_BYTES = 192 << 20  # of one image file: as many pixels of noise pass as PNG, as Visor writes them
MAX_JSON_BYTES = 64 << 20
MAX_JSON_LEVELS = 40  # of nesting
MAX_DIGITS = 300  # of a whole number that a float can hold
CONFLICT_MARK = b"<<<<<<< "  # begins a line where Git could not merge
UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)  # of a file system that cannot reserve space
SPARE_BYTES = 4 << 20  # what HDF5 writes beside the pixels, and what others write meanwhile
HOST = f"{crc32(gethostname().encode()):08x}"  # machines that share a folder have processes of the same number
UMASK = os.umask(0o077)  # Python can read it only by setting it: once, before there are threads.
os.umask(UMASK)


@contextmanager
def atomic_write(path: Path, private: bool = False) -> Iterator[Path]:
    """Yield a temporary name beside ``path`` that becomes ``path`` on success and vanishes on failure.

    Until then the file is its owner's alone, and a ``private`` one stays so. What a killed process left in the folder
    is removed. An OSError while writing names ``path``, not the temporary file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_left_over(path.parent.resolve())
    temporary = path.with_name(f".{path.name}.{HOST}.{os.getpid()}.part")
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
        yield temporary
        temporary.chmod(0o600 if private else 0o666 & ~UMASK)
        temporary.replace(path)
    except OSError as error:
        if error.filename is None or str(error.filename).startswith(str(temporary)):
            error.filename = str(path)
        raise
    finally:
        with suppress(OSError):  # A read-only folder must not hide what was wrong.
            temporary.unlink(missing_ok=True)


@cache
def _remove_left_over(folder: Path) -> None:
    """Remove the temporary files of this machine's processes that are gone, once for each folder."""
    for file in folder.glob(f".*.{HOST}.*.part*"):
        number = file.name.rpartition(f".{HOST}.")[2].partition(".")[0]
        if number.isdecimal() and int(number) not in psutil.pids():
            with suppress(OSError):
                file.unlink()


def check_output(path: Path, option: str, force: bool) -> None:
    """Check, before anything slow begins, a file that a user wants written.

    Raises:
        UserError: It is a folder, or exists and ``force`` is not set.
    """
    if path.is_dir():
        raise UserError(f"{option} {path} is a folder; pass a file")
    if path.exists() and not force:
        raise UserError(f"{option} {path} exists; pass another file, or add --force to overwrite it")


def check_disk_space(path: Path, needed: int, written: int = 0) -> None:
    """Check that ``needed`` bytes can follow the ``written`` ones of a file: else HDF5 would crash the process.

    Raises:
        OSError: The disk or a quota is full, or the file would be larger than a limit (ENOSPC, EDQUOT, EFBIG).
    """
    try:
        if shutil.disk_usage(path.parent).free < needed + SPARE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if hasattr(os, "posix_fallocate"):  # Quotas and limits are known to the system alone: ask it for the space.
            with tempfile.TemporaryFile(dir=path.parent) as probe:
                os.posix_fallocate(probe.fileno(), written, needed + SPARE_BYTES)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            error.filename = str(path)
            raise


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, all of it or nothing."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write sorted JSON with floats of six significant digits, for short diffs."""
    write_text(path, json.dumps(_rounded(values), indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        UserError: It is missing, is not JSON, is too large or too deep, or has Git's conflict marks.
    """
    check_no_device(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_JSON_BYTES + 1)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run `dvc repro` to make it") from None
    if len(content) > MAX_JSON_BYTES:
        raise UserError(f"{path} is larger than {MAX_JSON_BYTES >> 20} MiB; delete it and run `dvc repro`")
    check_conflict_marks(content, path)
    return parse_json(content, path, "delete it and run `dvc repro`")


def parse_json(content: str | bytes, name: object, advice: str) -> Any:
    """Return what JSON says; ``name`` begins and ``advice`` ends the error message.

    Raises:
        UserError: It is not JSON, or is nested too deeply.
    """
    try:
        values = json.loads(content, parse_int=_parse_int)
    except ValueError as error:
        raise UserError(f"{name} is not JSON ({shorten(error, 120)}); {advice}") from None
    except RecursionError:
        raise UserError(f"{name} is nested too deeply; {advice}") from None
    if _is_deeper(values, MAX_JSON_LEVELS):  # than what follows can take, as it calls itself for each level
        raise UserError(f"{name} is nested more than {MAX_JSON_LEVELS} levels deep; {advice}")
    return values


def _parse_int(digits: str) -> int | float:
    """Return a whole number; one beyond all floats is infinite, as 1e999 is."""
    return int(digits) if len(digits) <= MAX_DIGITS else float(digits)


def _is_deeper(value: Any, levels: int) -> bool:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return bool(items) and (levels == 0 or any(_is_deeper(item, levels - 1) for item in items))


def is_device(path: Path) -> bool:
    """Return whether ``path`` is a pipe, a socket or a device: to read one may never end."""
    return path.exists() and not path.is_file() and not path.is_dir()


def check_no_device(path: Path) -> None:
    """Raise UserError if ``path`` is a pipe, a socket or a device."""
    if is_device(path):
        raise UserError(f"{path} is a pipe, a socket or a device; name a file")


def check_conflict_marks(content: bytes, name: object) -> None:
    """Raise UserError if Git left the marks of a conflict in a file."""
    if content.startswith(CONFLICT_MARK) or b"\n" + CONFLICT_MARK in content:
        raise UserError(f"{name} has Git's conflict marks ({CONFLICT_MARK.decode()}…); resolve the conflict first")


def read_metrics(folder: Path) -> dict[str, float]:
    """Return the numbers in the JSON files below ``folder``, named ``<file without .json>:<dotted key>``.

    Lists (the points of a curve) and truth values are not metrics. Raises UserError if a file is not JSON.
    """
    return {
        f"{path.relative_to(folder).with_suffix('').as_posix()}:{key}": value
        for path in sorted(folder.rglob("*.json"))
        for key, value in numeric_leaves(read_json(path)).items()
    }


def numeric_leaves(content: Any) -> dict[str, float]:
    """Return the numbers of nested mappings under their dotted keys."""
    return {
        key: float(value)
        for key, value in flatten(content).items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def flatten(content: Any, prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested mappings under their dotted keys."""
    if not isinstance(content, Mapping):
        return {prefix: content}
    return {
        name: leaf
        for key, item in content.items()
        for name, leaf in flatten(item, f"{prefix}.{key}" if prefix else str(key)).items()
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def git(root: Path, *arguments: str) -> str | None:
    """Return the output of a Git command in ``root`` without outer whitespace; None if it fails or there is no Git.

    Raises:
        UserError: ``root`` is in a repository that Git refuses to read, such as one of another owner.
    """
    try:
        result = _run_git(root, *arguments)
    except FileNotFoundError:
        return None
    if result.returncode == 0:
        return result.stdout.strip()
    refusal = _run_git(root, "rev-parse", "--git-dir").stderr
    if refusal and "not a git repository" not in refusal:
        raise UserError(f"Git refuses to read this repository: {shorten(refusal, 400)}")
    return None


def _run_git(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"LC_ALL": "C"}  # Messages in English: one of them is compared.
    return subprocess.run(
        ["git", *arguments], cwd=root, env=environment, capture_output=True, encoding="utf-8", errors="replace"
    )
