"""Logs of errors without their messages, which may contain the name of a photo: kind and lines of code only."""

import logging
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

MAX_FRAMES = 8  # innermost frames


def error_location(error: BaseException) -> str:
    """Return the kind of an error and the lines of code that led to it, the innermost first."""
    frames = [(Path(frame.f_code.co_filename).name, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    lines = " ← ".join(f"{name}:{line}" for name, line in reversed(frames[-MAX_FRAMES:]))
    return f"{type(error).__name__} at {lines}" if lines else type(error).__name__


def redact_logs() -> None:
    """Make every log record, and every thread that ends by an error, show ``error_location`` and no traceback."""
    make_record = logging.getLogRecordFactory()

    def make_redacted(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make_record(*args, **kwargs)
        error = record.exc_info[1] if record.exc_info else None
        if error:
            record.msg, record.args, record.exc_info = f"{record.msg}: {error_location(error)}", (), None
        return record

    logging.setLogRecordFactory(make_redacted)
    threading.excepthook = lambda ended: print(
        "a thread ended by", error_location(ended.exc_value or ended.exc_type()), file=sys.stderr
    )
