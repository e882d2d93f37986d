"""Choose the thresholds of every defence on clean faces that it was not fitted on.  dvc repro threshold"""

from pathlib import Path

from visor.core.errors import exit_on_interrupt

with exit_on_interrupt():
    import pandas as pd

    from visor.core.config import load_params
    from visor.core.files import write_json
    from visor.core.stage import run_stage
    from visor.evaluation.defences import attack_of, calibration_scores, choose_thresholds, defence_of, score_names


def main() -> None:
    params = load_params()
    folder = Path("artifacts/scores")
    for name in score_names(folder, params.defences):
        scores, attack = pd.read_csv(folder / f"{name}.csv"), attack_of(name)
        predictions = pd.read_csv(f"artifacts/predictions/{attack}.csv") if attack else None

        clean, defence = calibration_scores(scores, predictions), defence_of(name)
        thresholds = choose_thresholds(clean, params.defences[defence], defence)

        write_json(Path(f"metrics/threshold/{name}.json"), thresholds)


if __name__ == "__main__":
    run_stage(main)
