"""Score clean and triggered faces with every defence, and ask the attacked networks.  dvc repro score_defences"""

from pathlib import Path

from visor.core.errors import exit_on_interrupt

with exit_on_interrupt():
    import pandas as pd

    from visor.attacks.backdoors.poisoning import target_label
    from visor.core.config import load_params
    from visor.core.files import sha256_of_file, write_json, write_text
    from visor.core.stage import run_stage
    from visor.data.face_set import open_faces
    from visor.data.split import set_rows, validation_rows
    from visor.defences.input_filtering import INPUT_FILTERS, NEEDS_CLASSIFIER
    from visor.defences.input_filtering.base import DefenceInputs, SecondOpinion
    from visor.evaluation.defences import (
        PASTED,
        SUITE,
        SUITE_ALONE,
        predict_sets,
        score_name,
        score_sets,
        visible_sets,
    )
    from visor.evaluation.plots.reconstructions import reconstruction_sheet
    from visor.models import autoencoder, storage
    from visor.models.alignment import aligned_embeddings
    from visor.models.classifiers import CLASSIFIERS
    from visor.models.inference import compile_predict
    from visor.models.published.loading import load_recogniser
    from visor.models.training import configure_tensorflow


def main() -> None:
    params = load_params()
    configure_tensorflow(params.compute, params.seed)
    faces, table = open_faces(Path("data/faces.h5")), pd.read_csv("artifacts/split.csv")
    fitted, calibration = (faces.select(rows) for rows in validation_rows(table))
    attacks = sorted({*params.training_sets} - {"clean"})
    files = {name: f"artifacts/triggered/{name}.h5" for name in params.backdoors}
    files |= {"delivered": "artifacts/delivered/clean.h5"}
    files |= {f"{PASTED}{name}": f"artifacts/delivered/pasted/{name}.h5" for name in attacks}
    delivered = {name: open_faces(Path(file)).select() for name, file in files.items()}
    sets = {"calibration": calibration, "clean": faces.select(set_rows(table, "test")), **delivered}
    full, *folds = [storage.load_model(autoencoder.build, path) for path in sorted(Path("artifacts/vae").iterdir())]
    inputs = DefenceInputs(fitted, full, folds, None, calibration)
    inputs = inputs._replace(false_positive_rate=params.defences["suite"].false_positive_rate)
    if second := params.second_opinion.network:
        embed = aligned_embeddings(load_recogniser(second), params.second_opinion.eyes)
        opinion = SecondOpinion(embed, params.second_opinion.distance)
        inputs = inputs._replace(second_opinion=opinion)

    build, folder = CLASSIFIERS[params.inspected_network], Path("artifacts/classifier")
    networks = {name: storage.load_model(build, folder / name / params.inspected_network) for name in attacks}
    for attack, network in networks.items():
        target = target_label(params.backdoors[attack].target, faces.label_names, table)
        predictions = predict_sets(compile_predict(network), visible_sets(attack, sets), attack, target)
        write_text(Path(f"artifacts/predictions/{attack}.csv"), predictions.to_csv(index=False))
    filters = {name: (fit, inputs) for name, fit in INPUT_FILTERS.items() if second or name != "second_opinion"}
    if second:
        filters[SUITE_ALONE] = INPUT_FILTERS[SUITE], inputs._replace(second_opinion=None)
    for name, (fit, known) in filters.items():
        for questioned in attacks if name in {*NEEDS_CLASSIFIER, SUITE_ALONE} else [None]:
            score = fit(known._replace(classifier=networks[questioned] if questioned else None))
            file = score_name(name, questioned)
            scores = score_sets(score, visible_sets(questioned, sets), file)
            write_text(Path(f"artifacts/scores/{file}.csv"), scores.to_csv(index=False, float_format="%.9g"))
    digests = {name: sha256_of_file(selection.faces.path)[:16] for name, selection in delivered.items()}
    write_json(Path("artifacts/scores/digests.json"), digests)
    shown = {name: selection for name, selection in sets.items() if not name.startswith(PASTED)}
    reconstruction_sheet(full, shown, Path("plots/reconstructions.png"))


if __name__ == "__main__":
    run_stage(main)
