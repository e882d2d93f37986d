"""How well attacks on one recogniser fool it, and all others.  dvc repro evaluate_recognition@facenet"""

from pathlib import Path

import pandas as pd

from visor.core.config import load_params
from visor.core.files import write_json, write_text
from visor.core.stage import run_stage
from visor.data.face_set import open_faces
from visor.evaluation.recognition.evaluate import curves_of, draw, evaluate_surrogate, metrics_of, texts_of, top_of
from visor.models.detectors import DETECTORS
from visor.models.recognisers.base import load
from visor.models.training import PARALLEL_JOBS, configure_tensorflow


def main(name: str) -> None:
    params = load_params()
    configure_tensorflow(params.compute, params.seed, PARALLEL_JOBS)
    settings, made = params.recognition_attack, Path("artifacts")
    recognisers = {each: load(each, made / "recogniser" / each) for each in settings.networks}
    in_front = [each for each in settings.cropping_detectors if each in DETECTORS]
    detectors = {each: DETECTORS[each].load(params.detectors[each], made / "detector" / each) for each in in_front}
    faces, table = open_faces(Path("data/faces.h5")), pd.read_csv("artifacts/split.csv")

    found = evaluate_surrogate(
        name, recognisers, detectors, faces, table, settings, params.seed, Path(f"artifacts/fooled/{name}")
    )

    for file, numbers in metrics_of(found, name, settings).items():
        write_json(Path(f"metrics/recognition/{name}/{file}.json"), numbers)
    write_text(Path(f"metrics/recognition_curves/{name}.csv"), curves_of(found, name))
    for file, text in texts_of(found, name, settings).items():
        write_text(made / "recognition" / name / file, text)
    write_json(made / "recognition" / name / "top.json", top_of(found, settings))
    draw(found, name, settings, params.seed, Path(f"plots/recognition/{name}"))


if __name__ == "__main__":
    run_stage(main)
