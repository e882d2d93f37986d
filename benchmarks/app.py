"""What the privacy app reaches on photos, at each strength, and how long it takes.

    python -m benchmarks.app PHOTO…

All faces that are found are protected. For all who look, detectors and recognisers: of the faces that they saw or
matched before, how many they no longer see or match in the PNG, or in a JPEG that somebody makes of it. MTCNN and
FaceNet are those that the searches use.
"""

import visor.quiet  # noqa: F401 - before anything imports TensorFlow

# isort: split
import statistics
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

import typer

from visor.app.faces import find_faces
from visor.app.levels import LEVELS, TARGETS, Level
from visor.app.onlookers import Eyes, Options, open_eyes
from visor.app.protecting import Protected, distance, protect
from visor.app.uploads import read_upload
from visor.app.verdicts import judge, views
from visor.evasion.eight_bit import as_jpeg
from visor.protection.photos import gather


def protected(eyes: Eyes, path: Path, level: Level, target: str) -> Protected:
    """Return a photo as the app gives it back."""
    upload = read_upload(path.name, path.read_bytes())
    spots = find_faces(eyes, upload.image)
    return protect(eyes, upload, spots, level, target, lambda share, words: None, lambda: False)


def posted(eyes: Eyes, one: Protected, quality: int, target: str) -> Protected:
    """Return a protected photo as it is after somebody saved it as JPEG, and what everybody makes of that."""
    before, after = views(eyes, one.before, one.faces, one.faces), as_jpeg(one.after, quality)
    verdicts = judge(eyes, before, views(eyes, after, one.faces, before.places), target)
    return one._replace(after=after, verdicts=verdicts, whole=distance(one.before, after))


def main(
    photos: Annotated[list[Path], typer.Argument(help="with faces; folders, too")],
    target: Annotated[Literal["detectors", "recognition", "both"], typer.Option()] = "detectors",
    levels: Annotated[str, typer.Option(help="eps of the strengths to try")] = "4 8 12 16 24",
    jpeg: Annotated[int, typer.Option(help="quality, 1 to 95; 0: the PNG as it is", min=0, max=95)] = 0,
) -> None:
    """Print a line a strength: of those who saw or matched a face before, how many no longer do."""
    files = [photo.path for photo in gather(photos)]
    eyes = open_eyes(Options())
    typer.echo(f"{TARGETS[target]}, {len(files)} photos{f', as JPEG {jpeg}' if jpeg else ''}")
    for level in (level for level in LEVELS if str(level.eps) in levels.split()):
        done = [protected(eyes, path, level, target) for path in files]
        if jpeg:
            done = [posted(eyes, one, jpeg, target) for one in done]
        asked, lost = Counter[str](), Counter[str]()
        for verdict in (verdict for one in done for verdict in one.verdicts if verdict.before):
            asked[verdict.onlooker] += 1
            lost[verdict.onlooker] += verdict.after is False
        shares = ", ".join(f"{name} {lost[name]} of {asked[name]}" for name in asked)
        took, alike = (
            statistics.median(values) for values in ([p.seconds for p in done], [p.whole.ssim for p in done])
        )
        typer.echo(f"eps {level.eps}: {shares}; {took:.1f} s a photo, SSIM {alike:.3f}")


if __name__ == "__main__":
    typer.run(main)
