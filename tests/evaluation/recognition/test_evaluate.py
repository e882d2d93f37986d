"""Attacks on linear recognisers end to end, and each part of them against its definition."""

import io
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from PIL import Image

from tests.conftest import random_images
from visor.attacks.evasion.loop import AttackSettings
from visor.attacks.evasion.losses.recognisers import RECOGNISER_LOSSES
from visor.attacks.evasion.registry import ATTACKS
from visor.attacks.evasion.transforms import compose
from visor.core.errors import UserError
from visor.core.files import write_text
from visor.core.params import (
    AttackMethodParams,
    AttackStrengthParams,
    ClassificationAttackParams,
    RecognitionAttackParams,
)
from visor.data.face_set import FaceBatch, open_faces, write_faces
from visor.data.identity_split import split_identities
from visor.data.images import jpeg_round_trip
from visor.evaluation.conditions import recognition_conditions, strongest_conditions
from visor.evaluation.recognition import classification, verification
from visor.evaluation.recognition.attacks import AttackedFaces, FaceBatches, attack_jobs, compile_condition_attack
from visor.evaluation.recognition.classification import classification_metrics, top_markdown, top_tables
from visor.evaluation.recognition.evaluate import curves_of, draw, evaluate_surrogate, metrics_of, texts_of
from visor.evaluation.recognition.impersonation import choose_targets
from visor.models.detectors import Detections, Detector
from visor.models.recognisers.base import Recogniser, embeddings

HEIGHT, WIDTH, PEOPLE, EACH = 13, 12, 9, 14
RNG = np.random.default_rng
SETTINGS = RecognitionAttackParams(
    networks=["one", "two"],
    white_box=["one"],
    held_out_share=0.7,
    false_accept_rates=[0.1, 0.001],
    pairs=400,
    images=6,
    batch=4,
    targets=["nearest", "furthest"],
    methods={"pgd": {}, "shaken": {"momentum": 1.0, "transforms": {"crop": 0.1, "noise": 0.03}, "eot_samples": 2}},
    strengths=[{"eps": 8, "iterations": 3}, {"eps": 16, "iterations": 3}],
    relative_step=2.5,
    random_start=True,
    jpeg=[75],
    cropping_detectors=["none", "fake"],
    margin=0.2,
    report_faces=3,
)
GOALS = ("impersonate_nearest", "impersonate_furthest", "dodge")
CLASSES = ClassificationAttackParams(
    networks=["one"],
    images=6,
    batch=4,
    target="nearest",
    methods={"pgd": {}, "adam": {"algorithm": "adam"}},
    strengths=[{"eps": 16, "iterations": 3}],
    relative_step=2.5,
    random_start=True,
    jpeg=[75],
    top_k=2,
    report_faces=3,
)


def recogniser(name, seed, classes=()):
    """A linear network: the surroundings of a face are as good as the face."""
    weights = RNG(seed).normal(size=(HEIGHT * WIDTH * 3, 6)).astype(np.float32)
    heads = RNG(seed + 1).normal(size=(6, len(classes))).astype(np.float32)

    def features(images):
        images = tf.image.resize(images, (HEIGHT, WIDTH))
        return tf.reshape(images - 0.5, (-1, len(weights))) @ weights

    def embed(images):
        return tf.math.l2_normalize(features(images), -1)

    logits = (lambda images: features(images) @ heads) if classes else None
    return Recogniser(name, (HEIGHT, WIDTH, 3), tuple(classes), embed, logits)


@pytest.fixture
def drawn(tmp_path):
    """One image per person, with noise, and the table of the split."""
    labels = np.repeat(np.arange(PEOPLE), EACH).astype(np.int32)
    videos = np.arange(len(labels), dtype=np.int32) // 2  # two frames each
    centres = RNG(0).integers(50, 200, (PEOPLE, HEIGHT, WIDTH, 3))
    images = np.clip(centres[labels] + RNG(1).normal(0, 25, (len(labels), HEIGHT, WIDTH, 3)), 0, 255).astype(np.uint8)
    rows = np.arange(len(labels), dtype=np.int32)
    names = [f"person {label}" for label in range(PEOPLE)]
    write_faces(tmp_path / "f.h5", [FaceBatch(images, labels, videos, rows)], (HEIGHT, WIDTH, 3), names, "test", "none")
    sets = np.tile(["train"] * 9 + ["test"] * 4 + ["unused"], PEOPLE)
    return open_faces(tmp_path / "f.h5"), pd.DataFrame({"row": rows, "label": labels, "set": sets})


def fake_detector():
    """Finds two of three faces, in the middle of the canvas."""

    def detect(images):
        box = np.float32([[4, 5, WIDTH, HEIGHT]])
        return [Detections(box, np.float32([0.9 if int(image.sum()) % 3 else 0.1])) for image in images]

    return Detector("fake", 0.5, detect, None, None)


def shaken():
    return next(each for each in recognition_conditions(SETTINGS) if each.method == "shaken")


def everything(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(drawn, folder, settings=SETTINGS):
    faces, table = drawn
    known = {"one": recogniser("one", 3), "two": recogniser("two", 5)}
    return evaluate_surrogate("one", known, {"fake": fake_detector()}, faces, table, settings, 1, folder)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One run for the tests that only read it."""
    folder = tmp_path_factory.mktemp("shared")
    return run(drawn.__wrapped__(folder), folder / "fooled"), folder / "fooled"


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    """One attack on classes, for the tests that only read it."""
    folder = tmp_path_factory.mktemp("classes")
    return classified(drawn.__wrapped__(folder), folder / "misclassified"), folder / "misclassified"


def classified(drawn, folder, names=("person 0", "person 1", "person 2")):
    faces, table = drawn
    rows = table.loc[table["set"] == "test", "row"].to_numpy()
    return classification.evaluate(recogniser("one", 3, names), faces, rows, CLASSES, 1, folder)


def test_conditions_are_clean_noise_methods_and_jpeg_of_the_last():
    names = [each.name for each in recognition_conditions(SETTINGS)]
    methods = [[f"{m}_8x3", f"{m}_16x3", f"jpeg75_{m}_16x3"] for m in ("pgd", "shaken")]
    assert names == ["clean", "noise_8", "noise_16", *methods[0], *methods[1]]
    conditions, strengths = recognition_conditions(SETTINGS), SETTINGS.strengths
    last = [each.name for each in strongest_conditions(conditions, strengths)]
    assert last == ["clean", "noise_16", *methods[0][1:], *methods[1][1:]]
    attacks = [each.name for each in strongest_conditions(conditions, strengths, ("attack",))]
    assert attacks == ["pgd_16x3", "shaken_16x3"]


@pytest.mark.parametrize("search", ATTACKS)
@pytest.mark.parametrize("sign", [1, -1])
def test_every_algorithm_follows_the_sign(search, sign):
    known, images = recogniser("one", 3, "abcd"), random_images(5, height=HEIGHT, width=WIDTH)
    before = known.logits(np.float32(images) / 255).numpy().argmax(axis=1)
    truth = np.int32(before if sign > 0 else (before + 1) % 4)
    settings = SETTINGS.model_copy(update={"methods": {"shaken": AttackMethodParams(algorithm=search)}})
    each = shaken()._replace(eps=230, iterations=25)
    attack = compile_condition_attack(known.logits, "misclassify", each, settings, 1)
    found = attack(images, (truth, np.full(5, sign, np.float32)), np.arange(5)).images
    after = known.logits(found).numpy().argmax(axis=1)
    assert ((after != truth) if sign > 0 else (after == truth)).all()


def test_a_momentum_without_an_algorithm_for_it_is_an_error():
    settings = SETTINGS.model_copy(
        update={"methods": {"shaken": AttackMethodParams(algorithm="autopgd", momentum=1.0)}}
    )
    each = shaken()
    with pytest.raises(UserError, match=r"methods\.shaken\.momentum is 1, but autopgd has its own; remove it"):
        compile_condition_attack(lambda images: images, "misclassify", each, settings, 1)


@pytest.mark.parametrize(("goal", "aim"), [("dodge", "impersonate"), ("target_class", "misclassify")])
def test_a_goal_with_its_sign_turned_is_the_other_goal(goal, aim):
    known, images = recogniser("one", 3, "abcd"), random_images(5, height=HEIGHT, width=WIDTH)
    classified = goal == "target_class"
    view = known.logits if classified else known.embed
    truth = np.int32([0, 2, 1, 3, 2]) if classified else known.embed(np.float32(images[::-1]) / 255).numpy()
    each = shaken()
    turned = compile_condition_attack(view, aim, each, SETTINGS, 1)(
        images, (truth, -np.ones(5, np.float32)), np.arange(5)
    ).images
    search = AttackSettings(8 / 255, 3, 2.5 * (8 / 255) / 3, momentum=1.0, samples=2, seed=1)
    found = ATTACKS["pgd"](RECOGNISER_LOSSES[goal](view), search, compose({"crop": 0.1, "noise": 0.03}, 1))
    np.testing.assert_array_equal(turned, found(images, truth, np.arange(5)).images)


def test_attacked_files_keep_their_bounds_and_labels(shared):
    found, folder = shared
    clean = found.case.faces.clean
    original = clean.faces.read(clean.rows).astype(int)
    for goal in GOALS:
        for each in [each for each in recognition_conditions(SETTINGS) if each.kind == "attack"]:
            stored = open_faces(found.case.faces.path(goal, each))
            change = np.abs(stored.images[:].astype(int) - original).max(axis=(1, 2, 3))
            assert (change == each.eps).all()
            np.testing.assert_array_equal(stored.rows, clean.rows)
            np.testing.assert_array_equal(stored.labels, clean.faces.labels[clean.rows])
    assert len(everything(folder)) == 4 * 3


def test_a_bound_of_zero_changes_nothing(drawn, tmp_path):
    nothing = SETTINGS.model_copy(update={"strengths": [AttackStrengthParams(eps=0, iterations=2)]})
    found = run(drawn, tmp_path / "fooled", nothing)
    clean = found.case.faces.clean
    for goal in GOALS:
        for each in (each for each in recognition_conditions(nothing) if each.kind == "attack"):
            stored = open_faces(found.case.faces.path(goal, each))
            np.testing.assert_array_equal(stored.images[:], clean.faces.read(clean.rows))
    assert {"success.png", "table.md"} < set(written(found, tmp_path / "files"))


def written(found, folder):
    """Write all files of an evaluation."""
    texts = texts_of(found) | {"curves.csv": curves_of(found).to_csv()}
    texts["metrics.json"] = repr(metrics_of(found))
    for file, text in texts.items():
        write_text(folder / file, text)
    draw(found, folder)
    return everything(folder)


def test_the_same_seed_gives_the_same_bytes(drawn, tmp_path, shared):
    before = Path(drawn[0].path).read_bytes()
    again = run(drawn, tmp_path / "fooled")
    assert everything(tmp_path / "fooled") == everything(shared[1])
    files = written(again, tmp_path / "a")
    assert files == written(shared[0], tmp_path / "b")
    assert {"roc.png", "success.png", "similarities.png", "faces_pgd.png", "faces_shaken.png", "table.md"} < set(files)
    assert Path(drawn[0].path).read_bytes() == before


def test_batches_of_another_length_give_the_same_faces(drawn, tmp_path, shared):
    found = run(drawn, tmp_path, SETTINGS.model_copy(update={"batch": 5}))
    assert everything(tmp_path).items() >= everything(shared[1]).items()
    pd.testing.assert_frame_equal(found.faces, shared[0].faces, atol=1e-5)


def test_similarities_are_those_of_the_files(shared):
    found, _ = shared
    known, each = recogniser("two", 5), next(e for e in recognition_conditions(SETTINGS) if e.name == "shaken_8x3")
    images = open_faces(found.case.faces.path("dodge", each)).images[:]
    own = found.verifiers["two", "none"].templates[found.case.owners]
    expected = np.sum(known.embed(np.float32(images) / np.float32(255)).numpy() * own, axis=1)
    lines = found.faces.query("goal == 'dodge' and condition == @each.name and recogniser == 'two'")
    np.testing.assert_allclose(lines["similarity"], expected, atol=1e-6)
    assert lines["in_front"].unique().tolist() == ["none"]  # detectors see the last strength alone


def test_decisions_are_similarities_against_the_threshold(shared):
    lines, known = shared[0].faces, shared[0].verifiers
    assert "fooled_0.001" not in lines  # 0.001 is less than a pair
    for (goal, name, way), own in lines.groupby(["goal", "recogniser", "in_front"]):
        threshold = known[name, way].thresholds[0.1]
        before, after = (own[column] >= threshold for column in ("similarity_before", "similarity"))
        assert own["right_0.1"].equals(before if goal == "dodge" else ~before)
        assert own["fooled_0.1"].equals(~after if goal == "dodge" else after)
    unseen = lines[~lines["found"]]
    assert len(unseen)
    assert (unseen["similarity"] == -1).all()
    assert unseen["fooled_0.1"].equals(unseen["goal"] == "dodge")


def test_attacks_beat_noise_on_the_surrogate(shared):
    found, _ = shared
    numbers = metrics_of(found)
    for goal, sign in zip(GOALS, (1, 1, -1), strict=True):
        own = numbers[goal]
        for attack in ("pgd_8x3", "pgd_16x3", "shaken_8x3", "shaken_16x3"):
            assert sign * own[attack]["similarity"] > sign * own["noise_16"]["similarity"] + 0.05
        assert own["clean"]["success_0.1"] == 0
        assert own["noise_16"]["linf"] == own["pgd_16x3"]["linf"] == 16
        assert "psnr" not in own["clean"]
    assert set(numbers["verification"]["two"]) == {"none", "fake"}
    assert numbers["verification"]["one"]["none"]["left_out"] == [0.001]


def test_targets_are_most_or_least_alike_and_not_already_accepted():
    templates = np.eye(4)[[0, 0, 1, 2]] + 0.1 * RNG(0).normal(size=(4, 4))
    templates /= np.linalg.norm(templates, axis=1, keepdims=True)
    alike = templates @ templates.T
    np.fill_diagonal(alike, np.nan)
    assert choose_targets(templates, 2.0, "nearest").tolist() == np.nanargmax(alike, axis=1).tolist()
    assert choose_targets(templates, 2.0, "furthest").tolist() == np.nanargmin(alike, axis=1).tolist()
    apart = np.where(alike < 0.8, alike, np.nan)
    assert choose_targets(templates, 0.8, "nearest").tolist() == np.nanargmax(apart, axis=1).tolist()
    assert choose_targets(templates, 0.8, "nearest")[0] != 1
    assert choose_targets(templates[:2], 0.8, "nearest").tolist() == [1, 0]  # there is no other


def test_a_named_target_is_that_of_all_others(drawn, tmp_path, shared):
    names = shared[0].case.names
    settings = SETTINGS.model_copy(update={"targets": [names[1]], "methods": {"pgd": SETTINGS.methods["pgd"]}})
    case = run(drawn, tmp_path, settings).case
    assert list(case.targets) == ["impersonate_named", "dodge"]
    named = case.targets["impersonate_named"]
    assert (named[case.owners != 1] == 1).all()
    assert (named[case.owners == 1] != 1).all()
    with pytest.raises(UserError, match=rf"attack.targets has 'somebody'; choose nearest, furthest, {names[0]}"):
        run(drawn, tmp_path, settings.model_copy(update={"targets": ["somebody"]}))
    with pytest.raises(UserError, match="two names; keep one of them"):
        run(drawn, tmp_path, settings.model_copy(update={"targets": ["somebody", "nobody"]}))


def test_each_rule_has_its_own_targets(shared):
    case, verifier = shared[0].case, shared[0].verifiers["one", "none"]
    for rule in ("nearest", "furthest"):
        targets = choose_targets(verifier.templates, min(verifier.thresholds.values()), rule)
        assert case.targets[f"impersonate_{rule}"].tolist() == targets[case.owners].tolist()
    assert (case.targets["impersonate_nearest"] != case.targets["impersonate_furthest"]).all()
    assert case.targets["dodge"].tolist() == case.owners.tolist()


def test_jpeg_is_a_round_trip_through_a_file():
    image = random_images(1, height=16, width=24)[0]
    content = io.BytesIO()
    Image.fromarray(image).save(content, "JPEG", quality=30)
    expected = np.asarray(Image.open(io.BytesIO(content.getvalue())))
    np.testing.assert_array_equal(jpeg_round_trip(image, 30), expected)


def test_without_people_among_the_classes_there_is_nothing_to_attack(drawn, tmp_path):
    with pytest.raises(UserError, match="no person in the test set is a class of one"):
        classified(drawn, tmp_path, names=("a", "b"))
    with pytest.raises(UserError, match=r"classification_attack\.networks: one has no classes; remove it"):
        classified(drawn, tmp_path, names=())


def test_attacks_on_classes_keep_their_bounds_and_repeat(drawn, tmp_path, classes):
    found, folder = classes
    clean = found.faces.clean.faces.read(found.faces.clean.rows).astype(int)
    for goal, method in product(("misclassify", "target_class"), ("pgd", "adam")):
        stored = open_faces(folder / goal / f"{method}_16x3.h5").images[:]
        assert np.abs(stored - clean).max() == classification_metrics(found)[goal][f"{method}_16x3"]["linf"] <= 16
    assert len(everything(folder)) == 4
    again = classified(drawn, tmp_path)
    assert everything(tmp_path).items() >= everything(folder).items()
    assert classification_metrics(again) == classification_metrics(found)


def test_both_searches_lower_the_confidence_and_noise_does_not(classes):
    numbers = classification_metrics(classes[0])
    for method in ("pgd", "adam"):
        away, towards = (numbers[goal] for goal in ("misclassify", "target_class"))
        assert away[f"{method}_16x3"]["confidence_in_truth"] < away["noise_16"]["confidence_in_truth"] - 0.05
        assert towards[f"{method}_16x3"]["confidence_in_truth"] < towards["noise_16"]["confidence_in_truth"] - 0.05


def test_misclassifications_are_counted(classes):
    predictions = classes[0]
    numbers = classification_metrics(predictions)
    clean = predictions.predicted["misclassify", "clean"]
    np.testing.assert_allclose(clean.sum(axis=1), 1, atol=1e-5)
    right = clean.argmax(axis=1) == predictions.truth
    found = numbers["misclassify"]["clean"]
    assert (found["accuracy"], found["correctly_classified"], found["success"]) == (right.mean(), right.sum(), 0)
    predicted = predictions.predicted["target_class", "adam_16x3"].argmax(axis=1)
    hit = numbers["target_class"]["adam_16x3"]
    assert hit["success"] == (predicted == predictions.targets)[right].mean()
    assert (predictions.targets != predictions.truth).all()
    truth = predictions.predicted["misclassify", "pgd_16x3"][np.arange(len(predicted)), predictions.truth]
    assert numbers["misclassify"]["pgd_16x3"]["confidence_in_truth"] == pytest.approx(truth.mean())
    assert truth.mean() < clean[np.arange(len(predicted)), predictions.truth].mean()


def test_targets_of_classes():
    before, truth, names = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]]), np.array([0, 1]), ("a", "b", "c")
    assert classification.choose_target_classes(before, truth, names, "nearest").tolist() == [1, 2]
    assert classification.choose_target_classes(before, truth, names, "furthest").tolist() == [2, 0]
    assert classification.choose_target_classes(before, truth, names, "b").tolist() == [1, 2]
    assert classification.choose_target_classes(before, truth, names, "somebody else").tolist() == [1, 2]


def test_top_tables_name_the_most_likely(classes):
    predictions = classes[0]
    tables = top_tables(predictions)
    assert 0 < len(tables) <= 3 * 2
    assert [each["condition"] for each in tables[:2]] == ["pgd_16x3", "adam_16x3"]
    first = tables[0]
    place = predictions.faces.clean.rows.tolist().index(first["row"])
    predicted = predictions.predicted["target_class", "pgd_16x3"][place]
    assert [each["confidence"] for each in first["target_class"]] == sorted(predicted.tolist(), reverse=True)[:2]
    assert first["target_class"][0]["name"] == predictions.classes[predicted.argmax()]
    assert first["before"][0]["name"] == first["person"]
    text = top_markdown(tables, "one")
    assert f"| 1 | {first['person']} {first['before'][0]['confidence']:.1%} |" in text


def test_jobs_are_methods_and_numbers_of_steps(drawn, tmp_path):
    more = [*SETTINGS.strengths, SETTINGS.strengths[0].model_copy(update={"iterations": 5})]
    plan = recognition_conditions(SETTINGS.model_copy(update={"strengths": more}))
    attacked = AttackedFaces(FaceBatches(drawn[0], np.arange(3), 2), {}, tmp_path)
    assert len(list(attack_jobs(recogniser("one", 3).embed, attacked, plan, SETTINGS, 1))) == 4


def people_of(drawn):
    return split_identities(drawn[1], SETTINGS.held_out_share, 1).held_out


def test_enrolment_calibration_and_probes_share_no_video(drawn, shared):
    (faces, table), case = drawn, shared[0].case
    rows = table.loc[table["set"] != "unused", "row"].to_numpy()
    split = verification.split_enrolment(faces, rows, people_of(drawn), SETTINGS.pairs, 1)
    assert set(case.faces.clean.rows) <= set(split.attacked.rows)
    videos = [set(faces.videos[part.rows]) for part in split.parts]
    assert not videos[0] & videos[1] | videos[0] & videos[2] | videos[1] & videos[2]
    assert set(np.concatenate([part.rows for part in split.parts])) <= set(rows)


def test_thresholds_come_from_clean_images_that_are_not_attacked(drawn, shared):
    (faces, table), (found, _) = drawn, shared
    people, rows = people_of(drawn), table.loc[table["set"] != "unused", "row"].to_numpy()
    split = verification.split_enrolment(faces, rows, people, SETTINGS.pairs, 1)
    for name, known in (("one", recogniser("one", 3)), ("two", recogniser("two", 5))):
        enrolled, probes, attacked = (embeddings(known)(faces.read(part.rows)) for part in split.parts)
        templates = verification.enrol(enrolled, split.enrolled.owners, len(people))
        expected = verification.compare(templates, probes, split.calibration.owners)
        verifier = found.verifiers[name, "none"]
        for calibrated, wanted in zip(verifier.calibration, expected, strict=True):
            np.testing.assert_allclose(calibrated, wanted, atol=1e-5)
        assert verifier.thresholds == pytest.approx(verification.thresholds(expected, [0.1]), abs=1e-5)
        reported = verification.compare(templates, attacked, split.attacked.owners)
        assert verifier.thresholds != pytest.approx(verification.thresholds(reported, [0.1]), abs=1e-4)
        # Probes after an attack would set another threshold, too: what is attacked never moves it.
        lines = found.faces.query("goal == 'dodge' and condition == 'pgd_16x3' and recogniser == @name")
        assert verifier.attacked.same.min() > lines["similarity"].min()
