"""What the privacy app reaches on photos, at each strength, and how long it takes.

    python -m benchmarks.app PHOTO…

All faces that are found are protected. For all who look, detectors and recognisers: of the faces that they saw or
matched before, how many they no longer see or match in the PNG, or in a JPEG that somebody makes of it. MTCNN and
FaceNet are those that the searches use.
"""

import statistics
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

import typer

from visor.app.networks import NetworkOptions, Networks, find_faces, load_networks
from visor.app.protect import ProtectionResult, compare_views, inspect_photo, photo_distance, protect
from visor.app.settings import LEVELS, TARGETS, ProtectionLevel
from visor.app.uploads import read_upload
from visor.data.images import jpeg_round_trip
from visor.photos.files import collect_photos


def protected(eyes: Networks, path: Path, level: ProtectionLevel, target: str) -> ProtectionResult:
    """Return a photo as the app gives it back."""
    upload = read_upload(path.name, path.read_bytes())
    spots = find_faces(eyes, upload.image)
    return protect(eyes, upload, spots, level, target, lambda share, words: None, lambda: False)


def posted(eyes: Networks, one: ProtectionResult, quality: int, target: str) -> ProtectionResult:
    """Return a protected photo as it is after somebody saved it as JPEG, and what everybody makes of that."""
    before, after = inspect_photo(eyes, one.before, one.faces, one.faces), jpeg_round_trip(one.after, quality)
    verdicts = compare_views(eyes, before, inspect_photo(eyes, after, one.faces, before.places), target)
    return one._replace(after=after, verdicts=verdicts, whole=photo_distance(one.before, after))


def main(
    photos: Annotated[list[Path], typer.Argument(help="with faces; folders, too")],
    target: Annotated[Literal["detectors", "recognition", "both"], typer.Option()] = "detectors",
    levels: Annotated[str, typer.Option(help="eps of the strengths to try")] = "4 8 12 16 24",
    jpeg: Annotated[int, typer.Option(help="quality, 1 to 95; 0: the PNG as it is", min=0, max=95)] = 0,
) -> None:
    """Print a line a strength: of those who saw or matched a face before, how many no longer do."""
    files = [photo.path for photo in collect_photos(photos)]
    eyes = load_networks(NetworkOptions())
    typer.echo(f"{TARGETS[target]}, {len(files)} photos{f', as JPEG {jpeg}' if jpeg else ''}")
    for level in (level for level in LEVELS if str(level.eps) in levels.split()):
        done = [protected(eyes, path, level, target) for path in files]
        if jpeg:
            done = [posted(eyes, one, jpeg, target) for one in done]
        asked, lost = Counter[str](), Counter[str]()
        for verdict in (verdict for one in done for verdict in one.verdicts if verdict.before):
            asked[verdict.network] += 1
            lost[verdict.network] += verdict.after is False
        shares = ", ".join(f"{name} {lost[name]} of {asked[name]}" for name in asked)
        took, alike = (
            statistics.median(values) for values in ([p.seconds for p in done], [p.whole.ssim for p in done])
        )
        typer.echo(f"eps {level.eps}: {shares}; {took:.1f} s a photo, SSIM {alike:.3f}")


if __name__ == "__main__":
    typer.run(main)
