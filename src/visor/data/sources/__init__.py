"""Sources of faces and of scenes: a module each, with ``Settings``, its block under ``sources``.

Those of faces have ``clips(settings, seed)``, which yields ``visor.data.face_set.FaceClip`` lazily; published images
have no use for the seed. Those of scenes have ``tasks(settings, params.scenes, seed)``, which yields
``scene_ingest.SceneTask`` lazily.
"""

from types import ModuleType

from visor.data.sources import csaw, folder, lfw, synthetic, synthetic_scenes, wider_face, youtube_faces

FACE_SOURCES: dict[str, ModuleType] = {
    "synthetic": synthetic,
    "youtube_faces": youtube_faces,
    "lfw": lfw,
    "csaw": csaw,
    "folder": folder,
}
SCENE_SOURCES: dict[str, ModuleType] = {
    "synthetic_scenes": synthetic_scenes,
    "wider_face": wider_face,
}
