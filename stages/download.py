"""Download or render the faces and scenes, verify, crop, resize and filter them.  dvc repro download"""

from pathlib import Path

from visor.core.errors import exit_on_interrupt

with exit_on_interrupt():
    from visor.core.config import load_params, lookup, validate_block
    from visor.core.files import write_json
    from visor.core.stage import run_stage
    from visor.data.scene_set import open_scenes
    from visor.data.sources import FACE_SOURCES, SCENE_SOURCES
    from visor.data.sources.catalogue import read_catalogue
    from visor.data.sources.face_ingest import ingest_faces
    from visor.data.sources.scene_ingest import ingest_scenes, scene_sheet

RAW = Path("artifacts/raw")


def main() -> None:
    params = load_params()
    name = params.faces.source
    source = lookup(FACE_SOURCES, name, "faces.source")
    settings = validate_block(source.SETTINGS, params.sources.get(name, {}), f"params.yaml: sources.{name}")
    entry = read_catalogue(name)

    name = params.scenes.source
    scene_source = lookup(SCENE_SOURCES, name, "scenes.source")
    scene_settings = validate_block(scene_source.SETTINGS, params.sources.get(name, {}), f"params.yaml: sources.{name}")
    scene_entry = read_catalogue(name)

    tasks = scene_source.tasks(scene_settings, params.scenes, params.seed)
    clips = source.clips(settings, params.seed)
    summary = ingest_faces(clips, RAW / "faces.h5", params.faces, entry.title, entry.licence)
    write_json(Path("metrics/faces.json"), summary)
    summary = ingest_scenes(tasks, RAW / "scenes.h5", params.scenes, scene_entry.title, scene_entry.licence)
    write_json(Path("metrics/scenes.json"), summary)
    scene_sheet(open_scenes(RAW / "scenes.h5"), Path("plots/scenes.png"))


if __name__ == "__main__":
    run_stage(main)
