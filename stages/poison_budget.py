"""Measure attack success by number of poisons and by blend ratio.  dvc repro poison_budget"""

from pathlib import Path

from visor.core.errors import exit_on_interrupt

with exit_on_interrupt():
    import pandas as pd

    from visor.attacks.backdoors.delivery import open_delivery
    from visor.attacks.backdoors.triggers import TRIGGERS
    from visor.core.config import load_params, lookup
    from visor.core.files import write_json, write_text
    from visor.core.stage import run_stage
    from visor.data.face_set import open_faces
    from visor.evaluation import poison_budget
    from visor.evaluation.plots import poison_budget as plots
    from visor.models.classifiers import CLASSIFIERS


def main() -> None:
    params = load_params()
    settings, parameter = params.poison_budget, "poison_budget.networks"
    faces, table = open_faces(Path("data/faces.h5")), pd.read_csv("artifacts/split.csv")
    shape = {"image_shape": faces.image_shape, "num_classes": len(faces.label_names)}
    networks, attacks = {}, {}
    for name in settings.networks:
        arguments = shape | lookup(params.classifiers, name, parameter).architecture
        networks[name] = lookup(CLASSIFIERS, name, parameter), arguments
    for name in (*settings.attacks, settings.ratios.attack):
        block = lookup(params.backdoors, name, "poison_budget.attacks")
        attacks[name] = poison_budget.load_attack(block, lookup(TRIGGERS, block.trigger, f"backdoors.{name}.trigger"))
    source = params.sources.get(params.faces.source, {})
    deliver = open_delivery(params.delivery, faces, params.faces.source, source, params.seed)
    context = poison_budget.ExperimentContext(faces, table, networks, attacks, Path("assets/keys"), deliver)
    rows = poison_budget.evaluate(context, settings, params.compute)

    write_text(Path("metrics/poison_budget.csv"), rows.to_csv(index=False, float_format="%.6g"))
    for (network, name), curve in (curves := poison_budget.curves(rows, settings, attacks)).items():
        write_json(Path(f"metrics/poison_budget/{network}/{name}.json"), poison_budget.curve_metrics(curve, settings))
    plots.budgets(curves, Path("plots/poison_budget/asr.png"))
    plots.ratio_map(poison_budget.ratio_rows(rows, settings), Path("plots/poison_budget/ratios.png"))
    poison_budget.delete_runs()


if __name__ == "__main__":
    run_stage(main)
