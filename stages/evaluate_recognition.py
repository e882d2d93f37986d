"""Attack the embeddings of one recogniser and evaluate it and all others.  dvc repro evaluate_recognition@facenet"""

from pathlib import Path

from visor.core.errors import exit_on_interrupt

with exit_on_interrupt():
    import pandas as pd

    from visor.core.config import load_params
    from visor.core.files import write_json, write_text
    from visor.core.stage import run_stage
    from visor.data.face_set import open_faces
    from visor.evaluation.recognition.evaluate import curves_of, draw, evaluate_surrogate, metrics_of, texts_of
    from visor.evaluation.recognition.photographs import open_photographs
    from visor.models.detectors import DETECTORS
    from visor.models.published.loading import load_of_params
    from visor.models.training import PARALLEL_JOBS, configure_tensorflow


def main(name: str) -> None:
    params = load_params()
    configure_tensorflow(params.compute, params.seed, PARALLEL_JOBS)
    settings, artifacts = params.recognition_attack, Path("artifacts")
    recognisers = {
        key: load_of_params(key, params.recognisers[key], artifacts / "recogniser" / key) for key in settings.networks
    }
    croppers = [key for key in settings.cropping_detectors if key in DETECTORS]
    detectors = {key: DETECTORS[key].load(params.detectors[key], artifacts / "detector" / key) for key in croppers}
    faces, table = open_faces(Path("data/faces.h5")), pd.read_csv("artifacts/split.csv")
    if settings.photo_side:
        source = params.sources.get(params.faces.source, {})
        faces = open_photographs(faces, params.faces.source, source, params.seed, settings.photo_side)

    folder = Path(f"artifacts/fooled/{name}")
    findings = evaluate_surrogate(name, recognisers, detectors, faces, table, settings, params.seed, folder)

    for file, metrics in metrics_of(findings).items():
        write_json(Path(f"metrics/recognition/{name}/{file}.json"), metrics)
    curves = curves_of(findings).to_csv(index=False, float_format="%.6g")
    write_text(Path(f"metrics/recognition_curves/{name}.csv"), curves)
    for file, text in texts_of(findings).items():
        write_text(artifacts / "recognition" / name / file, text)
    draw(findings, Path(f"plots/recognition/{name}"))


if __name__ == "__main__":
    run_stage(main)
