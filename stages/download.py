"""``download``: the faces of ``faces.source``, verified, cropped, resized and filtered."""

from pathlib import Path

from visor.config import build, load_params
from visor.datasets import find
from visor.datasets.catalogue import read_catalogue
from visor.datasets.ingest import ingest
from visor.errors import run
from visor.files import write_json


def main() -> None:
    params = load_params()
    source = params.faces.source
    module = find(source)
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
