"""Measure how well every defence separates triggered faces from clean ones.  dvc repro evaluate_defences"""

from pathlib import Path

from visor.core.errors import exit_on_interrupt

with exit_on_interrupt():
    import pandas as pd

    from visor.core.config import load_params
    from visor.core.files import read_json, write_json, write_text
    from visor.core.stage import run_stage
    from visor.evaluation.defences import (
        REFERENCE,
        bootstrap_groups,
        by_set,
        clean_metrics,
        defence_report,
        defence_tables,
        matrix,
        score_names,
        scores_by_set,
    )
    from visor.evaluation.plots.defences import detector_matrix, roc_curves, score_histograms, success_matrix


def main() -> None:
    params = load_params()
    names = score_names(Path("artifacts/scores"), params.defences)
    tables = {name: pd.read_csv(f"artifacts/scores/{name}.csv") for name in names}
    scores = {name: scores_by_set(table) for name, table in tables.items()}
    predictions = {path.stem: by_set(pd.read_csv(path)) for path in sorted(Path("artifacts/predictions").glob("*.csv"))}
    thresholds = {name: read_json(Path(f"metrics/threshold/{name}.json")) for name in names}
    digests = read_json(Path("artifacts/scores/digests.json"))
    groups = bootstrap_groups(tables[REFERENCE], params.backdoors)

    clean = {name: clean_metrics(scores[name], groups, thresholds[name], params.seed) for name in names}
    table = matrix(scores, predictions, groups, thresholds, digests, params.validation_triggers, params.seed)

    for name in names:
        write_json(Path(f"metrics/defence/{name}/clean.json"), clean[name])
        score_histograms(scores[name], thresholds[name], name, Path(f"plots/defences/scores-{name}.png"))
    for row in table.to_dict("records"):
        metrics = {str(key): value for key, value in row.items() if not isinstance(value, str) and pd.notna(value)}
        write_json(Path(f"metrics/defence/{row['card']}/{row['trigger']}.json"), metrics)
    write_text(Path("metrics/defences.csv"), table.to_csv(index=False, float_format="%.6g"))
    write_text(Path("artifacts/defences.md"), defence_report(defence_tables(table, clean, thresholds)))
    roc_curves(scores, Path("plots/defences/roc.png"))
    detector_matrix(table, Path("plots/defences/matrix.png"))
    success_matrix(table, Path("plots/defences/unflagged.png"))


if __name__ == "__main__":
    run_stage(main)
