"""How well one detector finds faces, clean and attacked.  dvc repro evaluate_detection@ssd"""

from pathlib import Path

from visor.core.config import load_params, lookup
from visor.core.files import write_json, write_text
from visor.core.stage import run_stage
from visor.data.scene_set import open_scenes
from visor.evaluation.detection import by_iou, detection_table, evaluate, input_side, metrics_of, test_scenes
from visor.evaluation.plots.detection import draw, hidden_sheet
from visor.models.detectors import DETECTORS
from visor.models.training import configure_tensorflow


def main(name: str) -> None:
    params = load_params()
    configure_tensorflow(params.compute, params.seed)
    module = lookup(DETECTORS, name, "detection_attack.detectors")
    settings, hiding = params.detectors[name], params.detection_attack
    detector = module.load(settings, Path(f"artifacts/detector/{name}"))
    scenes, side = open_scenes(Path("data/scenes.h5")), input_side(settings, params.scenes.max_side)
    clean = test_scenes(scenes, hiding.images, side, hiding.batch)
    folder, plots = Path(f"artifacts/hidden/{name}"), Path(f"plots/detection/{name}")

    found = evaluate(detector, settings.loss, clean, hiding, params.seed, folder)

    for condition, numbers in metrics_of(found.table).items():
        write_json(Path(f"metrics/detection/{name}/{condition}.json"), numbers)
    curves, outcomes = Path(f"metrics/detection_curves/{name}.csv"), Path(f"artifacts/detection/{name}/scenes.csv")
    for path, table in ((curves, by_iou(found.table)), (outcomes, found.scenes)):
        write_text(path, table.to_csv(index=False, float_format="%.6g"))
    write_text(Path(f"artifacts/detection/{name}/table.md"), detection_table(found.table, name))
    draw(found, name, plots)
    hidden_sheet(clean, folder, hiding.strengths[-1], found.boxes, plots / "scenes.png")


if __name__ == "__main__":
    run_stage(main)
