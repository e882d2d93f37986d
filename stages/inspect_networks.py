"""Searches attacked networks and their training sets for what was planted.  dvc repro inspect_networks"""

from pathlib import Path

import pandas as pd

from visor.backdoors.poison import target_label
from visor.config import load_params
from visor.evaluation.inspection import Suspect, inspect
from visor.evaluation.inspection_figures import draw
from visor.faces import open_faces
from visor.files import write_json, write_text
from visor.models import CLASSIFIERS, storage
from visor.split import rows_of
from visor.stage import run
from visor.training import configure


def main() -> None:
    params = load_params()
    configure(params.compute, params.seed)
    faces, table = open_faces(Path("data/faces.h5")), pd.read_csv("artifacts/split.csv")
    train, validation, test = (faces.select(rows_of(table, name)) for name in ("train", "validation", "test"))
    build, networks = CLASSIFIERS[params.suspect], Path("artifacts/classifier")
    models = {name: storage.load(build, networks / name / params.suspect) for name in params.training_sets}
    clean, suspects = models.pop("clean"), {}
    for name, model in models.items():
        poisons, triggered = (open_faces(Path(f"artifacts/{made}/{name}.h5")) for made in ("poisoned", "triggered"))
        target = target_label(params.backdoors[name].target, faces.label_names, table)
        suspects[name] = Suspect(model, train, poisons.select(), triggered.select(), target)
    findings = inspect(suspects, clean, validation, test, params.inspection, params.seed)

    for name, numbers in findings.numbers.items():
        write_json(Path(f"metrics/inspection/{name}.json"), numbers)
    write_text(Path("metrics/fine_pruning.csv"), findings.curves.to_csv(index=False, float_format="%.6g"))
    draw(findings, faces.label_names, params.inspection.fine_pruning.layer, Path("plots/inspection"))


if __name__ == "__main__":
    run(main)
