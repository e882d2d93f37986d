"""Shows the scenes attacked for each detector to others.  dvc repro evaluate_transfer"""

from pathlib import Path

from visor.config import load_params
from visor.detectors import DETECTORS
from visor.evaluation.canvases import canvases_of_test, side_of
from visor.evaluation.detection_figures import transfer_map
from visor.evaluation.transfer import evaluate, markdown, nested
from visor.files import write_json, write_text
from visor.scenes import open_scenes
from visor.stage import run
from visor.training import configure


def main() -> None:
    params = load_params()
    configure(params.compute, params.seed)
    scenes, hiding = open_scenes(Path("data/scenes.h5")), params.hiding
    detectors = {
        name: DETECTORS[name].load(params.detectors[name], Path(f"artifacts/detector/{name}"))
        for name in hiding.shown_to
    }
    sides = {name: side_of(params.detectors[name], params.scenes.max_side) for name in hiding.detectors}
    clean = {name: canvases_of_test(scenes, hiding.images, side, hiding.batch) for name, side in sides.items()}

    table = evaluate(detectors, clean, Path("artifacts/hidden"), hiding, params.seed)

    write_json(Path("metrics/transfer.json"), nested(table))
    write_text(Path("artifacts/transfer.md"), markdown(table))
    transfer_map(table, Path("plots/transfer.png"))


if __name__ == "__main__":
    run(main)
