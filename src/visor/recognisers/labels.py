"""Names of the classes that published classifiers know, from the files that came with them."""

from pathlib import Path

import numpy as np

from visor import hdf5
from visor.errors import UserError
from visor.files import MAX_FILE_BYTES

ARRAY = b"\x93NUMPY"


def read(path: Path, count: int) -> tuple[str, ...]:
    """Return the names of ``count`` classes: a NumPy array of texts (.npy), or a name a line in UTF-8.

    Of `` A_J_Buckley``, as VGGFace2's names are published, ``A J Buckley`` is left.

    Raises:
        UserError: the file is missing, is neither, or has another number of names.
    """
    if path.is_file() and path.stat().st_size > MAX_FILE_BYTES:
        raise UserError(f"{path} has more than {MAX_FILE_BYTES >> 20} MiB; choose a file of names")
    try:
        names = (
            _array(path, count) if hdf5.start(path).startswith(ARRAY) else path.read_text(encoding="utf-8").splitlines()
        )
    except ValueError as error:  # an array of Python objects, which would have to be executed, among others
        raise UserError(f"{path} holds no names ({str(error).splitlines()[0]}); choose a file of names") from None
    cleaned = tuple(" ".join(name.strip(" '\"").replace("_", " ").split()) for name in names)
    cleaned = tuple(name for name in cleaned if name)
    if len(cleaned) != count:
        raise UserError(f"{path} has {len(cleaned)} names, the network {count} classes; choose another file")
    return cleaned


def _array(path: Path, count: int) -> list[str]:
    array = np.load(path, mmap_mode="r", allow_pickle=False)  # mapped: no more than the file has is read
    # Texts of no length take no room in the file, however many it says there are.
    if array.dtype.kind not in "US" or array.shape != (count,) or not array.dtype.itemsize:
        raise ValueError(f"an array of {array.dtype} of shape {array.shape}, not {count} texts")
    return [name.decode("utf-8") if isinstance(name, bytes) else str(name) for name in array]
