"""Tracking in MLflow: files are the truth, and one call logs what they record.

``state`` reads what ``dvc.lock`` and ``metrics/`` record, ``history`` reads one training curve, ``store`` opens MLflow,
``runs`` logs a pipeline state once, ``live`` follows a running training. MLflow is imported inside the functions that
need it, so that this package loads at once.
"""

from visor.tracking.live import follow
from visor.tracking.runs import TrackedState, track_state
from visor.tracking.store import resolve

__all__ = ["TrackedState", "follow", "resolve", "track_state"]
