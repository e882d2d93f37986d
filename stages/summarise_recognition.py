"""Summarise the transfer of attacks between all recognisers.  dvc repro summarise_recognition"""

from pathlib import Path

from visor.core.errors import exit_on_interrupt

with exit_on_interrupt():
    from visor.core.config import load_params
    from visor.core.files import write_json, write_text
    from visor.core.stage import run_stage
    from visor.evaluation.plots.recognition_transfer import recognition_transfer_map
    from visor.evaluation.recognition.tables import rates_of, read_faces
    from visor.evaluation.recognition.transfer import matrix, transfer_gains, transfer_metrics, transfer_table


def main() -> None:
    params = load_params()
    settings = params.recognition_attack
    faces = {name: read_faces(Path(f"artifacts/recognition/{name}/faces.csv")) for name in settings.white_box}
    rates = rates_of(faces[settings.white_box[0]])

    table, gains = matrix(faces, settings), transfer_gains(faces, rates, params.seed)

    write_json(Path("metrics/recognition_transfer.json"), transfer_metrics(table, gains))
    write_text(Path("artifacts/recognition.md"), transfer_table(table, gains, rates[0]))
    recognition_transfer_map(table, rates[0], Path("plots/recognition_transfer.png"))


if __name__ == "__main__":
    run_stage(main)
