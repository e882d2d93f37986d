"""Attack success by number of poisons and by blend ratio, a network for each.  dvc repro poison_budget"""

from pathlib import Path

import pandas as pd

from visor.backdoors import BACKDOORS
from visor.config import choice, load_params
from visor.evaluation import budget, budget_figures
from visor.faces import open_faces
from visor.files import write_json, write_text
from visor.models import CLASSIFIERS
from visor.stage import run


def main() -> None:
    params = load_params()
    settings, where = params.poison_budget, "poison_budget.networks"
    faces, table = open_faces(Path("data/faces.h5")), pd.read_csv("artifacts/split.csv")
    shape = {"image_shape": faces.image_shape, "num_classes": len(faces.label_names)}
    networks, attacks = {}, {}
    for name in settings.networks:
        arguments = shape | choice(params.classifiers, name, where).architecture
        networks[name] = choice(CLASSIFIERS, name, where), arguments
    for name in (*settings.attacks, settings.ratios.attack):
        block = choice(params.backdoors, name, "poison_budget.attacks")
        attacks[name] = budget.attack(block, choice(BACKDOORS, block.trigger, f"backdoors.{name}.trigger"))
    ground = budget.Ground(faces, table, networks, attacks, Path("assets/keys"))
    lines = budget.evaluate(ground, settings, params.compute)

    write_text(Path("metrics/poison_budget.csv"), lines.to_csv(index=False, float_format="%.6g"))
    for (network, name), curve in (curves := budget.curves(lines, settings, attacks)).items():
        write_json(Path(f"metrics/poison_budget/{network}/{name}.json"), budget.numbers(curve, settings))
    budget_figures.budgets(curves, Path("plots/poison_budget/asr.png"))
    budget_figures.heat_map(budget.grid(lines, settings), Path("plots/poison_budget/ratios.png"))
    budget.forget()


if __name__ == "__main__":
    run(main)
