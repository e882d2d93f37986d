"""Make poisons to train on and triggered images to test with, for every attack.  dvc repro poison"""

import sys
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from visor.attacks.backdoors.placement import LandmarkPlacement
from visor.attacks.backdoors.poisoning import (
    check_backdoors,
    fixed_placement,
    load_keys,
    make_poisons,
    make_triggered,
    preview_rows,
)
from visor.attacks.backdoors.triggers import TRIGGERS
from visor.core.config import load_params, lookup
from visor.core.stage import run_stage
from visor.data.face_set import open_faces, write_faces
from visor.data.images import contact_sheet


def main() -> None:
    params = load_params()
    faces, table = open_faces(Path("data/faces.h5")), pd.read_csv("artifacts/split.csv")
    check_backdoors(params.backdoors, faces.label_names, table, f"{faces.path} as artifacts/split.csv divides it")
    metadata = faces.image_shape, faces.label_names, faces.source, faces.licence
    attacks = []  # All are checked before the first is written.
    for name, backdoor in params.backdoors.items():
        trigger = lookup(TRIGGERS, backdoor.trigger, f"backdoors.{name}.trigger")
        keys = load_keys(faces, table, backdoor, Path("assets/keys"), params.seed)
        place = LandmarkPlacement() if backdoor.placement == "landmarks" else fixed_placement
        poisons = make_poisons(faces, table, backdoor, trigger, keys[0], params.seed, place)
        triggered = make_triggered(faces, table, backdoor, trigger, keys, params.seed, place)
        attacks.append((name, place, poisons, triggered))
    write_faces(Path("artifacts/poisoned/clean.h5"), [], *metadata)  # The clean training set has no poisons.
    for name, place, *blocks in tqdm(attacks, desc="poison", unit="attack", disable=None):
        paths = [Path(f"artifacts/{folder}/{name}.h5") for folder in ("poisoned", "triggered")]
        for path, part in zip(paths, blocks, strict=True):
            write_faces(path, part, *metadata)
        contact_sheet(preview_rows(faces, *map(open_faces, paths)), Path(f"plots/poison/{name}.png"))
        if isinstance(place, LandmarkPlacement):
            tqdm.write(f"{name}: {place.summary()}", file=sys.stderr)


if __name__ == "__main__":
    run_stage(main)
