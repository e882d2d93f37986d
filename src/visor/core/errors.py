"""Mistakes that a user can make and mend; a program ends on them with one sentence, no traceback."""

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
    """Call ``main`` with the words of the command line; a user's mistake ends it with exit code 1."""
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
        made = str(error.filename).startswith(("artifacts/", "data/", "metrics/"))
        if error.errno == errno.ENOENT and made:
            exit_with_message(f"error: {error.filename} is missing; run `dvc repro` to make it")
        if error.errno != errno.ENOSPC:
            raise
        exit_with_message(
            f"error: the disk is full ({error.filename or 'while writing'}); free some space and run again"
        )
    except KeyboardInterrupt:
        exit_with_message("interrupted; run the same command again to go on")


def exit_with_message(arguments: str) -> NoReturn:
    """End the process with exit code 1; fits that still run in other threads are not waited for."""
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        print(arguments, file=sys.stderr, flush=True)
        os._exit(1)
    sys.exit(arguments)
