"""Sources of faces: a module each, with ``Settings`` (its block under ``sources``) and ``clips``.

``clips(settings, seed)`` yields ``visor.faces.Clip`` lazily; published images have no use for the seed.
"""

from types import ModuleType

from visor.datasets import csaw, folder, lfw, synthetic, youtube_faces
from visor.errors import UserError

DATASETS: dict[str, ModuleType] = {
    "synthetic": synthetic,
    "youtube_faces": youtube_faces,
    "lfw": lfw,
    "csaw": csaw,
    "folder": folder,
}


def find(name: str) -> ModuleType:
    """Return the module of the source ``name``.

    Raises:
        UserError: there is none; the sentence lists those there are.
    """
    if name not in DATASETS:
        raise UserError(f"params.yaml: faces.source: {name!r} is not a source; allowed: {', '.join(DATASETS)}")
    return DATASETS[name]
