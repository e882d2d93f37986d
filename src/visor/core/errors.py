"""Errors that a user can correct; a program ends on them with one sentence and without a traceback.

Exit codes, of every command and of every stage: 0, all is well; 1, a gate or a photo failed, or the machine refused (a
full disk, a closed pipe); 2, wrong use or input; 130, interrupted.
"""

import errno
import inspect
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

FAILED, WRONG_USE, INTERRUPTED = 1, 2, 130
INTERRUPTION = "interrupted; run the same command again to continue"
FULL = {
    errno.ENOSPC: "the disk is full ({}); free some space and run again",
    errno.EDQUOT: "the disk quota is used up ({}); free some space and run again",
    errno.EFBIG: "the file is larger than the limit of this shell or disk ({}); raise it (`ulimit -f`) and run again",
}
REFUSED = (
    errno.EACCES,
    errno.EEXIST,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
)


class UserError(Exception):
    """One sentence that names the file or key, says what is wrong with it and what to do."""


def run_cli(main: Callable[..., None]) -> None:
    """Call ``main`` with the arguments of the command line; what a user can correct ends it with one sentence."""
    script, *arguments = sys.argv
    signature = inspect.signature(main)
    try:
        signature.bind(*arguments)
    except TypeError:
        exit_with_message(f"usage: python {script} {' '.join(signature.parameters).upper()}", WRONG_USE)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # A letter that the terminal lacks must not end a command.
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            main(*arguments)
        finally:
            if sys.stdout:  # None if it is closed.
                sys.stdout.flush()  # Here, because an error at the interpreter's end would change the exit code.
    except UserError as error:
        exit_with_message(f"error: {error}", WRONG_USE)
    except BrokenPipeError:
        exit_with_message("", FAILED)
    except OSError as error:
        sentence, code = _describe(error)
        exit_with_message(f"error: {sentence}", code)
    except KeyboardInterrupt:
        exit_with_message(INTERRUPTION, INTERRUPTED)


@contextmanager
def exit_on_interrupt() -> Iterator[None]:
    """Let Ctrl-C end the process as ``run_cli`` does while a script imports libraries, which takes seconds.

    It ends at once: libraries may swallow an exception, and ``core.tf`` holds standard error back meanwhile.
    """
    handler = signal.getsignal(signal.SIGINT)
    if handler is not signal.default_int_handler:  # ignored, as in the background of a shell
        yield
        return
    stderr = os.dup(2) if sys.stderr else os.open(os.devnull, os.O_WRONLY)

    def end(*_: object) -> None:
        with suppress(OSError):
            os.write(stderr, f"{INTERRUPTION}\n".encode())
        os._exit(INTERRUPTED)

    signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        os.close(stderr)


def _describe(error: OSError) -> tuple[str, int]:
    """Return the sentence and the exit code of an error of the operating system; raise it if it is no user's."""
    file = shorten(error.filename or "while writing", 200)
    if error.errno in FULL:
        return FULL[error.errno].format(file), FAILED
    if error.errno == errno.ENOENT and file.startswith(("artifacts/", "data/", "metrics/")):
        return f"{file} is missing; run `dvc repro` to make it", WRONG_USE
    if error.errno in REFUSED:
        return f"{file}: {error.strerror}; make it readable and writable, or name another place", WRONG_USE
    raise error


def exit_with_message(message: str, code: int) -> NoReturn:
    """End the process with an exit code, without waiting for fits that still run in other threads."""
    if message:
        print(message, file=sys.stderr, flush=True)
    try:
        if sys.stdout:
            sys.stdout.flush()
    except OSError:  # Nobody can be told on stdout; the interpreter flushes it once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        os._exit(code)
    sys.exit(code)


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, or the name of its class if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def shorten(value: object, width: int = 60) -> str:
    """Return a value as one line of at most ``width`` printable characters, as messages quote what strangers wrote."""
    text = " ".join(str(value).split())
    text = text if len(text) <= width else f"{text[: width - 1]}…"
    return "".join(letter if letter.isprintable() else "�" for letter in text)  # nothing that moves a terminal's cursor
