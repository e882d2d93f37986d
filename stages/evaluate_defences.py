"""How well every defence tells triggered faces from clean ones, and the matrix of all.  dvc repro evaluate_defences"""

from pathlib import Path

import pandas as pd

from visor.config import load_params
from visor.evaluation.defence import clean_numbers, scores_of
from visor.evaluation.defence_figures import detector_matrix, roc_curves, score_histograms
from visor.evaluation.defence_matrix import REFERENCE, cards, groups_of, markdown, matrix
from visor.files import read_json, write_json, write_text
from visor.stage import run


def main() -> None:
    params = load_params()
    names = cards(Path("artifacts/scores"), params.defences)
    tables = {card: pd.read_csv(f"artifacts/scores/{card}.csv") for card in names}
    found = {card: scores_of(table) for card, table in tables.items()}
    thresholds = {card: read_json(Path(f"metrics/threshold/{card}.json")) for card in names}
    digests, groups = read_json(Path("artifacts/scores/digests.json")), groups_of(tables[REFERENCE], params.backdoors)

    clean = {card: clean_numbers(found[card], groups["clean"], thresholds[card], params.seed) for card in names}
    table = matrix(found, groups, thresholds, digests, params.validation_triggers, params.seed)

    for card in names:
        write_json(Path(f"metrics/defence/{card}/clean.json"), clean[card])
        score_histograms(found[card], thresholds[card], card, Path(f"plots/defences/scores-{card}.png"))
    for line in table.to_dict("records"):
        numbers = {str(key): value for key, value in line.items() if not isinstance(value, str)}
        write_json(Path(f"metrics/defence/{line['card']}/{line['trigger']}.json"), numbers)
    write_text(Path("metrics/defences.csv"), table.to_csv(index=False, float_format="%.6g"))
    write_text(Path("artifacts/defences.md"), markdown(table, clean, thresholds))
    roc_curves(found, Path("plots/defences/roc.png"))
    detector_matrix(table, Path("plots/defences/matrix.png"))


if __name__ == "__main__":
    run(main)
