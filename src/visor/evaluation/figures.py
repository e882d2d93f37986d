"""Figures as files."""

from pathlib import Path

from matplotlib.figure import Figure

from visor.files import replacing


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG whose bytes repeat."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
