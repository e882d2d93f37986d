"""How well every defence tells triggered faces from clean ones, and the matrix of all.  dvc repro evaluate_defences"""

from pathlib import Path

import pandas as pd

from visor.core.config import load_params
from visor.core.files import read_json, write_json, write_text
from visor.core.stage import run_stage
from visor.evaluation.defences import (
    REFERENCE,
    bootstrap_groups,
    clean_metrics,
    defence_table,
    matrix,
    score_names,
    scores_by_set,
)
from visor.evaluation.plots.defences import detector_matrix, roc_curves, score_histograms


def main() -> None:
    params = load_params()
    names = score_names(Path("artifacts/scores"), params.defences)
    tables = {card: pd.read_csv(f"artifacts/scores/{card}.csv") for card in names}
    found = {card: scores_by_set(table) for card, table in tables.items()}
    thresholds = {card: read_json(Path(f"metrics/threshold/{card}.json")) for card in names}
    digests, groups = (
        read_json(Path("artifacts/scores/digests.json")),
        bootstrap_groups(tables[REFERENCE], params.backdoors),
    )

    clean = {card: clean_metrics(found[card], groups["clean"], thresholds[card], params.seed) for card in names}
    table = matrix(found, groups, thresholds, digests, params.validation_triggers, params.seed)

    for card in names:
        write_json(Path(f"metrics/defence/{card}/clean.json"), clean[card])
        score_histograms(found[card], thresholds[card], card, Path(f"plots/defences/scores-{card}.png"))
    for line in table.to_dict("records"):
        numbers = {str(key): value for key, value in line.items() if not isinstance(value, str)}
        write_json(Path(f"metrics/defence/{line['card']}/{line['trigger']}.json"), numbers)
    write_text(Path("metrics/defences.csv"), table.to_csv(index=False, float_format="%.6g"))
    write_text(Path("artifacts/defences.md"), defence_table(table, clean, thresholds))
    roc_curves(found, Path("plots/defences/roc.png"))
    detector_matrix(table, Path("plots/defences/matrix.png"))


if __name__ == "__main__":
    run_stage(main)
