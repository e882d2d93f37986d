"""Clean accuracy and attack success of one network, clean and backdoored.  dvc repro evaluate_backdoor@deepid"""

from pathlib import Path

import pandas as pd

from visor.config import load_params
from visor.errors import run
from visor.evaluation.backdoor import evaluate
from visor.faces import open_faces
from visor.files import write_json
from visor.models import CLASSIFIERS, storage
from visor.models.inference import compiled
from visor.split import rows_of
from visor.training import configure


def main(network: str) -> None:
    params = load_params()
    configure(params.compute, params.seed)
    faces, table = open_faces(Path("data/faces.h5")), pd.read_csv("artifacts/split.csv")
    test = faces.select(rows_of(table, "test"))
    folder = Path(f"artifacts/classifier/{network}")
    names, build = params.training_sets, CLASSIFIERS[network]
    classifiers = {name: compiled(storage.load(build, folder / name)) for name in names}
    attacks = [name for name in names if name != "clean"]
    triggered = {name: open_faces(Path(f"artifacts/triggered/{name}.h5")).select() for name in attacks}

    for name, numbers in evaluate(classifiers, test, triggered, params.backdoors).items():
        write_json(Path(f"metrics/backdoor/{network}/{name}.json"), numbers)


if __name__ == "__main__":
    run(main)
