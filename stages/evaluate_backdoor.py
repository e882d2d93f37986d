"""Clean accuracy and attack success of every network, clean and backdoored.  dvc repro evaluate_backdoor"""

from pathlib import Path

import pandas as pd

from visor.config import load_params
from visor.evaluation.backdoor import evaluate
from visor.faces import open_faces
from visor.files import write_json
from visor.models import CLASSIFIERS, storage
from visor.models.inference import compiled
from visor.split import rows_of
from visor.stage import run
from visor.training import configure


def main() -> None:
    params = load_params()
    configure(params.compute, params.seed)
    faces, table = open_faces(Path("data/faces.h5")), pd.read_csv("artifacts/split.csv")
    test = faces.select(rows_of(table, "test"))
    attacks = [name for name in params.training_sets if name != "clean"]
    triggered = {name: open_faces(Path(f"artifacts/triggered/{name}.h5")).select() for name in attacks}

    for network in params.networks:
        folders = {name: Path(f"artifacts/classifier/{name}/{network}") for name in params.training_sets}
        build = CLASSIFIERS[network]
        classifiers = {name: compiled(storage.load(build, folder)) for name, folder in folders.items()}
        for name, numbers in evaluate(classifiers, test, triggered, params.backdoors).items():
            write_json(Path(f"metrics/backdoor/{network}/{name}.json"), numbers)


if __name__ == "__main__":
    run(main)
