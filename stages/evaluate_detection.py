"""Measure one detector on clean and attacked scenes.  dvc repro evaluate_detection@ssd"""

from pathlib import Path

from visor.core.errors import exit_on_interrupt

with exit_on_interrupt():
    from visor.core.config import load_params, lookup
    from visor.core.files import write_json, write_text
    from visor.core.stage import run_stage
    from visor.data.scene_set import open_scenes
    from visor.evaluation.conditions import detection_conditions, strongest_conditions
    from visor.evaluation.detection import by_iou, detection_table, evaluate, input_side, load_test_scenes, metrics_of
    from visor.evaluation.plots.detection import draw, hidden_sheet
    from visor.models.detectors import DETECTORS
    from visor.models.training import configure_tensorflow


def main(name: str) -> None:
    params = load_params()
    configure_tensorflow(params.compute, params.seed)
    module = lookup(DETECTORS, name, "detection_attack.detectors")
    settings, detector_settings = params.detection_attack, params.detectors[name]
    detector = module.load(detector_settings, Path(f"artifacts/detector/{name}"))
    scenes = open_scenes(Path("data/scenes.h5"), untrusted=True)
    side = input_side(detector_settings, params.scenes.max_side)
    test = load_test_scenes(scenes, side, settings.batch)
    clean = load_test_scenes(scenes, side, settings.batch, settings.images)
    folder, plots = Path(f"artifacts/hidden/{name}"), Path(f"plots/detection/{name}")

    findings = evaluate(detector, detector_settings.loss, test, clean, settings, params.seed, folder)

    for condition, metrics in metrics_of(findings.table).items():
        write_json(Path(f"metrics/detection/{name}/{condition}.json"), metrics)
    curves, outcomes = Path(f"metrics/detection_curves/{name}.csv"), Path(f"artifacts/detection/{name}/scenes.csv")
    for path, table in ((curves, by_iou(findings.table)), (outcomes, findings.scenes)):
        write_text(path, table.to_csv(index=False, float_format="%.6g"))
    write_text(Path(f"artifacts/detection/{name}/table.md"), detection_table(findings.table, name))
    draw(findings, name, plots)
    (attack,) = strongest_conditions(detection_conditions(settings), settings.strengths, ("attack",))
    hidden_sheet(clean, folder, attack, findings.boxes, plots / "scenes.png")


if __name__ == "__main__":
    run_stage(main)
