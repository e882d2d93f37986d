"""Attacks on a detector of bright squares, in scenes of bright squares: every number is known."""

import dataclasses
import io
import json
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from PIL import Image

from visor.attacks.evasion.loop import AttackResult
from visor.core.errors import UserError
from visor.core.files import write_json
from visor.core.params import AttackStrengthParams, DetectionAttackParams, DetectorParams
from visor.core.types import SeedStream
from visor.data.scene_set import PAD_VALUE, Scene, open_scenes, write_scenes
from visor.evaluation import detection_transfer
from visor.evaluation.boxes import ap_and_recall, concatenate
from visor.evaluation.conditions import Condition, detection_conditions, strongest_conditions
from visor.evaluation.detection import (
    WITH_INTERVAL,
    attacked_conditions,
    by_iou,
    condition_images,
    detection_table,
    evaluate,
    input_side,
    load_test_scenes,
    metrics_of,
    read_attacked,
    run_detector,
    scene_intervals,
    write_attacked,
)
from visor.evaluation.image_distances import distance_summary, image_distances
from visor.evaluation.metrics import RESAMPLES, wilson_interval
from visor.evaluation.plots.detection import draw, hidden_sheet
from visor.evaluation.plots.detection_transfer import transfer_map
from visor.models.detectors.base import Detector, compile_detect

SIDE, HEIGHT, CELL = 48, 40, 8
BRIGHT, DIM, DISTRACTOR, DARK = 156, 140, 135, 51
HIDING = {
    "detectors": ["squares"],
    "strengths": [AttackStrengthParams(eps=25, iterations=3), AttackStrengthParams(eps=63, iterations=4)],
    "relative_step": 2.5,
    "momentum": 0.0,
    "random_start": True,
    "early_stop": False,
    "mask": "none",
    "margin": 0.25,
    "images": 11,
    "batch": 4,
    "jpeg": [90],
    "objectives": ["near_faces", "suppress"],
    "transfer_detectors": [],
}


def squares(name="squares", threshold=0.5, any_size=False):
    """A detector that takes the brightness of each cell of 8 × 8 pixels for the score of a face of that place.

    ``any_size``: cells shrink with the images.
    """

    def candidates(images):
        cell = CELL * images.shape[1] // SIDE if any_size else CELL
        light = tf.nn.avg_pool2d(tf.reduce_mean(images, axis=3, keepdims=True), cell, cell, "VALID")
        rows, columns = light.shape[1:3]
        y, x = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
        cells = np.stack([x, y, np.ones_like(x), np.ones_like(x)], axis=-1).reshape(-1, 4).astype(np.float32) * cell
        scores = tf.sigmoid(40.0 * (tf.reshape(light, (-1, rows * columns)) - 0.5))
        return tf.broadcast_to(cells[None], (tf.shape(images)[0], rows * columns, 4)), scores

    return Detector(name, threshold, compile_detect(candidates, 0.5), candidates, None)


def scene(number, rng, height=HEIGHT):
    """A dark scene with two faces: a bright one, and a dim one whose box is taller than it; scene 3 is empty.

    Scene 0 has a bright square without a face besides, and scene 1 one in an ignored region.
    """
    image = rng.integers(DARK - 3, DARK + 4, (height, SIDE, 3), dtype=np.uint8)
    places = rng.permutation([(row, column) for row in range(0, height - 8, 16) for column in range(0, SIDE, 16)])
    boxes, ignored = [], []
    lights = [(BRIGHT, 8, False), (DIM, 10, False)] if number != 3 else []
    lights += {0: [(DISTRACTOR, 0, False)], 1: [(BRIGHT, 12, True)]}.get(number, [])
    for (row, column), (light, tall, ignore) in zip(places, lights, strict=False):
        image[row : row + CELL, column : column + CELL] = light
        if tall:
            boxes.append([column, row, CELL, tall])
            ignored.append(ignore)
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    attributes = np.full((len(boxes), 6), number, np.int8)
    return Scene(f"scene {number}", image, boxes, np.array(ignored, bool), attributes, "test")


def scenes_of(path, count, height=HEIGHT):
    rng = np.random.default_rng(5)
    train = scene(2, rng, height)._replace(set="train", name="of the train set")
    write_scenes(path, [train, *(scene(number, rng, height) for number in range(count))], "squares", "none")
    return open_scenes(path)


def settings(**changes):
    return DetectionAttackParams(**{**HIDING, **changes})


def measured(folder, scenes, **changes):
    """Findings, and the clean scenes they are of."""
    hiding = settings(**changes)
    test, clean = (load_test_scenes(scenes, SIDE, hiding.batch, count) for count in (None, hiding.images))
    return evaluate(squares(), "suppress", test, clean, hiding, 1, folder), clean


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("scenes")


@pytest.fixture(scope="module")
def scenes(folder):
    return scenes_of(folder / "scenes.h5", 11)


@pytest.fixture(scope="module")
def result(folder, scenes):
    return measured(folder / "hidden/squares", scenes)


def test_conditions_are_the_rows_of_the_table():
    names = [each.name for each in detection_conditions(settings(jpeg=[90, 75]))]
    attacks = ["noise_25", "noise_63", "pgd_25x3", "pgd_63x4", "jpeg90_63x4", "jpeg75_63x4"]
    assert names == ["clean", "clean_attacked", *attacks, "near_faces_63x4", "suppress_63x4"]
    strengths = [AttackStrengthParams(eps=2, iterations=10), AttackStrengthParams(eps=2, iterations=40)]
    twice = settings(strengths=strengths, jpeg=[], objectives=[])
    names = [each.name for each in detection_conditions(twice)]
    assert names == ["clean", "clean_attacked", "noise_2", "pgd_2x10", "pgd_2x40"]


def test_every_objective_is_compared_once_and_only_where_the_detector_has_it(result):
    assert "near_faces_63x4" in metrics_of(result[0].table)
    assert "suppress_63x4" not in metrics_of(result[0].table), "that is PGD itself"
    every = settings(objectives=["training_loss", "suppress"])
    assert [each.name for each in attacked_conditions(squares(), "near_faces", every)][-1] == "suppress_63x4"
    trained = dataclasses.replace(squares(), loss=lambda images, truth: tf.reduce_sum(images, axis=[1, 2, 3]))
    names = [each.name for each in attacked_conditions(trained, "near_faces", every)]
    assert names[-2:] == ["training_loss_63x4", "suppress_63x4"]


def test_clean_numbers_are_of_all_scenes_and_attacks_of_some(tmp_path, scenes):
    found, clean = measured(tmp_path, scenes, images=4, jpeg=[])
    numbers = metrics_of(found.table)
    assert [numbers[name]["images"] for name in ("clean", "clean_attacked", "noise_63", "pgd_63x4")] == [11, 4, 4, 4]
    assert clean.rows.tolist() == scenes.rows("test")[[0, 3, 6, 10]].tolist(), "evenly spaced"
    lines = found.scenes
    assert lines[lines["condition"] == "pgd_63x4"]["scene"].tolist() == [f"scene {n}" for n in (0, 3, 6, 10)]


def test_intervals_are_of_resampled_scenes(scenes):
    """Against scenes that are really drawn again, one by one."""
    clean = load_test_scenes(scenes, SIDE, 4)
    before = run_detector(squares(), clean.stream())
    before = before._replace(boxes=[boxes[place % 3 :] for place, boxes in enumerate(before.boxes)])  # uneven scenes
    shifted = squares(threshold=0.97)  # by which the dim faces are not found
    found = run_detector(shifted, clean.stream(), before.boxes)
    single = [
        run_detector(shifted, clean._replace(rows=clean.rows[[place]]).stream(), [before.boxes[place]])
        for place in range(11)
    ]
    rng, expected = np.random.default_rng([7, SeedStream.SCENES]), []
    for weights in rng.multinomial(11, np.full(11, 1 / 11), RESAMPLES):
        drawn = [single[place] for place in np.repeat(np.arange(11), weights)]
        faces, gone, *_ = np.sum([each.outcomes[0] for each in drawn], axis=0)
        pooled = concatenate([each.pooled for each in drawn])
        metrics = ap_and_recall(pooled, 0.97)
        expected.append([gone / faces, metrics["recall_30"], metrics["ap_30"], metrics["ap_50"]])
    bounds = np.quantile(expected, [0.025, 0.975], axis=0)
    shown = scene_intervals(found, 0.97, 7)
    gone, left = np.sum(found.outcomes, axis=0)[1], np.sum(found.outcomes, axis=0)[0]
    assert [shown["vanished_low"], shown["vanished_high"]] == pytest.approx(
        [min(bounds[0, 0], wilson_interval(gone, left)[0]), max(bounds[1, 0], wilson_interval(gone, left)[1])]
    )
    for place, name in list(enumerate(WITH_INTERVAL))[2:]:
        assert [shown[f"{name}_low"], shown[f"{name}_high"]] == pytest.approx(bounds[:, place].tolist(), abs=1e-12)
    assert shown["vanished_low"] < shown["vanished_high"]


def test_clean_scenes_by_hand(result):
    numbers = metrics_of(result[0].table)["clean"]
    assert (numbers["faces"], numbers["images"], numbers["found_before"]) == (20, 11, 20)
    assert (numbers["ap_50"], numbers["ap_80"], numbers["recall_80"]) == (1, 1, 1), "the distractor comes last"
    assert (numbers["ap_90"], numbers["recall_90"]) == (0.5, 0.5), "the dim ones overlap by 0.8"
    assert numbers["hallucinations_per_image"] == pytest.approx(1 / 11), "the distractor, not what is ignored"
    assert (numbers["still_there"], numbers["vanished"], numbers["moved"]) == (1, 0, 0)
    assert (numbers["linf"], numbers["ssim"], numbers["steps"]) == (0, 1, 0)
    assert "psnr" not in numbers
    assert isinstance(numbers["faces"], int)
    assert numbers.items() <= {**metrics_of(result[0].table)["clean_attacked"], "images": 11}.items()


def test_the_attack_hides_what_it_can_reach_and_noise_does_not(result):
    numbers = metrics_of(result[0].table)
    weak, strong = numbers["pgd_25x3"], numbers["pgd_63x4"]
    assert (weak["vanished"], weak["still_there"], weak["recall_50"]) == (0.5, 0.5, 0.5), "the dim faces"
    assert (strong["ap_50"], strong["recall_50"], strong["vanished"]) == (0, 0, 1)
    assert (weak["steps"], strong["steps"], numbers["noise_25"]["steps"]) == (3, 4, 0)
    for name in ("noise_25", "noise_63"):
        assert numbers[name]["still_there"] == 1
        assert numbers[name]["ap_50"] > 0.97
    assert numbers["jpeg90_63x4"]["vanished"] == 1, "flat darkening survives"


def test_distances_are_those_of_the_files(folder, result):
    found, clean = result
    for name, eps, file in (("pgd_25x3", 25, "25x3"), ("pgd_63x4", 63, "63x4")):
        before = np.concatenate([images for images, _ in clean.stream()])
        after = np.concatenate([images for images, _ in read_attacked(folder / f"hidden/squares/{file}.h5", clean)])
        numbers, far = metrics_of(found.table)[name], np.abs(after.astype(int) - before)
        assert far.max() == numbers["linf"] == eps
        assert numbers["psnr"] == pytest.approx(10 * np.log10(255**2 / np.mean(far.astype(float) ** 2)))
    noise = metrics_of(found.table)["noise_25"]
    assert noise["linf"] == 25


def test_attacked_scenes_keep_their_names_and_truth(folder, scenes, result):
    attacked, rows = open_scenes(folder / "hidden/squares/63x4.h5"), scenes.rows("test")
    assert attacked.names == tuple(scenes.names[row] for row in rows)
    for place, row in enumerate(rows):
        truths = [[part.tolist() for part in s.ground_truth(k)] for s, k in ((attacked, place), (scenes, row))]
        assert truths[0] == truths[1]
        own, other = (
            each.attributes[each.starts[k] : each.starts[k + 1]] for each, k in ((attacked, place), (scenes, row))
        )
        assert own.tolist() == other.tolist()


def test_nothing_is_changed_in_the_padding_or_outside_a_mask(folder, scenes, tmp_path, result):
    found, clean = measured(tmp_path, scenes, mask="faces", jpeg=[])
    everywhere = read_attacked(folder / "hidden/squares/63x4.h5", clean)
    for (before, (boxes, _)), (after, _), (free, _) in zip(
        clean.stream(), read_attacked(tmp_path / "63x4.h5", clean), everywhere, strict=True
    ):
        assert (free[:, HEIGHT:] == PAD_VALUE).all()
        assert (free[:, :HEIGHT] != before[:, :HEIGHT]).mean() > 0.9
        rows, columns = np.mgrid[:SIDE, :SIDE]
        for image, other, faces in zip(before, after, boxes, strict=True):
            near = [
                (np.abs(columns - x - w / 2) <= 0.75 * w + 1) & (np.abs(rows - y - h / 2) <= 0.75 * h + 1) & (w > 0)
                for x, y, w, h in faces
            ]
            assert (image == other)[~np.any(near, axis=0)].all()
    numbers = metrics_of(found.table)
    assert numbers["pgd_63x4"]["vanished"] == 1
    assert numbers["noise_63"]["ssim"] > metrics_of(result[0].table)["noise_63"]["ssim"], "the same places"


def test_files_repeat(tmp_path, folder, scenes, result):
    again, _ = measured(tmp_path, scenes)
    pd.testing.assert_frame_equal(again.table, result[0].table)
    pd.testing.assert_frame_equal(again.scenes, result[0].scenes)
    for name in ("25x3.h5", "63x4.h5"):
        assert (tmp_path / name).read_bytes() == (folder / "hidden/squares" / name).read_bytes()
    for place, found in (("a", again), ("b", result[0])):
        for name, numbers in metrics_of(found.table).items():
            write_json(tmp_path / place / f"{name}.json", numbers)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
        assert all(isinstance(value, (int, float)) for value in json.loads(path.read_text()).values())


def test_batches_do_not_matter(tmp_path, scenes, result):
    again, _ = measured(tmp_path, scenes, batch=7)
    pd.testing.assert_frame_equal(again.table, result[0].table)


def test_every_scene_has_its_outcome(result):
    lines = result[0].scenes
    assert len(lines) == 11 * len(result[0].table)
    weak = lines[lines["condition"] == "pgd_25x3"].set_index("scene")
    assert weak.loc["scene 4", ["found", "vanished", "moved", "still_there", "steps"]].tolist() == [2, 1, 0, 1, 3]
    assert weak.loc["scene 3", "found"] == 0
    totals = lines.groupby("condition")[["found", "vanished", "moved", "still_there"]].sum()
    assert (totals["found"] == totals[["vanished", "moved", "still_there"]].sum(axis=1)).all()


def test_memory_does_not_grow_with_the_scenes(tmp_path, monkeypatch):
    side = 2 * SIDE
    monkeypatch.setattr(
        "visor.evaluation.detection.compile_condition_attack",
        lambda *_: lambda images, truth, rows, masks: darker(images),
    )
    monkeypatch.setattr("visor.evaluation.detection.RESAMPLES", 2)  # of which the trace of memory is slow
    detector, hiding = squares(), settings(batch=2, images=40, jpeg=[])
    peaks = []
    for count in (4, 4, 28):  # the first run makes what is made once
        clean = load_test_scenes(scenes_of(tmp_path / f"{count}.h5", count), side, hiding.batch)
        tracemalloc.start()
        evaluate(detector, "suppress", clean, clean, hiding, 1, tmp_path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] - peaks[1] < 12 * side * side * 3, "24 scenes more take less than the pixels of twelve"


def darker(images):
    """The result of an attack without a detector."""
    return AttackResult(np.maximum(images / np.float32(255) - np.float32(0.05), 0), np.zeros(len(images), np.int32))


def test_an_attack_gets_the_rows_and_the_mask(tmp_path, scenes):
    calls = []

    def attack(images, truth, rows, masks):
        calls.append((rows.tolist(), masks.shape, masks[:, :HEIGHT].min(), masks[:, HEIGHT:].max()))
        return darker(images)

    clean = load_test_scenes(scenes, SIDE, 5, 9)
    steps, seconds = write_attacked(attack, clean, 0.1, settings(), tmp_path / "hidden.h5")
    rows = clean.rows.tolist()
    assert calls == [(rows[:5], (5, SIDE, SIDE, 1), 1, 0), (rows[5:9], (4, SIDE, SIDE, 1), 1, 0)]
    assert (steps.shape, seconds > 0) == ((9,), True)


def test_jpeg_is_that_of_the_saved_scenes(folder, result):
    clean, seen = result[1], []
    for quality in (90, 20):
        condition = Condition("", "", "jpeg", "", 63, 4, quality)
        stream = condition_images(condition, clean, settings(), 1, folder / "hidden/squares")
        seen.append(np.concatenate([images for images, _ in stream]))
    stored = open_scenes(folder / "hidden/squares/63x4.h5")
    for place, (fine, coarse) in enumerate(zip(*seen, strict=True)):
        content = io.BytesIO()
        Image.fromarray(stored.image(place)).save(content, "JPEG", quality=90)
        assert np.array_equal(fine, np.asarray(Image.open(content)))
        assert (
            np.abs(fine - stored.image(place).astype(int)).mean()
            < np.abs(coarse - stored.image(place).astype(int)).mean()
        )


def test_scenes_that_are_saved_smaller_have_their_own_clean_row(tmp_path, scenes):
    hiding = settings(jpeg=[], objectives=[], scales=[0.5])
    clean = load_test_scenes(scenes, SIDE, hiding.batch)
    found = evaluate(squares(any_size=True), "suppress", clean, clean, hiding, 1, tmp_path)
    numbers = metrics_of(found.table)
    assert [name for name in numbers if "scaled" in name] == ["clean_scaled50", "scaled50_63x4"]
    before, after = numbers["clean_scaled50"], numbers["scaled50_63x4"]
    assert (before["ap_50"], before["found_before"], before["vanished"]) == (1, 20, 0)
    assert (after["recall_50"], after["found_before"], after["vanished"]) == (0, 20, 1)
    assert (before["linf"], after["linf"]) == (0, 63)
    assert found.table.set_index("name").loc["scaled50_63x4", "title"] == "PGD 63/255, 50 % of the size"
    stored = open_scenes(tmp_path / "63x4.h5")
    condition = next(each for each in detection_conditions(hiding) if each.name == "scaled50_63x4")
    images, (boxes, _) = next(condition_images(condition, clean, hiding, 1, tmp_path))
    half = Image.fromarray(stored.image(0)).resize((SIDE // 2, SIDE // 2), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(images[0], np.asarray(half))
    np.testing.assert_array_equal(boxes[0, :2], stored.ground_truth(0)[0] / 2)


def test_what_vanishes_by_the_size_alone_is_not_put_down_to_the_attack(tmp_path, scenes):
    """The detector of cells of 8 pixels finds nobody in scenes of half the size."""
    hiding = settings(jpeg=[], objectives=[], scales=[0.5])
    clean = load_test_scenes(scenes, SIDE, hiding.batch)
    numbers = metrics_of(evaluate(squares(threshold=0.55), "suppress", clean, clean, hiding, 1, tmp_path).table)
    assert numbers["clean_attacked"]["found_before"] > 0
    assert numbers["clean_scaled50"]["found_before"] == numbers["scaled50_63x4"]["found_before"] == 0
    assert numbers["scaled50_63x4"]["vanished"] == 0


def test_detectors_without_a_gradient_are_an_error(tmp_path, scenes):
    clean = load_test_scenes(scenes, SIDE, 2, 2)
    blind = Detector("cascade", 0.5, squares().detect, None, None)
    with pytest.raises(UserError, match=r"detection_attack\.detectors: cascade has no gradient"):
        evaluate(blind, "suppress", clean, clean, settings(), 1, tmp_path)
    with pytest.raises(UserError, match=r"detectors\.squares has no loss"):
        evaluate(squares(), None, clean, clean, settings(), 1, tmp_path)


def test_scenes_without_a_face_are_an_error(tmp_path):
    rng = np.random.default_rng(1)
    write_scenes(tmp_path / "empty.h5", [scene(3, rng)], "squares", "none")
    with pytest.raises(UserError, match=r"empty\.h5: no face in its test scenes"):
        load_test_scenes(open_scenes(tmp_path / "empty.h5"), SIDE, 4)


def test_outcomes_are_against_what_was_found_before(scenes):
    clean = load_test_scenes(scenes, SIDE, 4)
    before = run_detector(squares(), clean.stream()).boxes
    blind = run_detector(squares(threshold=1.0), clean.stream(), before)
    assert np.sum(blind.outcomes, axis=0).tolist() == [20, 20, 0, 0, 0]


def test_side_is_the_input_size_of_the_detector():
    assert input_side(DetectorParams(threshold=0.5, options={"input_size": 96}), 160) == 96
    assert input_side(DetectorParams(threshold=0.5), 160) == 160


def test_transfer_is_beside_clean_and_noise(folder, scenes, result):
    detectors = {"squares": squares(), "blind": squares("blind", threshold=1.0)}
    hiding = settings(detectors=["squares"])
    clean = {"squares": load_test_scenes(scenes, SIDE, 4)}
    table = detection_transfer.evaluate(detectors, clean, folder / "hidden", hiding, 1)
    numbers = detection_transfer.transfer_metrics(table)
    assert list(numbers) == ["clean", "noise", "squares"]
    keys = ("ap_50", "kept", "vanished", "recall_30")
    at = {(shown, name): [numbers[shown][name][key] for key in keys] for shown in numbers for name in detectors}
    assert at["clean", "squares"] == [1, 1, 0, 1]
    assert at["squares", "squares"] == [0, 0, 1, 0]
    assert at["noise", "squares"][1] > 0.97
    assert at["clean", "blind"] == [1, 1, 0, 0]
    assert numbers["squares"]["blind"]["found_before"] == 0
    assert "| squares | 100.0% of 20, AP 0.000 | 0.0% of 0, AP 0.000 |" in detection_transfer.transfer_table(table)
    transfer_map(table, folder / "transfer.png")
    assert (folder / "transfer.png").read_bytes().startswith(b"\x89PNG")


def test_scenes_of_several_sizes_have_their_own_clean_rows(folder, scenes, result, tmp_path):
    larger = load_test_scenes(scenes, 2 * SIDE, 4)
    hiding = settings(strengths=[AttackStrengthParams(eps=63, iterations=4)], jpeg=[])
    evaluate(squares(), "suppress", larger, larger, hiding, 1, folder / "hidden/large")
    clean = {"squares": load_test_scenes(scenes, SIDE, 4), "large": larger}
    table = detection_transfer.evaluate({"squares": squares()}, clean, folder / "hidden", hiding, 1)
    assert table["scenes"].tolist() == ["clean 48", "noise 48", "squares", "clean 96", "noise 96", "large"]


def test_markdown_table_and_curves(result):
    found = result[0]
    text = detection_table(found.table, "some_squares")
    assert text.startswith("# Hiding faces from some squares; in brackets")
    assert "| clean, all test scenes | 11 | 20 | 0.0% (0.0% to 16.1%) | 1.000 (0.839 to 1.000) | 0.0% |" in text
    assert "| PGD 63/255, 4 steps | 11 | 20 | 100.0% (83.9% to 100.0%) | 0.000 (0.000 to 0.161) | 0.0% |" in text
    curves = by_iou(found.table)
    at = curves[(curves["condition"] == "clean") & (curves["iou"] == 0.9)]
    assert at[["ap", "recall"]].to_numpy().tolist() == [[0.5, 0.5]]


def test_figures_are_written_and_repeat(tmp_path, folder, result):
    found, clean = result
    (strongest,) = strongest_conditions(detection_conditions(settings()), settings().strengths, ("attack",))
    for place in ("a", "b"):
        draw(found, "squares", tmp_path / place)
        hidden_sheet(clean, folder / "hidden/squares", strongest, found.boxes, tmp_path / place / "scenes.png")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["ap_by_iou.png", "by_eps.png", "precision_recall.png", "scenes.png"]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_distances_by_hand():
    clean = np.full((2, 12, 14, 3), 100, np.uint8)
    changed = clean.copy()
    changed[0, 2, 3, 1] = 151
    rows = image_distances(clean, changed)
    assert rows[0, :3] == pytest.approx([0.2, 0.2, 0.04 / (12 * 14 * 3)])
    assert rows[1].tolist() == [0, 0, 0, 1]
    assert distance_summary(rows)["psnr"] == pytest.approx(-10 * np.log10(0.02 / (12 * 14 * 3)))
    assert distance_summary(rows)["linf"] == 51
    assert distance_summary(rows)["l2"] == pytest.approx(0.1)
    assert "psnr" not in distance_summary(rows[1:])
