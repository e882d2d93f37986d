"""Shows the scenes attacked for each detector to others.  dvc repro evaluate_transfer"""

from pathlib import Path

from visor.core.config import load_params
from visor.core.files import write_json, write_text
from visor.core.stage import run_stage
from visor.data.scene_set import open_scenes
from visor.evaluation.detection import input_side, test_scenes
from visor.evaluation.detection_transfer import evaluate, markdown, nested
from visor.evaluation.plots.detection_transfer import transfer_map
from visor.models.detectors import DETECTORS
from visor.models.training import configure_tensorflow


def main() -> None:
    params = load_params()
    configure_tensorflow(params.compute, params.seed)
    scenes, hiding = open_scenes(Path("data/scenes.h5")), params.detection_attack
    detectors = {
        name: DETECTORS[name].load(params.detectors[name], Path(f"artifacts/detector/{name}"))
        for name in hiding.transfer_detectors
    }
    sides = {name: input_side(params.detectors[name], params.scenes.max_side) for name in hiding.detectors}
    clean = {name: test_scenes(scenes, hiding.images, side, hiding.batch) for name, side in sides.items()}

    table = evaluate(detectors, clean, Path("artifacts/hidden"), hiding, params.seed)

    write_json(Path("metrics/transfer.json"), nested(table))
    write_text(Path("artifacts/transfer.md"), markdown(table))
    transfer_map(table, Path("plots/transfer.png"))


if __name__ == "__main__":
    run_stage(main)
