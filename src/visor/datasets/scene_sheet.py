"""A picture of some scenes of each set with their boxes."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from visor.faces import Images
from visor.images import contact_sheet
from visor.scenes import FACE, SETS, SceneSet, letterbox

COLUMNS, SIDE = 8, 160
GREEN, GREY = (60, 230, 60), (170, 170, 170)


def scene_sheet(scenes: SceneSet, path: Path) -> None:
    """Save a PNG with a line of scenes for each set: faces are boxed in green, what is ignored in grey."""
    lines = []
    for name in SETS:
        rows = scenes.rows(name)
        shown = rows[np.linspace(0, len(rows) - 1, min(COLUMNS, len(rows))).astype(int)]
        lines.append((f"{name}\n{len(rows)} scenes", np.stack([boxed(scenes, row) for row in shown])))
    contact_sheet(lines, path, scale=1, caption_width=80)


def boxed(scenes: SceneSet, row: int) -> Images:
    """Return one scene uint8 (SIDE, SIDE, 3) with its boxes."""
    boxes, kinds = scenes.truth(row)
    image, boxes = letterbox(scenes.image(row), boxes, SIDE)
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    for (x, y, width, height), kind in zip(boxes, kinds, strict=True):
        outline = GREEN if kind == FACE else GREY
        draw.rectangle((x, y, x + max(width - 1, 1), y + max(height - 1, 1)), outline=outline)
    return np.asarray(picture)
