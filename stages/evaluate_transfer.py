"""Evaluate every detector on the scenes attacked for others.  dvc repro evaluate_transfer"""

from pathlib import Path

from visor.core.errors import exit_on_interrupt

with exit_on_interrupt():
    from visor.core.config import load_params
    from visor.core.files import write_json, write_text
    from visor.core.stage import run_stage
    from visor.data.scene_set import open_scenes
    from visor.evaluation.detection import input_side, load_test_scenes
    from visor.evaluation.detection_transfer import evaluate, transfer_metrics, transfer_table
    from visor.evaluation.plots.detection_transfer import transfer_map
    from visor.models.detectors import DETECTORS
    from visor.models.training import configure_tensorflow


def main() -> None:
    params = load_params()
    configure_tensorflow(params.compute, params.seed)
    scenes, settings = open_scenes(Path("data/scenes.h5"), untrusted=True), params.detection_attack
    detectors = {
        name: DETECTORS[name].load(params.detectors[name], Path(f"artifacts/detector/{name}"))
        for name in settings.transfer_detectors
    }
    sides = {name: input_side(params.detectors[name], params.scenes.max_side) for name in settings.detectors}
    clean = {name: load_test_scenes(scenes, side, settings.batch, settings.images) for name, side in sides.items()}

    table = evaluate(detectors, clean, Path("artifacts/hidden"), settings, params.seed)

    write_json(Path("metrics/transfer.json"), transfer_metrics(table))
    write_text(Path("artifacts/transfer.md"), transfer_table(table))
    transfer_map(table, Path("plots/transfer.png"))


if __name__ == "__main__":
    run_stage(main)
