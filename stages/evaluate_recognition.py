"""How well attacks on one recogniser fool it, and all others.  dvc repro evaluate_recognition@facenet"""

from pathlib import Path

import pandas as pd

from visor.config import load_params
from visor.detectors import DETECTORS
from visor.evaluation.recognition.report import curves_of, draw, metrics_of, texts_of, top_of
from visor.evaluation.recognition.surrogate import evaluate
from visor.faces import open_faces
from visor.files import write_json, write_text
from visor.recognisers.recogniser import load
from visor.stage import run
from visor.training import SIDE_BY_SIDE, configure


def main(name: str) -> None:
    params = load_params()
    configure(params.compute, params.seed, SIDE_BY_SIDE)
    settings, made = params.recognition, Path("artifacts")
    recognisers = {each: load(each, made / "recogniser" / each) for each in settings.trained}
    in_front = [each for each in settings.in_front if each in DETECTORS]
    detectors = {each: DETECTORS[each].load(params.detectors[each], made / "detector" / each) for each in in_front}
    faces, table = open_faces(Path("data/faces.h5")), pd.read_csv("artifacts/split.csv")

    found = evaluate(
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
    run(main)
