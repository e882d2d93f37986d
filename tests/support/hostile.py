"""What a hostile file makes of the process that reads it, and a file that keeps libhdf5 busy for ever."""

import hashlib
import os
import signal
import struct
import sys
import time
from pathlib import Path

import numpy as np


def open_hostile(path, *arguments):
    if arguments:
        raise ValueError(f"{arguments[0]} is wrong\nand more")
    return lambda deed, *values: DEEDS[deed](*values)


def eat(size):
    return int(np.ones(size, np.uint8)[-1])


def loop():
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    while True:
        pass


def write(path):
    Path(path).write_text("a file that nobody asked for")


DEEDS = {
    "say": lambda value: value,
    "array": lambda shape, kind: np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(kind),
    "digest": lambda content: hashlib.sha256(content).hexdigest(),
    "objects": lambda: np.array([{}]),
    "modules": lambda: sorted(sys.modules),
    "process": os.getpid,
    "parent": os.getppid,
    "folder": os.getcwd,
    "eat": eat,
    "loop": loop,
    "sleep": time.sleep,
    "crash": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "exit": lambda: os._exit(0),
    "write": write,
}


def loop_heap(content):
    """Return an HDF5 file with an empty object at the end of its heap of strings: libhdf5 never gets past it."""
    heap = content.index(b"GCOL")
    place = heap + 16
    while number := struct.unpack_from("<H", content, place)[0]:
        assert number < 1000
        place += 16 + -(-struct.unpack_from("<Q", content, place + 8)[0] // 8) * 8
    return content[: place + 8] + bytes(8) + content[place + 16 :]
