"""Sources of faces and of scenes: a module each, with ``Settings``, its block under ``sources``.

Those of faces have ``clips(settings, seed)``, which yields ``visor.faces.Clip`` lazily; published images have no use
for the seed. Those of scenes have ``tasks(settings, params.scenes, seed)``, which yields ``scene_ingest.Task`` lazily.
"""

from types import ModuleType

from visor.datasets import csaw, folder, lfw, synthetic, synthetic_scenes, wider_face, youtube_faces

DATASETS: dict[str, ModuleType] = {
    "synthetic": synthetic,
    "youtube_faces": youtube_faces,
    "lfw": lfw,
    "csaw": csaw,
    "folder": folder,
}
SCENES: dict[str, ModuleType] = {
    "synthetic_scenes": synthetic_scenes,
    "wider_face": wider_face,
}
