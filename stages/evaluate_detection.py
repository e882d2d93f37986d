"""How well one detector finds faces, clean and attacked.  dvc repro evaluate_detection@ssd"""

from pathlib import Path

from visor.config import choice, load_params
from visor.detectors import DETECTORS
from visor.evaluation.box_sheets import hidden_sheet
from visor.evaluation.canvases import canvases_of_test, side_of
from visor.evaluation.detection import by_iou, evaluate, markdown, metrics_of
from visor.evaluation.detection_figures import draw
from visor.files import write_json, write_text
from visor.scenes import open_scenes
from visor.stage import run
from visor.training import configure


def main(name: str) -> None:
    params = load_params()
    configure(params.compute, params.seed)
    module = choice(DETECTORS, name, "hiding.detectors")
    settings, hiding = params.detectors[name], params.hiding
    detector = module.load(settings, Path(f"artifacts/detector/{name}"))
    scenes, side = open_scenes(Path("data/scenes.h5")), side_of(settings, params.scenes.max_side)
    clean = canvases_of_test(scenes, hiding.images, side, hiding.batch)
    folder, plots = Path(f"artifacts/hidden/{name}"), Path(f"plots/detection/{name}")

    found = evaluate(detector, settings.objective, clean, hiding, params.seed, folder)

    for condition, numbers in metrics_of(found.table).items():
        write_json(Path(f"metrics/detection/{name}/{condition}.json"), numbers)
    curves, outcomes = Path(f"metrics/detection_curves/{name}.csv"), Path(f"artifacts/detection/{name}/scenes.csv")
    for path, table in ((curves, by_iou(found.table)), (outcomes, found.scenes)):
        write_text(path, table.to_csv(index=False, float_format="%.6g"))
    write_text(Path(f"artifacts/detection/{name}/table.md"), markdown(found.table, name))
    draw(found, name, plots)
    hidden_sheet(clean, folder, hiding.strengths[-1], found.boxes, plots / "scenes.png")


if __name__ == "__main__":
    run(main)
