"""Inspect attacked networks and their training sets for backdoors.  dvc repro inspect_networks"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from visor.core.errors import exit_on_interrupt

with exit_on_interrupt():
    import pandas as pd

    from visor.attacks.backdoors.poisoning import target_label
    from visor.core.config import load_params
    from visor.core.files import write_json, write_text
    from visor.core.stage import run_stage
    from visor.core.tf import keras
    from visor.data.face_set import FaceSelection, open_faces
    from visor.data.split import set_rows
    from visor.evaluation.inspection import AttackedModel, inspect
    from visor.evaluation.plots.inspection import draw
    from visor.models import storage
    from visor.models.classifiers import CLASSIFIERS
    from visor.models.losses import classification_loss
    from visor.models.training import configure_tensorflow, fit, labelled_data, set_seed


def main() -> None:
    params = load_params()
    configure_tensorflow(params.compute, params.seed)
    faces, table = open_faces(Path("data/faces.h5")), pd.read_csv("artifacts/split.csv")
    train, validation, test = (faces.select(set_rows(table, name)) for name in ("train", "validation", "test"))
    build, networks = CLASSIFIERS[params.inspected_network], Path("artifacts/classifier")
    models = {
        name: storage.load_model(build, networks / name / params.inspected_network) for name in params.training_sets
    }
    clean, suspects = models.pop("clean"), {}
    for name, model in models.items():
        folders = ("poisoned", "triggered", "delivered/pasted")
        poisons, triggered, pasted = (open_faces(Path(f"artifacts/{folder}/{name}.h5")).select() for folder in folders)
        target = target_label(params.backdoors[name].target, faces.label_names, table)
        suspects[name] = AttackedModel(model, train, poisons, triggered, pasted, target)
    settings = params.classifiers[params.inspected_network]

    def retrain(selections: Sequence[FaceSelection]) -> keras.Model:
        """Return the inspected network, trained as ``train_classifiers`` does, but on other faces."""
        set_seed(params.seed)
        arguments = {"image_shape": faces.image_shape, "num_classes": len(faces.label_names), **settings.architecture}
        model = storage.build_model(build, arguments, f"classifiers.{params.inspected_network}.architecture")
        data = labelled_data(selections, params.seed), labelled_data([validation], params.seed)
        with TemporaryDirectory() as folder:
            history = Path(folder) / "history.csv"
            fit(model, classification_loss, *data, settings, params.compute, params.seed, history)
        return model

    findings = inspect(suspects, clean, validation, test, params.inspection, params.seed, retrain)

    for name, metrics in findings.metrics.items():
        write_json(Path(f"metrics/inspection/{name}.json"), metrics)
    write_text(Path("metrics/fine_pruning.csv"), findings.curves.to_csv(index=False, float_format="%.6g"))
    draw(findings, faces.label_names, params.inspection.fine_pruning.layer, Path("plots/inspection"))


if __name__ == "__main__":
    run_stage(main)
