"""The embedded scenes: rendered people in front of clutter, with exact boxes; the same bytes on every processor."""

from collections.abc import Iterator
from functools import partial
from itertools import repeat
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from visor.core import params
from visor.core.params import ParamsBlock, PositiveInt
from visor.data.images import jpeg_round_trip
from visor.data.rendering.clutter import draw_clutter
from visor.data.rendering.crowd import PersonCutout, paste_people
from visor.data.rendering.cut_out import cut_out, from_behind
from visor.data.rendering.frames import draw_frames
from visor.data.rendering.identity import draw_identity
from visor.data.scene_set import ATTRIBUTES, SETS, Scene
from visor.data.sources.scene_ingest import SceneTask

PEOPLE, POSES = 6, 5  # the scenes of a task are made of so many people
TASK_BYTES = 8 << 20
TILE = 0.8  # side of a cut-out, and heights of faces, as shares of a scene's side
SMALLEST, LARGEST = 0.12, 0.6
MAX_BACKS = 2  # people in a scene who turn their backs
TURNED = 0.2  # tangent of half the yaw
JPEG_QUALITY = (75, 95)
VALIDATION_SHARE, TEST_SHARE = 0.1, 1 / 3  # of the people; fewer scenes still show many of them


class SyntheticScenesSettings(ParamsBlock):
    """People (each in one set only), maximum of faces in a scene, and how much pose and light vary."""

    identities: Annotated[int, Field(ge=len(SETS))]
    faces: PositiveInt
    difficulty: Annotated[float, Field(ge=0)]


SETTINGS = SyntheticScenesSettings


def tasks(settings: SyntheticScenesSettings, scenes: params.SceneParams, seed: int) -> Iterator[SceneTask]:
    """Yield functions that draw some scenes of ``max_side`` × ``max_side`` pixels with a few people of their set."""
    counts = (scenes.train, scenes.validation, scenes.test)
    first = 0
    for name, count, people in zip(SETS, counts, _people(settings.identities), strict=True):
        groups = max(1, people // PEOPLE)
        blocks = min(count, max(groups, -(-count * 3 * scenes.max_side**2 // TASK_BYTES)))
        for block in range(blocks):
            cast = _part(people, groups, block % groups, first)
            yield partial(draw, settings, scenes.max_side, seed, name, cast, _part(count, blocks, block))
        first += people


def _people(identities: int) -> tuple[int, int, int]:
    """Return how many people are in the train, validation and test scenes: at least one each."""
    validation, test = (max(1, round(share * identities)) for share in (VALIDATION_SHARE, TEST_SHARE))
    return identities - validation - test, validation, test


def _part(total: int, parts: int, number: int, first: int = 0) -> range:
    """Return one of ``parts`` ranges that cover ``total`` numbers from ``first`` on."""
    return range(first + total * number // parts, first + total * (number + 1) // parts)


def draw(settings: SyntheticScenesSettings, side: int, seed: int, name: str, people: range, rows: range) -> list[Scene]:
    """Draw the scenes ``rows`` of the set ``name`` with ``people`` in them."""
    cast = [cut_out_person(settings, round(side * TILE), seed, number) for number in people]
    scenes = []
    for row in rows:
        generator = np.random.default_rng([seed, SETS.index(name), row])
        image, boxes, attributes = compose(generator, cast, settings.faces, side)
        scenes.append(Scene(f"{name}_{row:05d}", image, boxes, np.zeros(len(boxes), bool), attributes, name))
    return scenes


def cut_out_person(settings: SyntheticScenesSettings, side: int, seed: int, identity: int) -> list[PersonCutout]:
    """Cut one person out of side × side pixels in ``POSES`` poses; the last figure is the person's back."""
    generator = np.random.default_rng([seed, identity, 0])
    frames = np.concatenate([draw_frames(generator, 1, settings.difficulty) for _ in range(POSES)])
    frames["scale"] *= np.float32(0.68)  # so that hair and shoulders are within the tile
    frames["shift_x"], frames["shift_y"] = 0, -0.04
    who = np.repeat(draw_identity(np.random.default_rng([seed, identity])), POSES)
    people, faces = cut_out(who, frames, side, side)
    turned = np.abs(frames["yaw"]) > TURNED
    back = Image.fromarray(from_behind(who[:1], frames[:1], side, side)[0])
    masks = [Image.fromarray(face) for face in faces]
    front = zip(map(Image.fromarray, people), masks, repeat(True), turned.tolist(), strict=False)
    return [*(PersonCutout(*figure) for figure in front), PersonCutout(back, masks[0], False, False)]


def compose(
    generator: np.random.Generator, cast: list[list[PersonCutout]], max_faces: int, side: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int8]]:
    """Draw one scene: uint8 (side, side, 3), boxes (k ≤ max_faces, 4), attributes (k, 6).

    The more people there are, the smaller they are; the smaller stand behind.
    """
    canvas = Image.fromarray(draw_clutter(generator, side))
    count, backs = int(generator.integers(max_faces + 1)), int(generator.integers(MAX_BACKS + 1))
    people = np.resize(generator.permutation(len(cast)), count + backs)
    poses = np.append(generator.integers(POSES, size=count), [POSES] * backs).astype(int)
    share = generator.random(count + backs)
    largest = min(LARGEST, 1 / np.sqrt(max(1, count)))
    heights = side * (SMALLEST + (largest - SMALLEST) * share * np.sqrt(share))
    order = np.argsort(heights, kind="stable")
    figures = [(cast[people[place]][poses[place]], float(heights[place])) for place in order]
    faces = paste_people(generator, canvas, figures)
    attributes = np.zeros((len(faces), len(ATTRIBUTES)), np.int8)
    attributes[:, ATTRIBUTES.index("occlusion")] = [face.occlusion for face in faces]
    attributes[:, ATTRIBUTES.index("pose")] = [face.turned for face in faces]
    grain = generator.integers(-6, 7, (side, side, 3), dtype=np.int8)
    noisy = np.clip(np.asarray(canvas) + grain.astype(np.int16), 0, 255).astype(np.uint8)
    image = jpeg_round_trip(noisy, int(generator.integers(*JPEG_QUALITY, endpoint=True)))
    return image, np.array([face.box for face in faces], np.float32).reshape(-1, 4), attributes
