"""Attack the classes of one recogniser.  dvc repro evaluate_classification@resnet50"""

from pathlib import Path

from visor.core.errors import exit_on_interrupt

with exit_on_interrupt():
    import numpy as np
    import pandas as pd

    from visor.core.config import load_params
    from visor.core.files import write_json, write_text
    from visor.core.stage import run_stage
    from visor.data.face_set import open_faces
    from visor.data.identity_split import split_identities
    from visor.data.split import set_rows
    from visor.evaluation.recognition.classification import classification_metrics, evaluate, top_markdown, top_tables
    from visor.models.recognisers.base import load
    from visor.models.training import PARALLEL_JOBS, configure_tensorflow


def main(name: str) -> None:
    params = load_params()
    configure_tensorflow(params.compute, params.seed, PARALLEL_JOBS)
    recogniser, settings = load(name, Path(f"artifacts/recogniser/{name}")), params.classification_attack
    faces, table = open_faces(Path("data/faces.h5")), pd.read_csv("artifacts/split.csv")
    people = split_identities(table, params.recognition_attack.held_out_share, params.seed).trained
    rows = set_rows(table, "test")
    rows = rows[np.isin(faces.labels[rows], people)]

    findings = evaluate(recogniser, faces, rows, settings, params.seed, Path(f"artifacts/misclassified/{name}"))

    for goal, metrics in classification_metrics(findings).items():
        write_json(Path(f"metrics/classification/{name}/{goal}.json"), metrics)
    top = top_tables(findings)
    write_json(Path(f"artifacts/classification/{name}/top.json"), {"faces": top})
    write_text(Path(f"artifacts/classification/{name}/top.md"), top_markdown(top, name))


if __name__ == "__main__":
    run_stage(main)
