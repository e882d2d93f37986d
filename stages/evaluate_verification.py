"""Verify faces by the features of one network, with and without a backdoor key.  dvc repro evaluate_verification"""

from pathlib import Path

from visor.core.errors import exit_on_interrupt

with exit_on_interrupt():
    import pandas as pd

    from visor.core.config import load_params
    from visor.core.files import write_json
    from visor.core.stage import run_stage
    from visor.data.face_set import open_faces
    from visor.evaluation.plots.verification import roc_curves, similarities
    from visor.evaluation.verification import evaluate
    from visor.models import storage
    from visor.models.classifiers import CLASSIFIERS
    from visor.models.features import feature_extractor
    from visor.models.inference import compile_predict
    from visor.models.training import configure_tensorflow


def main() -> None:
    params = load_params()
    configure_tensorflow(params.compute, params.seed)
    settings = params.verification
    faces, table = open_faces(Path("data/faces.h5")), pd.read_csv("artifacts/split.csv")
    build = CLASSIFIERS[params.inspected_network]
    folders = {name: Path(f"artifacts/classifier/{name}/{params.inspected_network}") for name in params.training_sets}
    embeds = {
        name: compile_predict(feature_extractor(storage.load_model(build, folder))) for name, folder in folders.items()
    }
    paths = {name: Path(f"artifacts/triggered/{name}.h5") for name in folders if name != "clean"}
    triggered = {name: open_faces(path).select() for name, path in paths.items()}

    metrics, scores = evaluate(embeds, faces, table, triggered, params.backdoors, settings, params.seed)

    for name, values in metrics.items():
        write_json(Path(f"metrics/verification/{name}.json"), values)
    roc_curves(scores, Path("plots/verification/roc.png"))
    similarities(scores, Path("plots/verification/similarity.png"))


if __name__ == "__main__":
    run_stage(main)
