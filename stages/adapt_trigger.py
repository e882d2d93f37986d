"""Bends one attack's key until the autoencoder lets it pass: the adaptive twin.  dvc repro adapt_trigger"""

from pathlib import Path

import pandas as pd

from visor.attacks.backdoors.adaptive import (
    attacker_images,
    attacker_threshold,
    blend_mask,
    optimise_key,
    residual_and_class,
)
from visor.attacks.backdoors.poisoning import load_key, make_triggered, target_label
from visor.attacks.backdoors.triggers import TRIGGERS
from visor.core.config import load_params
from visor.core.files import write_json
from visor.core.stage import run_stage
from visor.data.face_set import open_faces, write_faces
from visor.evaluation.adaptive_trigger import compare_triggers, preview_sheet
from visor.models import autoencoder, storage
from visor.models.classifiers import CLASSIFIERS
from visor.models.training import configure_tensorflow


def main() -> None:
    params = load_params()
    configure_tensorflow(params.compute, params.seed)
    settings, seed, backdoor = params.adaptive_trigger, params.seed, params.backdoors[params.adaptive_trigger.attack]
    faces, table = open_faces(Path("data/faces.h5")), pd.read_csv("artifacts/split.csv")
    stamp, target = TRIGGERS[backdoor.trigger], target_label(backdoor.target, faces.label_names, table)
    key = load_key(faces, table, backdoor, Path("assets/keys"), seed)
    own = attacker_images(faces, table, target, settings.images, seed)
    network = Path(f"artifacts/classifier/{settings.attack}/{params.inspected_network}")
    models = (
        storage.load_model(CLASSIFIERS[params.inspected_network], network),
        storage.load_model(autoencoder.build, Path("artifacts/vae/all")),
    )
    threshold = attacker_threshold(residual_and_class(*models), own)
    bent = optimise_key(*models, own, key, blend_mask(backdoor, stamp, key), target, threshold, settings, seed)

    path, blocks = Path("artifacts/adapted/adapted.h5"), make_triggered(faces, table, backdoor, stamp, bent[None], seed)
    write_faces(path, blocks, faces.image_shape, faces.label_names, faces.source, faces.licence)
    plain, adapted = open_faces(Path(f"artifacts/triggered/{settings.attack}.h5")), open_faces(path)
    write_json(
        Path("metrics/adaptation.json"),
        compare_triggers(residual_and_class(*models), plain, adapted, target, threshold),
    )
    preview_sheet(faces, plain, adapted, Path("plots/adaptation.png"))


if __name__ == "__main__":
    run_stage(main)
