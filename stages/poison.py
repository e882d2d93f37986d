"""Plants the backdoors: poisons to train on, triggered images to test with.  dvc repro poison"""

import sys
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from visor.backdoors import BACKDOORS
from visor.backdoors.poison import before_and_after, find_keys, fixed, poisons, triggered
from visor.config import choice, load_params
from visor.faces import open_faces, write_faces
from visor.images import contact_sheet
from visor.landmarks import ByLandmarks
from visor.stage import run


def main() -> None:
    params = load_params()
    faces, table = open_faces(Path("data/faces.h5")), pd.read_csv("artifacts/split.csv")
    about = faces.image_shape, faces.label_names, faces.source, faces.licence
    attacks = []  # all of them checked before the first is written
    for name, backdoor in params.backdoors.items():
        stamp = choice(BACKDOORS, backdoor.trigger, f"backdoors.{name}.trigger")
        keys = find_keys(faces, table, backdoor, Path("assets/keys"), params.seed)
        place = ByLandmarks() if backdoor.placement == "landmarks" else fixed
        train = poisons(faces, table, backdoor, stamp, keys[0], params.seed, place)
        attacks.append((name, place, train, triggered(faces, table, backdoor, stamp, keys, params.seed, place)))
    write_faces(Path("artifacts/poisoned/clean.h5"), [], *about)  # the clean training set adds no poisons
    for name, place, *blocks in tqdm(attacks, desc="poison", unit="attack", disable=None):
        made = [Path(f"artifacts/{folder}/{name}.h5") for folder in ("poisoned", "triggered")]
        for path, part in zip(made, blocks, strict=True):
            write_faces(path, part, *about)
        contact_sheet(before_and_after(faces, *map(open_faces, made)), Path(f"plots/poison/{name}.png"))
        if isinstance(place, ByLandmarks):
            tqdm.write(f"{name}: {place.summary()}", file=sys.stderr)


if __name__ == "__main__":
    run(main)
