"""What is said of a program's fault: what kind, and in which lines, never its message: that may hold a photo's name."""

import logging
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

FRAMES = 8  # the innermost ones


def error_location(error: BaseException) -> str:
    """Return the kind of an error and the lines of code that led to it, the innermost first."""
    frames = [(Path(frame.f_code.co_filename).name, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    places = " ← ".join(f"{name}:{line}" for name, line in reversed(frames[-FRAMES:]))
    return f"{type(error).__name__} at {places}" if places else type(error).__name__


def redact_logs() -> None:
    """Make every log, and every thread that ends by an error, say ``describe`` of it instead of a traceback."""
    make = logging.getLogRecordFactory()

    def described(*fields: Any, **named: Any) -> logging.LogRecord:
        record = make(*fields, **named)
        error = record.exc_info[1] if record.exc_info else None
        if error:
            record.msg, record.args, record.exc_info = f"{record.msg}: {error_location(error)}", (), None
        return record

    logging.setLogRecordFactory(described)
    threading.excepthook = lambda ended: print(
        "a thread ended by", error_location(ended.exc_value or ended.exc_type()), file=sys.stderr
    )
