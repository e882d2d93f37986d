"""What the privacy app reaches on photos at each strength, and how long it takes.

    python -m benchmarks.app PHOTO…

All faces that are found are protected. Of the faces that each detector or recogniser detected or matched before, it
counts those that it no longer detects or matches in the PNG, or in a JPEG of it. The attacks use MTCNN and FaceNet.
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


def protect_file(networks: Networks, path: Path, level: ProtectionLevel, target: str) -> ProtectionResult:
    """Protect all faces of a photo as the app does."""
    upload = read_upload(path.name, path.read_bytes())
    faces = find_faces(networks, upload.image)
    return protect(networks, upload, faces, level, target, lambda share, message: None, lambda: False)


def as_jpeg(networks: Networks, result: ProtectionResult, quality: int, target: str) -> ProtectionResult:
    """Measure a result again after JPEG compression."""
    before = inspect_photo(networks, result.before, result.faces, result.faces)
    jpeg = jpeg_round_trip(result.after, quality)
    outcomes = compare_views(networks, before, inspect_photo(networks, jpeg, result.faces, before.places), target)
    return result._replace(after=jpeg, outcomes=outcomes, whole=photo_distance(result.before, jpeg))


def main(
    photos: Annotated[list[Path], typer.Argument(help="with faces; folders, too")],
    target: Annotated[Literal["detectors", "recognition", "both"], typer.Option()] = "detectors",
    levels: Annotated[str, typer.Option(help="eps of the strengths to try")] = "4 8 12 16 24",
    jpeg: Annotated[int, typer.Option(help="quality, 1 to 95; 0: the PNG as it is", min=0, max=95)] = 0,
) -> None:
    """Print one line per strength: of the faces detected or matched before, how many no longer are."""
    files = [photo.path for photo in collect_photos(photos)]
    networks = load_networks(NetworkOptions())
    typer.echo(f"{TARGETS[target]}, {len(files)} photos{f', as JPEG {jpeg}' if jpeg else ''}")
    for level in (level for level in LEVELS if str(level.eps) in levels.split()):
        results = [protect_file(networks, path, level, target) for path in files]
        if jpeg:
            results = [as_jpeg(networks, result, jpeg, target) for result in results]
        total, lost = Counter[str](), Counter[str]()
        for outcome in (outcome for result in results for outcome in result.outcomes if outcome.before):
            total[outcome.network] += 1
            lost[outcome.network] += outcome.after is False
        shares = ", ".join(f"{name} {lost[name]} of {total[name]}" for name in total)
        seconds = statistics.median(result.seconds for result in results)
        ssim = statistics.median(result.whole.ssim for result in results)
        typer.echo(f"eps {level.eps}: {shares}; {seconds:.1f} s per photo, SSIM {ssim:.3f}")


if __name__ == "__main__":
    typer.run(main)
