"""Plants one backdoor: poisons to train on, triggered images to test with.  dvc repro poison@accessory"""

from pathlib import Path

import pandas as pd

from visor.backdoors import BACKDOORS
from visor.backdoors.poison import before_and_after, face_key, poisons, triggered
from visor.config import choice, load_params
from visor.errors import run
from visor.faces import open_faces, write_faces
from visor.images import contact_sheet, read_key


def main(name: str) -> None:
    params = load_params()
    backdoor, seed = params.backdoors[name], params.seed
    stamp = choice(BACKDOORS, backdoor.trigger, f"backdoors.{name}.trigger")
    faces, table = open_faces(Path("data/faces.h5")), pd.read_csv("artifacts/split.csv")
    height, width, _ = faces.image_shape
    if backdoor.key == "face":
        key = face_key(faces, table, backdoor, seed)
    else:
        key = read_key(Path(f"assets/keys/{backdoor.key}.png"), height, width)

    made = []
    for folder, make in (("poisoned", poisons), ("triggered", triggered)):
        path = Path(f"artifacts/{folder}/{name}.h5")
        blocks = make(faces, table, backdoor, stamp, key, seed)
        write_faces(path, blocks, faces.image_shape, faces.label_names, faces.source, faces.licence)
        made.append(open_faces(path))
    contact_sheet(before_and_after(faces, *made), Path(f"plots/poison-{name}.png"))


if __name__ == "__main__":
    run(main)
