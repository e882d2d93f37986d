"""Contact sheets of scenes with boxes: what is there, what was found, and what is found after an attack."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from visor.evaluation.canvases import Canvases
from visor.evaluation.hiding import saved, strength_name
from visor.faces import Images
from visor.images import contact_sheet
from visor.params import Strength
from visor.scenes import FACE, Boxes

COLUMNS = 8
SIDE = 192  # pixels of a scene in the sheet
GAIN = 10  # times, of the perturbation
WHITE, GREEN, RED = (255, 255, 255), (60, 230, 60), (255, 60, 60)


def hidden_sheet(
    clean: Canvases, folder: Path, strength: Strength, found: Mapping[str, Sequence[Boxes]], path: Path
) -> None:
    """Save a PNG of some scenes with faces: true boxes white, found ones green, those after the attack red.

    ``found``: boxes in each scene, under ``clean`` and the name of the strength; its scenes are in ``folder``. The
    last line is the perturbation on grey, ten times as large.
    """
    before, after = found["clean"], found[f"pgd_{strength_name(strength)}"]
    attacked = saved(folder / f"{strength_name(strength)}.h5", clean)
    lines: list[list[Images]] = [[], [], [], []]
    place = 0
    for (images, (boxes, kinds)), (changed, _) in zip(clean.stream(), attacked, strict=True):
        for row in np.flatnonzero((kinds == FACE).any(axis=1))[: COLUMNS - len(lines[0])]:
            image, other = images[row], changed[row]
            lines[0].append(boxed(image, boxes[row][kinds[row] == FACE], WHITE))
            lines[1].append(boxed(image, before[place + row], GREEN))
            lines[2].append(boxed(other, after[place + row], RED))
            lines[3].append(_enlarged(np.clip(127.0 + GAIN * (other - image.astype(float)), 0, 255).astype(np.uint8)))
        place += len(images)
        if len(lines[0]) == COLUMNS:
            break
    names = ("faces", "found", "found after\nthe attack", f"perturbation,\n{GAIN} times")
    contact_sheet([(name, np.stack(line)) for name, line in zip(names, lines, strict=True)], path, scale=1)


def boxed(image: Images, boxes: Boxes, colour: tuple[int, int, int]) -> Images:
    """Return an image uint8 (s, s, 3) enlarged to ``SIDE`` with boxes (k, 4) drawn on it."""
    scale = SIDE / len(image)
    picture = Image.fromarray(_enlarged(image))
    draw = ImageDraw.Draw(picture)
    for x, y, width, height in scale * np.asarray(boxes, float):
        draw.rectangle((x, y, x + max(width, 1), y + max(height, 1)), outline=colour, width=2)
    return np.asarray(picture)


def _enlarged(image: Images) -> Images:
    return np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.LANCZOS))
