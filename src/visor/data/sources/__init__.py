"""Sources of faces and of scenes, one file each, with ``SETTINGS``, the class of its block under ``sources``.

Sources of faces have ``clips(settings, seed)``, which yields ``visor.data.face_set.FaceClip`` lazily; published images
ignore the seed. Sources of scenes have ``tasks(settings, params.scenes, seed)``, which yields
``scene_ingest.SceneTask`` lazily. Both also yield an ``archives.SkippedFile`` for each file that they do not take.

``CAMERAS`` names the sources of faces that can take an image once more: ``camera(settings, seed, faces)`` returns a
``visor.data.camera.Camera``, or None where the FaceSet is not theirs. CSAW has arrays of pixels and no camera.

Example:
    >>> source = FACE_SOURCES["synthetic"]
    >>> settings = source.SETTINGS(identities=2, images=3, videos=1, difficulty=1.0)
    >>> [(clip.label, clip.load(55, 47).shape) for clip in source.clips(settings, seed=1)]
    [('person_000', (3, 55, 47, 3)), ('person_001', (3, 55, 47, 3))]
"""

from collections.abc import Callable
from types import ModuleType

from visor.data.camera import Camera
from visor.data.sources import csaw, folder, lfw, synthetic, synthetic_scenes, wider_face, youtube_faces

FACE_SOURCES: dict[str, ModuleType] = {
    "synthetic": synthetic,
    "youtube_faces": youtube_faces,
    "lfw": lfw,
    "csaw": csaw,
    "folder": folder,
}
CAMERAS: dict[str, Callable[..., Camera | None]] = {
    "synthetic": synthetic.camera,
    "youtube_faces": youtube_faces.camera,
    "lfw": lfw.camera,
    "folder": folder.camera,
}
SCENE_SOURCES: dict[str, ModuleType] = {"synthetic_scenes": synthetic_scenes, "wider_face": wider_face}
