"""Sources of faces and of scenes, one file each, with ``SETTINGS``, the class of its block under ``sources``.

Sources of faces have ``clips(settings, seed)``, which yields ``visor.data.face_set.FaceClip`` lazily; published images
ignore the seed. Sources of scenes have ``tasks(settings, params.scenes, seed)``, which yields
``scene_ingest.SceneTask`` lazily. Both also yield an ``archives.SkippedFile`` for each file that they do not take.

Sources of faces also have ``camera(settings, seed, faces)``: the ``visor.data.camera.Camera`` that takes the images of
a FaceSet once more, or None where these are not the source's.

Example:
    >>> source = FACE_SOURCES["synthetic"]
    >>> settings = source.SETTINGS(identities=2, images=3, videos=1, difficulty=1.0)
    >>> [(clip.label, clip.load(55, 47).shape) for clip in source.clips(settings, seed=1)]
    [('person_000', (3, 55, 47, 3)), ('person_001', (3, 55, 47, 3))]
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
SCENE_SOURCES: dict[str, ModuleType] = {"synthetic_scenes": synthetic_scenes, "wider_face": wider_face}
