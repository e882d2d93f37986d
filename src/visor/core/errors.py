"""Errors that a user can correct; a program ends on them with one sentence and without a traceback."""

import errno
import inspect
import os
import sys
import threading
from collections.abc import Callable
from typing import NoReturn


class UserError(Exception):
    """One sentence that names the file or key, says what is wrong with it and what to do."""


def run_cli(main: Callable[..., None]) -> None:
    """Call ``main`` with the arguments of the command line; a UserError ends the process with exit code 1."""
    script, *arguments = sys.argv
    signature = inspect.signature(main)
    try:
        signature.bind(*arguments)
    except TypeError:
        sys.exit(f"usage: python {script} {' '.join(signature.parameters).upper()}")
    try:
        main(*arguments)
    except UserError as error:
        exit_with_message(f"error: {error}")
    except OSError as error:
        file = error.filename or "while writing"
        if error.errno == errno.ENOENT and str(file).startswith(("artifacts/", "data/", "metrics/")):
            exit_with_message(f"error: {file} is missing; run `dvc repro` to make it")
        if error.errno != errno.ENOSPC:
            raise
        exit_with_message(f"error: the disk is full ({file}); free some space and run again")
    except KeyboardInterrupt:
        exit_with_message("interrupted; run the same command again to continue")


def exit_with_message(message: str) -> NoReturn:
    """End the process with exit code 1, without waiting for fits that still run in other threads."""
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        print(message, file=sys.stderr, flush=True)
        os._exit(1)
    sys.exit(message)


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, or the name of its class if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
