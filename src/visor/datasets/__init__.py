"""Sources of faces: a module each, with ``Settings`` (its block under ``sources``) and ``clips``.

``clips(settings, seed)`` yields ``visor.faces.Clip`` lazily; published images have no use for the seed.
"""

from types import ModuleType

from visor.datasets import csaw, folder, lfw, synthetic, youtube_faces

DATASETS: dict[str, ModuleType] = {
    "synthetic": synthetic,
    "youtube_faces": youtube_faces,
    "lfw": lfw,
    "csaw": csaw,
    "folder": folder,
}
