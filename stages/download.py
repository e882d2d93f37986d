"""Gets the faces and scenes that params name, verified, cropped, resized and filtered.  dvc repro download"""

from pathlib import Path

from visor.config import build, choice, load_params
from visor.datasets import DATASETS, SCENES
from visor.datasets.catalogue import read_catalogue
from visor.datasets.ingest import ingest
from visor.datasets.scene_ingest import ingest_scenes
from visor.datasets.scene_sheet import scene_sheet
from visor.files import write_json
from visor.scenes import open_scenes
from visor.stage import run

RAW = Path("artifacts/raw")


def main() -> None:
    params = load_params()
    source = params.faces.source
    module = choice(DATASETS, source, "faces.source")
    settings = build(module.Settings, params.sources.get(source, {}), f"params.yaml: sources.{source}")
    entry = read_catalogue(source)

    place = params.scenes.source
    scene_module = choice(SCENES, place, "scenes.source")
    scene_settings = build(scene_module.Settings, params.sources.get(place, {}), f"params.yaml: sources.{place}")
    scene_entry = read_catalogue(place)

    tasks = scene_module.tasks(scene_settings, params.scenes, params.seed)
    clips = module.clips(settings, params.seed)
    summary = ingest(clips, RAW / "faces.h5", params.faces, entry.title, entry.licence)
    write_json(Path("metrics/faces.json"), summary)
    summary = ingest_scenes(tasks, RAW / "scenes.h5", params.scenes, scene_entry.title, scene_entry.licence)
    write_json(Path("metrics/scenes.json"), summary)
    scene_sheet(open_scenes(RAW / "scenes.h5"), Path("plots/scenes.png"))


if __name__ == "__main__":
    run(main)
