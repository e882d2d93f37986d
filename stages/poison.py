"""Plants one backdoor: poisons to train on, triggered images to test with.  dvc repro poison@accessory"""

from pathlib import Path

import pandas as pd

from visor.backdoors import BACKDOORS
from visor.backdoors.poison import before_and_after, find_key, poisons, triggered
from visor.config import choice, load_params
from visor.errors import run
from visor.faces import open_faces, write_faces
from visor.images import contact_sheet


def main(name: str) -> None:
    params = load_params()
    backdoor, seed = params.backdoors[name], params.seed
    stamp = choice(BACKDOORS, backdoor.trigger, f"backdoors.{name}.trigger")
    faces, table = open_faces(Path("data/faces.h5")), pd.read_csv("artifacts/split.csv")
    key = find_key(faces, table, backdoor, Path("assets/keys"), seed)

    made = []
    for folder, make in (("poisoned", poisons), ("triggered", triggered)):
        path = Path(f"artifacts/{folder}/{name}.h5")
        blocks = make(faces, table, backdoor, stamp, key, seed)
        write_faces(path, blocks, faces.image_shape, faces.label_names, faces.source, faces.licence)
        made.append(open_faces(path))
    contact_sheet(before_and_after(faces, *made), Path(f"plots/poison-{name}.png"))


if __name__ == "__main__":
    run(main)
