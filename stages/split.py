"""Split the faces into train, validation, test and poison sets.  dvc repro split"""

from pathlib import Path

from visor.core.errors import exit_on_interrupt

with exit_on_interrupt():
    from visor.core.config import load_params
    from visor.core.files import write_json, write_text
    from visor.core.stage import run_stage
    from visor.data.face_set import open_faces
    from visor.data.split import split_rows, split_summary


def main() -> None:
    params = load_params()
    faces = open_faces(Path("data/faces.h5"), untrusted=True)  # perhaps a user's own file

    table = split_rows(faces.labels, faces.videos, params.split, params.seed)

    write_text(Path("artifacts/split.csv"), table.to_csv(index=False))
    write_json(Path("metrics/split.json"), split_summary(table))


if __name__ == "__main__":
    run_stage(main)
