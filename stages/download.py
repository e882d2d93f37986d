"""Gets the faces that faces.source names, verified, cropped, resized and filtered.  dvc repro download"""

from pathlib import Path

from visor.config import build, choice, load_params
from visor.datasets import DATASETS
from visor.datasets.catalogue import read_catalogue
from visor.datasets.ingest import ingest
from visor.errors import run
from visor.files import write_json


def main() -> None:
    params = load_params()
    source = params.faces.source
    module = choice(DATASETS, source, "faces.source")
    settings = build(module.Settings, params.sources.get(source, {}), f"params.yaml: sources.{source}")
    entry = read_catalogue(source)
    summary = ingest(
        module.clips(settings, params.seed),
        Path("artifacts/raw/faces.h5"),
        params.faces,
        entry.title,
        entry.licence,
    )
    write_json(Path("metrics/faces.json"), summary)


if __name__ == "__main__":
    run(main)
