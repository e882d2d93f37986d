"""Shows what fooled each recogniser to all others: one matrix.  dvc repro summarise_recognition"""

from pathlib import Path

from visor.config import load_params
from visor.evaluation.recognition.map import transfer_map
from visor.evaluation.recognition.tables import rates_of, read_faces
from visor.evaluation.recognition.transfer import gains, markdown, matrix, nested
from visor.files import write_json, write_text
from visor.stage import run


def main() -> None:
    params = load_params()
    settings = params.recognition
    faces = {name: read_faces(Path(f"artifacts/recognition/{name}/faces.csv")) for name in settings.surrogates}
    rates = rates_of(faces[settings.surrogates[0]])

    table, gained = matrix(faces, settings), gains(faces, rates, params.seed)

    write_json(Path("metrics/recognition_transfer.json"), nested(table, gained))
    write_text(Path("artifacts/recognition.md"), markdown(table, gained, rates[0]))
    transfer_map(table, rates[0], Path("plots/recognition_transfer.png"))


if __name__ == "__main__":
    run(main)
