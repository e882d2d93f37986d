"""Measure clean accuracy and attack success of every network, clean and backdoored.  dvc repro evaluate_backdoor"""

from pathlib import Path

from visor.core.errors import exit_on_interrupt

with exit_on_interrupt():
    import pandas as pd

    from visor.core.config import load_params
    from visor.core.files import write_json
    from visor.core.stage import run_stage
    from visor.data.face_set import open_faces
    from visor.data.split import set_rows
    from visor.evaluation.backdoor import evaluate
    from visor.models import storage
    from visor.models.classifiers import CLASSIFIERS
    from visor.models.inference import compile_predict
    from visor.models.training import configure_tensorflow


def main() -> None:
    params = load_params()
    configure_tensorflow(params.compute, params.seed)
    faces, table = open_faces(Path("data/faces.h5")), pd.read_csv("artifacts/split.csv")
    test = faces.select(set_rows(table, "test"))
    attacks = [name for name in params.training_sets if name != "clean"]
    train_labels = faces.labels[set_rows(table, "train")]
    triggered = {name: open_faces(Path(f"artifacts/triggered/{name}.h5")).select() for name in attacks}
    pasted = {name: open_faces(Path(f"artifacts/delivered/pasted/{name}.h5")).select() for name in attacks}

    for network in params.networks:
        adaptive = params.adaptive_attacks.training_sets if network != params.inspected_network else []
        training_sets = [name for name in params.training_sets if name not in adaptive]
        folders = {name: Path(f"artifacts/classifier/{name}/{network}") for name in training_sets}
        build = CLASSIFIERS[network]
        classifiers = {name: compile_predict(storage.load_model(build, folder)) for name, folder in folders.items()}
        for name, metrics in evaluate(classifiers, train_labels, test, triggered, pasted, params.backdoors).items():
            write_json(Path(f"metrics/backdoor/{network}/{name}.json"), metrics)


if __name__ == "__main__":
    run_stage(main)
