"""Mistakes that a user can make and mend; a program ends on them with one sentence, no traceback."""

import errno
import inspect
import sys
from collections.abc import Callable


class UserError(Exception):
    """One sentence that names the file or key, says what is wrong with it and what to do."""


def run(main: Callable[..., None]) -> None:
    """Call ``main`` with the words of the command line; a user's mistake ends it with exit code 1."""
    script, *words = sys.argv
    signature = inspect.signature(main)
    try:
        signature.bind(*words)
    except TypeError:
        sys.exit(f"usage: python {script} {' '.join(signature.parameters).upper()}")
    try:
        main(*words)
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        made = str(error.filename).startswith(("artifacts/", "data/", "metrics/"))
        if error.errno == errno.ENOENT and made:
            sys.exit(f"error: {error.filename} is missing; run `dvc repro` to make it")
        if error.errno != errno.ENOSPC:
            raise
        sys.exit(f"error: the disk is full ({error.filename or 'while writing'}); free some space and run again")
    except KeyboardInterrupt:
        sys.exit("interrupted; run the same command again to go on")
