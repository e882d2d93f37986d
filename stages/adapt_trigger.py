"""Optimise one attack's key against the autoencoder: the adaptive attack.  dvc repro adapt_trigger"""

from pathlib import Path

import pandas as pd

from visor.attacks.backdoors import adaptive
from visor.attacks.backdoors.poisoning import load_keys, make_triggered, target_label
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
    trigger, target = TRIGGERS[backdoor.trigger], target_label(backdoor.target, faces.label_names, table)
    key = load_keys(faces, table, backdoor, Path("assets/keys"), seed)[0]
    images = adaptive.attacker_images(faces, table, target, settings.images, seed)
    network = Path(f"artifacts/classifier/{settings.attack}/{params.inspected_network}")
    models = (
        storage.load_model(CLASSIFIERS[params.inspected_network], network),
        storage.load_model(autoencoder.build, Path("artifacts/vae/all")),
    )
    examine, mask = adaptive.residual_and_class(*models), adaptive.blend_mask(backdoor, trigger, key)
    threshold = adaptive.attacker_threshold(examine, images)
    adapted_key = adaptive.optimise_key(*models, images, key, mask, target, threshold, settings, seed)

    path = Path("artifacts/adapted/adapted.h5")
    blocks = make_triggered(faces, table, backdoor, trigger, adapted_key[None], seed)
    write_faces(path, blocks, faces.image_shape, faces.label_names, faces.source, faces.licence)
    plain, adapted = open_faces(Path(f"artifacts/triggered/{settings.attack}.h5")), open_faces(path)
    metrics = compare_triggers(examine, plain, adapted, target, threshold)
    write_json(Path("metrics/adaptation.json"), metrics)
    preview_sheet(faces, plain, adapted, Path("plots/adaptation.png"))


if __name__ == "__main__":
    run_stage(main)
