"""Make poisons to train on and triggered images to test with, for every attack.  dvc repro poison"""

import sys
from functools import partial
from pathlib import Path

from visor.core.errors import exit_on_interrupt

with exit_on_interrupt():
    import pandas as pd
    from tqdm import tqdm

    from visor.attacks.backdoors.delivery import jpeg, open_delivery
    from visor.attacks.backdoors.placement import LandmarkPlacement
    from visor.attacks.backdoors.poisoning import (
        check_backdoors,
        deliver_clean,
        fixed_placement,
        load_keys,
        make_poisons,
        make_triggered,
        pasted,
        preview_rows,
    )
    from visor.attacks.backdoors.triggers import TRIGGERS
    from visor.core.config import load_params, lookup
    from visor.core.stage import run_stage
    from visor.data.face_set import open_faces, write_faces
    from visor.data.images import contact_sheet
    from visor.data.split import set_rows


def main() -> None:
    params = load_params()
    faces, table = open_faces(Path("data/faces.h5")), pd.read_csv("artifacts/split.csv")
    check_backdoors(params.backdoors, faces.label_names, table, f"{faces.path} as artifacts/split.csv divides it")
    settings = params.sources.get(params.faces.source, {})
    deliver = open_delivery(params.delivery, faces, params.faces.source, settings, params.seed)
    metadata = faces.image_shape, faces.label_names, faces.source, faces.licence
    attacks = []  # All are checked before the first is written.
    for name, backdoor in params.backdoors.items():
        trigger = lookup(TRIGGERS, backdoor.trigger, f"backdoors.{name}.trigger")
        at_test = lookup(TRIGGERS, backdoor.trigger_at_test, f"backdoors.{name}.test_trigger")
        keys = load_keys(faces, table, backdoor, Path("assets/keys"), params.seed)
        place = LandmarkPlacement() if backdoor.placement == "landmarks" else fixed_placement
        poisons = make_poisons(faces, table, backdoor, trigger, keys, params.seed, deliver, place)
        test = faces, table, backdoor, at_test, keys, params.seed
        blocks = {
            f"artifacts/poisoned/{name}.h5": poisons,
            f"artifacts/triggered/{name}.h5": make_triggered(*test, deliver, place),
        }
        if name in params.training_sets:  # The same, but pasted: what the delivery changes.
            blocks[f"artifacts/delivered/pasted/{name}.h5"] = make_triggered(*test, pasted, place)
        attacks.append((name, place, blocks))
    write_faces(Path("artifacts/poisoned/clean.h5"), [], *metadata)  # The clean training set has no poisons.
    saved = deliver_clean(faces, set_rows(table, "test"), partial(jpeg, params.seed))
    write_faces(Path("artifacts/delivered/clean.h5"), saved, *metadata)
    for name, place, blocks in tqdm(attacks, desc="poison", unit="attack", disable=None):
        for path, part in blocks.items():
            write_faces(Path(path), part, *metadata)
        poisoned, triggered, *_ = (open_faces(Path(path)) for path in blocks)
        contact_sheet(preview_rows(faces, poisoned, triggered), Path(f"plots/poison/{name}.png"))
        if isinstance(place, LandmarkPlacement):
            tqdm.write(f"{name}: {place.summary()}", file=sys.stderr)


if __name__ == "__main__":
    run_stage(main)
