"""A stranger's file, read in a process of its own: with a deadline, a limit on memory, and plain values as answers.

The libraries that read such files are written in C, and files are made that crash them or keep them busy for ever.
A small server with a clean interpreter is started once and forks a child for each file, in a few milliseconds; the
forking is its own, because a process with threads (TensorFlow, Streamlit) must not fork. What a child sends is JSON or
the bytes of an array: nothing that could be executed, even if the file took the child over.
"""

import gc
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visor.core.errors import UserError, first_line, shorten

Answer = Callable[..., Any]

PRELOADED = ("visor.core.hdf5_checks",)  # what most children need
SECONDS = 5.0  # of processor time for an answer, besides the time for its bytes
CLOCK_FACTOR = 6  # a busy machine or a slow disk may take that many times as long by the clock
BYTES_PER_SECOND = 4 << 20  # from a slow disk
MEMORY = 1 << 30  # bytes of address space
MAX_LINE = 64 << 20  # of an answer in JSON
START = "import sys; sys.path[:] = {!r}; from visor.core.isolation import serve; serve({})"

_lock = threading.Lock()
_server: socket.socket | None = None


class Child:
    """A process that answers questions about one file; it ends with the last reference to this object.

    There ``opener``, written ``module:function``, is called with ``path`` and ``arguments`` and returns the function
    that answers. It is called with the arguments of ``ask`` and returns what JSON can say, or an array of numbers.
    """

    def __init__(self, opener: str, path: Path, *arguments: Any, memory: int = MEMORY) -> None:
        """Start it, in ``memory`` bytes of address space; raises UserError as ``ask`` does."""
        self.path, self._memory, self._lock = path, memory, threading.Lock()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            _hand_over(theirs)
            self._stream = ours.makefile("rwb")
        self.ask(opener, memory, str(Path.cwd()), str(path), *arguments)

    def ask(self, *question: Any, data: bytes = b"", nbytes: int = 0) -> Any:
        """Return the answer to a question: what JSON can say, or an array of at most ``nbytes``.

        The last argument of the question is ``data``, if there is any.

        Raises:
            UserError: The child refused the file, or took too long, too much memory, or crashed on it.
        """
        seconds, start = SECONDS + (len(data) + nbytes) / BYTES_PER_SECOND, time.monotonic()
        with self._lock:
            try:
                self._stream.write(json.dumps([seconds, len(data), *question]).encode() + b"\n")
                self._stream.write(data)
                self._stream.flush()
                kind, value = json.loads(self._stream.readline(MAX_LINE))
                if kind == "array":
                    dtype, shape = value
                    return self._receive(dtype, shape, nbytes)
            except (EOFError, OSError, RecursionError, TypeError, ValueError):  # nothing, or nonsense
                self._stream.close()
                kind, value = ("late" if time.monotonic() - start >= seconds else "crash"), ""
            except BaseException:  # Ctrl-C amid an answer
                self._stream.close()
                raise
        if kind == "answer":
            return value
        raise UserError(
            {
                "late": f"{self.path} cannot be read within {seconds:.0f} s; it is damaged or hostile, fetch it again",
                "memory": f"{self.path} takes over {self._memory >> 20:,} MiB of memory to read; choose a smaller file",
                "damage": f"{self.path} is damaged ({shorten(value)}); fetch it again",
                "refusal": str(value),
            }.get(kind, f"{self.path} crashes the library that reads it; it is damaged or hostile, fetch it again")
        )

    def _receive(self, dtype: str, shape: list[int], nbytes: int) -> NDArray[Any]:
        kind = np.dtype(dtype)
        if kind.kind not in "uif" or min(shape, default=0) < 0 or prod(shape) * kind.itemsize > nbytes:
            raise ValueError("an array that was not asked for")
        array = np.empty(shape, kind)
        if self._stream.readinto(array.reshape(-1).view(np.uint8).data) != array.nbytes:
            raise EOFError
        return array


def _hand_over(end: socket.socket) -> None:
    """Send one end of a connection to the server, which forks a child for it; start the server if there is none."""
    global _server
    with _lock:
        if _server is not None:
            with suppress(OSError):  # it was killed
                socket.send_fds(_server, [b"+"], [end.fileno()])
                return
        _server = _start()
        socket.send_fds(_server, [b"+"], [end.fileno()])


def _start() -> socket.socket:
    """Start the server; it ends when this process does, however that ends."""
    ours, theirs = socket.socketpair()
    with theirs:
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}  # whoever forks has one thread
        subprocess.Popen(
            [sys.executable, "-I", "-c", START.format([path for path in sys.path if path], theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    return ours


def serve(number: int) -> None:
    """In the server: fork a child for each connection that comes through the socket of this number."""
    for module in PRELOADED:
        import_module(module)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the parent, whose end ends all
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)
    gc.freeze()
    with socket.socket(fileno=number) as control:
        while True:
            _, ends, *_ = socket.recv_fds(control, 1, 1)
            if not ends:
                return
            if os.fork() == 0:
                control.close()
                with socket.socket(fileno=ends[0]) as end:
                    _answer_all(end)
                os._exit(0)
            os.close(ends[0])


def _limit(kind: int, value: int) -> None:
    with suppress(OSError, ValueError):  # a system without this limit
        resource.setrlimit(kind, (value, value))


def _answer_all(end: socket.socket) -> None:
    """In a child: open the file, then answer until the parent hangs up. A late answer ends it, even amid C code."""
    answer: Answer = _open
    stream = end.makefile("rwb")
    for line in stream:
        seconds, size, *question = json.loads(line)
        _set_alarms(seconds)
        if size:
            question.append(stream.read(size))
        kind, value = _call(answer, question)
        if kind == "answer" and answer is _open:
            answer, value = value, None
        if isinstance(value, np.ndarray):
            stream.write(json.dumps(["array", [value.dtype.str, value.shape]]).encode() + b"\n")
            stream.write(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
        else:
            stream.write(json.dumps([kind, value]).encode() + b"\n")
        stream.flush()
        _set_alarms(0)


def _set_alarms(seconds: float) -> None:
    """Let the system end this process after so many seconds of processor time; 0: never."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, CLOCK_FACTOR * seconds)


def _call(answer: Answer, question: list[Any]) -> tuple[str, Any]:
    try:
        return "answer", answer(*question)
    except UserError as error:
        return "refusal", str(error)
    except MemoryError:
        return "memory", None
    except Exception as error:  # a stranger's file can raise anything
        return "damage", first_line(error)


def _open(opener: str, memory: int, folder: str, path: str, *arguments: Any) -> Answer:
    os.chdir(folder)  # the parent's of now: the server is older
    _limit(resource.RLIMIT_AS, memory)
    module, _, function = opener.partition(":")
    return getattr(import_module(module), function)(Path(path), *arguments)
