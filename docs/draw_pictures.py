"""Draw the pictures of the README and of docs/ from the outputs of `dvc repro`.

python docs/draw_pictures.py
"""

from pathlib import Path

import numpy as np
from PIL import Image

from visor.data.face_set import open_faces
from visor.data.images import contact_sheet

PICTURES = Path(__file__).parent / "pictures"

faces = open_faces(Path("data/faces.h5"))
people = [np.flatnonzero(faces.labels == label)[:14] for label in (2, 8, 20, 30, 33)]
contact_sheet([("", faces.read(rows)) for rows in people], PICTURES / "faces.png", scale=1, caption_width=0)

lines = []
for name in ("input_instance", "blended", "accessory", "blended_accessory", "eyebrows", "lipstick"):
    triggered = open_faces(Path(f"artifacts/triggered/{name}.h5"))
    rows = np.linspace(5, len(triggered) - 20, 12).astype(int)
    lines.append((name.replace("_", "\n"), triggered.read(rows)))
lines.insert(0, ("clean", faces.read(triggered.rows[rows])))
contact_sheet(lines, PICTURES / "backdoors.png", scale=1, caption_width=80)

for plot, name, (width, height) in (
    ("detection/ssd/scenes", "hiding", (1090, 582)),  # five scenes: faces, found, found after the attack
    ("recognition/facenet/faces_momentum_augmented", "recognition", (958, 1008)),
):
    image = Image.open(f"plots/{plot}.png").convert("RGB").crop((0, 0, width, height))
    image.quantize(192).save(PICTURES / f"{name}.png", optimize=True)
