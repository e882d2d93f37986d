"""Pictures with boxes round faces: the contract of the file, and batches for networks."""

from visor.scenes.canvases import GREY, letterbox, read_canvases, scale, training_data
from visor.scenes.scene_set import (
    ATTRIBUTES,
    FACE,
    IGNORE,
    MAX_FACES,
    PADDING,
    SETS,
    Boxes,
    Rows,
    Scene,
    SceneSet,
    Truth,
    open_scenes,
    write_scenes,
)

__all__ = [
    "ATTRIBUTES",
    "FACE",
    "GREY",
    "IGNORE",
    "MAX_FACES",
    "PADDING",
    "SETS",
    "Boxes",
    "Rows",
    "Scene",
    "SceneSet",
    "Truth",
    "letterbox",
    "open_scenes",
    "read_canvases",
    "scale",
    "training_data",
    "write_scenes",
]
