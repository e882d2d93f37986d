"""Figures as files."""

from pathlib import Path

from matplotlib.figure import Figure

from visor.core.files import atomic_write


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG whose bytes repeat."""
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
