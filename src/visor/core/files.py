"""Files: atomic writes, JSON whose bytes repeat, metrics, checksums, Git."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from visor.core.errors import UserError

MAX_FILE_BYTES = 32 << 20  # of one untrusted image file
SPARE_BYTES = 4 << 20  # what HDF5 writes beside the pixels, and what others write meanwhile


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path`` that becomes ``path`` on success and vanishes on failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_disk_space(path: Path, needed: int) -> None:
    """Raise OSError (ENOSPC) unless ``needed`` bytes are free: without space HDF5 would crash the process."""
    if shutil.disk_usage(path.parent).free < needed + SPARE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, all of it or nothing."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write sorted JSON with floats of six significant digits, for short diffs."""
    write_text(path, json.dumps(_rounded(values), indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; raises UserError if it is missing or is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run `dvc repro` to make it") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); delete it and run `dvc repro`") from None


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
    """Return the output of a Git command in ``root`` without outer whitespace, None if Git fails or is missing."""
    try:
        result = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return None if result.returncode else result.stdout.strip()
