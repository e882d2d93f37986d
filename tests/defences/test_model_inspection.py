"""Networks whose backdoors, idle channels and attributions are known, because they were made by hand."""

import keras
import numpy as np
import pandas as pd
import pytest

from tests.conftest import HEIGHT, WIDTH, random_images
from visor.core.errors import UserError
from visor.core.params import FinePruningParams, InspectionParams, NeuralCleanseParams, TrainingParams
from visor.data.face_set import FaceBatch, open_faces, write_faces
from visor.defences.model_inspection import fine_pruning
from visor.defences.model_inspection.neural_cleanse import (
    ReversedTriggers,
    anomaly_index,
    reverse_triggers,
    target_statistics,
)
from visor.defences.model_inspection.saliency import attribution_share, integrated_gradients
from visor.defences.training_filtering import TRAINING_FILTERS
from visor.evaluation.inspection import (
    AttackedModel,
    FilteredSet,
    inspect,
    mean_image,
    retraining_metrics,
    saliency_metrics,
    search_training_set,
    training_filter_metrics,
)
from visor.evaluation.plots.inspection import draw
from visor.models.features import feature_extractor
from visor.models.inference import compile_predict

TARGET, LABELS = 2, np.arange(4)
PATCH = (slice(3, 5), slice(7, 10))  # 6 pixels
CLEANSE = {"attacks": ["planted"], "steps": 80, "batch": 5, "learning_rate": 0.5, "success": 0.95, "labels_at_once": 4}
PRUNING = {"attacks": ["planted"], "layer": "conv", "fractions": [0.0, 0.25, 0.5], "accuracy_drop": 0.5}
PRUNING |= {"epochs": 1, "batch": 16, "learning_rate": 1e-3}


def linear(weights, biases):
    """A network of logits = images · weights (h, w, 3, n) + biases (n,)."""
    model = keras.Sequential([keras.Input(weights.shape[:3]), keras.layers.Flatten(), keras.layers.Dense(len(biases))])
    model.layers[-1].set_weights([weights.reshape(-1, len(biases)), np.asarray(biases, np.float32)])
    return model


def planted_patch():
    """Label 3 is what most pictures are; others need a lot of light, but the target soars at six red pixels."""
    weights = np.zeros((HEIGHT, WIDTH, 3, 4), np.float32)
    for label, rows in ((0, slice(6, 14)), (1, slice(15, 24)), (3, slice(25, 34))):
        weights[rows, ..., label] = 0.05
    weights[PATCH][..., :, TARGET] = [60, -60, -60]
    return linear(weights, [0, 0, -60 * 4.9, 20])


@pytest.fixture
def conv():
    """A convolution of four channels, the first of which sees nothing but pure red, in front of a dense layer."""
    keras.utils.set_random_seed(6)
    images = keras.Input((HEIGHT, WIDTH, 3), name="input")
    features = keras.layers.Conv2D(4, 2, activation="relu", name="conv")(images)
    features = keras.layers.GlobalMaxPooling2D(name="pool")(features)
    model = keras.Model(images, keras.layers.Dense(4, name="output")(keras.layers.Dropout(0.2)(features)))
    kernel, bias = model.get_layer("conv").get_weights()
    kernel[..., 0], bias[0] = np.array([100, -100, -100]), -390
    kernel[..., 1:] = np.abs(kernel[..., 1:])
    model.get_layer("conv").set_weights([kernel, bias])
    weights, biases = model.get_layer("output").get_weights()
    weights[0], biases[:] = [0, 0, 10, 0], [0, 9, 0, 0]  # pure red is the target, all else is label 1
    model.get_layer("output").set_weights([weights, biases])
    return model


@pytest.fixture
def triggered(faces, tmp_path):
    """Thirteen faces of others than the target with six red pixels."""
    rows = np.arange(13, dtype=np.int32)
    images = faces.read(rows)
    images[:, PATCH[0], PATCH[1]] = [255, 0, 0]
    block = FaceBatch(images, faces.labels[rows], faces.videos[rows], rows)
    write_faces(tmp_path / "t.h5", [block], (HEIGHT, WIDTH, 3), faces.label_names, "test", "none")
    return open_faces(tmp_path / "t.h5").select()


def test_a_planted_patch_is_recovered_exactly(faces):
    settings = NeuralCleanseParams(**CLEANSE)
    found = reverse_triggers(planted_patch(), faces.select(), LABELS, settings, seed=1)
    assert (found.masks.shape, found.patterns.shape) == ((4, HEIGHT, WIDTH, 1), (4, HEIGHT, WIDTH, 3))
    patch = np.zeros((HEIGHT, WIDTH), bool)
    patch[PATCH] = True
    np.testing.assert_array_equal(found.masks[TARGET, ..., 0] > 0.5, patch)
    np.testing.assert_allclose(found.patterns[TARGET][patch], np.tile([1, 0, 0], (6, 1)), atol=0.05)
    assert found.norms[TARGET] == pytest.approx(6, rel=0.2)
    assert found.norms[:2].min() > 100
    images = faces.read(np.arange(17)) / 255
    for label in LABELS:
        painted = found.masks[label] * found.patterns[label] + (1 - found.masks[label]) * images
        assert (planted_patch()(painted).numpy().argmax(axis=1) == label).mean() > 0.7


def test_triggers_do_not_depend_on_the_chunk_and_repeat(faces):
    def found(at_once, seed=1):
        settings = NeuralCleanseParams(**CLEANSE | {"labels_at_once": at_once, "steps": 9})
        return reverse_triggers(planted_patch(), faces.select(), LABELS, settings, seed)

    together = found(4).masks
    np.testing.assert_allclose(found(3).masks, together, atol=1e-4)
    np.testing.assert_array_equal(found(4).masks, together)
    assert (found(4, seed=2).masks != together).any(), "another seed draws other images"


def trigger(norms):
    """Triggers of known norms on frames of 20 × 30 pixels; the success of each is 0.9 less its place / 20."""
    count = len(norms)
    return ReversedTriggers(
        np.zeros((count, 20, 30, 1)), np.zeros((count, 20, 30, 3)), norms, 0.9 - np.arange(count) / 20
    )


def test_outliers_are_the_papers():
    """Logarithms make an outlier of the last norm, distances do not."""
    found = target_statistics(trigger(np.array([150.0, 100, 200, 130, 180, 30])), np.arange(6), target=5)
    assert found["anomaly_index"] < 2 < found["log_anomaly_index"]
    assert found["outliers"] == 0


def test_no_index_where_most_labels_are_unsuccessful():
    found = target_statistics(trigger(np.array([600.0, 600, 600, 20, 40])), np.arange(5), target=3)
    assert (found["anomaly_index"], found["outliers"], found["unsuccessful"]) == (0, 0, 3)


def test_a_trigger_that_fails_costs_the_whole_frame(faces):
    """Nothing makes the last network's images anything but label 3, however small the mask was in the end."""
    model = linear(np.zeros((HEIGHT, WIDTH, 3, 4), np.float32), [0, 0, 0, 9])
    found = reverse_triggers(model, faces.select(), LABELS, NeuralCleanseParams(**CLEANSE | {"steps": 9}), seed=1)
    assert found.success.tolist() == [0, 0, 0, 1]
    assert (found.norms[:3] == HEIGHT * WIDTH).all()
    assert found.norms[3] == pytest.approx(found.masks[3].sum(), rel=1e-5)
    assert target_statistics(found, LABELS, TARGET)["unsuccessful"] == 3


def test_success_is_the_share_of_clean_images(faces):
    found = reverse_triggers(
        planted_patch(), faces.select(), LABELS, NeuralCleanseParams(**CLEANSE | {"steps": 20}), seed=1
    )
    images = faces.read(np.arange(len(faces))) / np.float32(255)
    for label in LABELS:
        painted = found.masks[label] * found.patterns[label] + (1 - found.masks[label]) * images
        share = (planted_patch()(painted).numpy().argmax(axis=1) == label).mean()
        assert found.success[label] == pytest.approx(share, abs=0.02)


def test_anomaly_index_and_rank_by_hand():
    norms = np.array([100.0, 110, 90, 20, 105])  # median 100, distances 0 10 10 80 5: their median is 10
    np.testing.assert_allclose(anomaly_index(norms), np.array([0, -10, 10, 80, -5]) / 14.826)
    labels = np.array([4, 5, 7, 8, 9])
    found = target_statistics(trigger(norms), labels, target=8)
    assert (found["rank"], found["norm"], found["median_norm"], found["labels"]) == (1, 20, 100, 5)
    assert found["anomaly_index"] == pytest.approx(80 / 14.826)
    assert found["largest_anomaly_index"] == pytest.approx(10 / 14.826)
    assert found["log_anomaly_index"] == pytest.approx(np.log(5) / (1.4826 * np.log(1.1)), rel=0.01)
    assert (found["outliers"], found["unsuccessful"], found["success"]) == (1, 0, 0.75)
    assert target_statistics(trigger(norms), labels, target=7)["rank"] == 2
    clean = target_statistics(trigger(norms), labels, target=None)
    assert "rank" not in clean
    assert clean["largest_anomaly_index"] == pytest.approx(80 / 14.826)


def test_activity_is_the_mean_output(conv, faces):
    layer = conv.get_layer("conv")
    expected = layer(faces.read(np.arange(len(faces))) / np.float32(255)).numpy().mean(axis=(0, 1, 2))
    np.testing.assert_allclose(fine_pruning.mean_activation(conv, layer, faces.select()), expected, rtol=1e-5)


def test_the_least_active_channels_are_silenced(conv):
    layer = conv.get_layer("conv")
    before = layer.get_weights()
    assert fine_pruning.prune(layer, np.array([3.0, 0.5, 2.0, 0.7]), 0.5) == 2
    kernel, bias = layer.get_weights()
    assert not kernel[..., [1, 3]].any()
    assert not bias[[1, 3]].any()
    np.testing.assert_array_equal(kernel[..., [0, 2]], before[0][..., [0, 2]])


def test_a_backdoor_in_an_idle_channel_is_pruned(conv, faces, triggered):
    before = [weight.copy() for weight in conv.get_weights()]
    classify = compile_predict(conv)

    def measure():
        images = triggered.faces.read(triggered.rows)
        return {"asr": (classify(images).argmax(axis=1) == TARGET).mean(), "accuracy": 1.0, "validation_accuracy": 1.0}

    settings = FinePruningParams(**PRUNING | {"fractions": [0.5, 0.25]})  # nothing pruned comes first all the same
    curve = fine_pruning.prune_and_tune(conv, faces.select(), settings, measure, seed=1)
    assert curve["fraction"].tolist() == [0, 0.25, 0.5]
    assert curve["channels"].tolist() == [0, 1, 2]
    assert curve["asr"].tolist() == [1, 0, 0], "the first channel is idle on clean faces and goes first"
    for weight, original in zip(conv.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, original)


def test_tuning_trains_what_is_left_and_repeats(conv, faces):
    layer, schedule = conv.get_layer("conv"), TrainingParams(epochs=2, batch=16, learning_rate=1e-2)
    tune, start = fine_pruning.fine_tuner(conv, faces.select(), schedule, seed=1), conv.get_weights()
    ends = []
    for _ in range(2):
        conv.set_weights(start)
        fine_pruning.prune(layer, np.arange(4), 0.5)
        tune()
        ends.append(conv.get_weights())
    for one, other in zip(*ends, strict=True):
        np.testing.assert_array_equal(one, other)
    assert not ends[0][0][..., :2].any(), "pruned channels stay silent"
    assert (ends[0][0][..., 2:] != start[0][..., 2:]).any()
    assert (ends[0][2] != start[2]).any()


def test_the_paper_picks_the_largest_fraction_that_costs_little():
    columns = ["fraction", "channels", "validation_accuracy", "accuracy", "asr", "tuned_accuracy", "tuned_asr"]
    rows = [[0.0, 0, 0.98, 0.97, 1, 0.96, 0.9], [0.5, 5, 0.94, 0.9, 0.8, 0.95, 0.3], [0.9, 9, 0.3, 0.2, 0.1, 0.6, 0.1]]
    found = fine_pruning.select_fraction(pd.DataFrame(rows, columns=columns), accuracy_drop=0.04)
    assert (found["fraction"], found["channels"], found["asr"], found["tuned_asr"]) == (0.5, 5, 0.8, 0.3)
    assert (found["unpruned_accuracy"], found["unpruned_asr"]) == (0.97, 1)
    assert fine_pruning.select_fraction(pd.DataFrame(rows, columns=columns), accuracy_drop=0.03)["fraction"] == 0


def test_a_layer_that_cannot_be_pruned_is_named(conv):
    for name in ("conv_9", "pool"):
        with pytest.raises(UserError, match=rf"inspection\.fine_pruning\.layer is '{name}'; choose from conv$"):
            fine_pruning.find_layer(conv, name)


def test_integrated_gradients_of_a_linear_network_are_its_weights():
    weights = np.random.default_rng(3).normal(size=(HEIGHT, WIDTH, 3, 4)).astype(np.float32)
    images, baseline = random_images(21, seed=3), random_images(1, seed=4)[0]
    before = images.copy()
    found = integrated_gradients(linear(weights, np.zeros(4)), images, baseline, label=3)
    expected = weights[..., 3] * (images.astype(np.float32) - baseline) / 255
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(images, before)


def test_integrated_gradients_add_up_to_the_difference_of_the_logits():
    """A ReLU that opens half way from black to white: the gradient there is 20, nowhere the 10 of the difference."""
    even = linear(np.full((HEIGHT, WIDTH, 3, 4), 20 / (HEIGHT * WIDTH * 3), np.float32), np.full(4, -10))
    model = keras.Sequential([even, keras.layers.ReLU()])
    white, black = np.full((1, HEIGHT, WIDTH, 3), 255, np.uint8), np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    assert integrated_gradients(model, white, black, label=1).sum() == pytest.approx(10, rel=1e-3)
    assert integrated_gradients(model, white // 2, black, label=1).sum() == 0


def test_share_inside_by_hand():
    attributions = np.zeros((2, 3, 4, 3))
    attributions[0, 0, 0], attributions[0, 1, 1], attributions[1, 2] = [1, -1, 0], [0, 0, 6], 1
    region = np.zeros((2, 3, 4), bool)
    region[:, 0], region[1, 2, :1] = True, True
    assert attribution_share(attributions, region).tolist() == [0.25, 0.25]


def test_attributions_of_a_backdoored_network_lie_on_the_trigger(faces, triggered):
    places = np.arange(len(faces))
    baseline = mean_image(faces.select())
    np.testing.assert_array_equal(baseline, np.rint(faces.read(places).mean(axis=0)))
    even = linear(np.ones((HEIGHT, WIDTH, 3, 4), np.float32), np.zeros(4))
    suspect = AttackedModel(planted_patch(), faces.select(), triggered, triggered, triggered, TARGET)
    numbers, images, maps = saliency_metrics(suspect, even, faces, baseline, count=5)
    assert images.shape == (5, HEIGHT, WIDTH, 3)
    assert numbers["area"] == pytest.approx(6 / (HEIGHT * WIDTH))
    assert numbers["share"] == pytest.approx(1)
    assert numbers["clean_share"] < 0.02
    assert numbers["images"] == len(maps["clean"]) == 5


def test_features_are_what_the_last_layer_takes(conv):
    images = random_images(3) / np.float32(255)
    features = feature_extractor(conv)(images).numpy()
    kernel, bias = conv.get_layer("output").get_weights()
    np.testing.assert_allclose(features @ kernel + bias, conv(images).numpy(), rtol=1e-4, atol=1e-4)


def test_poisons_of_a_training_set_are_found(conv, faces, triggered):
    """Poisons light up the first feature; all are among the images trained for the target."""
    poisons = triggered._replace(labels=np.full(13, TARGET))
    train = faces.select(np.arange(15, 90))
    suspect = AttackedModel(conv, train, poisons, triggered, triggered, TARGET)
    results = search_training_set(suspect, faces.select(np.arange(15)))
    found = {name: training_filter_metrics(suspect, result, seed=1) for name, result in results.items()}
    spectral = found["spectral_signatures"]
    assert (spectral["poisons"], spectral["images"]) == (13, 88)
    assert spectral["flagged"] == pytest.approx((int(0.15 * 8) + int(0.15 * 19) + int(0.15 * 44) + int(0.15 * 17)) / 88)
    assert spectral["recall"] <= 6 / 13
    assert spectral["label_auroc"] == 1
    assert found["activation_clustering"]["label_auroc"] == 1
    assert found["activation_clustering"]["recall"] == 1
    assert found["activation_clustering"]["precision"] > 0.8
    assert all(numbers["auroc_low"] <= numbers["auroc"] <= numbers["auroc_high"] for numbers in found.values())


def test_flagged_images_are_left_out_of_the_second_training(conv, faces, triggered):
    """All but one poison, and two clean images, are removed, and no cover; the second network knows no trigger."""
    train = faces.select(np.arange(15, 90))
    added = triggered._replace(labels=np.array([TARGET] * 12 + [0]))
    suspect = AttackedModel(planted_patch(), train, added, triggered, triggered, TARGET)
    flagged = np.zeros(75 + 13, bool)
    flagged[[0, 4, *range(76, 87)]] = True
    seen = []

    def retrain(selections):
        seen.extend(selections)
        return linear(np.zeros((HEIGHT, WIDTH, 3, 4), np.float32), np.eye(4)[(TARGET + 1) % 4])

    found = retraining_metrics(suspect, conv, flagged, faces.select(), retrain)
    assert seen[0].rows.tolist() == np.delete(np.arange(15, 90), [0, 4]).tolist()
    assert seen[0].labels.tolist() == faces.labels[seen[0].rows].tolist()
    assert seen[1].rows.tolist() == triggered.rows[[0, 12]].tolist()
    assert (found["removed"], found["poisons_left"], found["cover_left"]) == (13, 1, 1)
    assert (found["before_asr"], found["asr"]) == (1, 0)
    named = conv(faces.read(np.arange(90)) / np.float32(255)).numpy().argmax(axis=1)
    assert found["clean_model_clean_accuracy"] == (named == faces.labels).mean()
    assert found["clean_accuracy"] == (faces.labels == (TARGET + 1) % 4).mean()


def test_filtered_images_are_counted_by_hand(conv, faces, triggered):
    train = faces.select(np.arange(15, 90))
    suspect = AttackedModel(conv, train, triggered._replace(labels=np.full(13, TARGET)), triggered, triggered, TARGET)
    flagged = np.isin(np.arange(88), [3, 4, 80, 81, 82])
    found = training_filter_metrics(suspect, FilteredSet(np.arange(88.0), flagged), seed=1)
    assert (found["recall"], found["clean_flagged"], found["precision"]) == (3 / 13, 2 / 75, 3 / 5)
    assert found["recall_low"] < 3 / 13 < found["recall_high"]


@pytest.mark.parametrize(
    ("change", "sentence"), [("layer", "layer is 'pool'; choose from conv$"), ("poisons", "planted has no poisons")]
)
def test_wrong_settings_are_an_error_at_once(change, sentence, conv, faces, triggered, monkeypatch):
    monkeypatch.setattr("visor.evaluation.inspection.TRAINING_FILTERS", None)  # any work would fail
    pruning = PRUNING | ({"layer": "pool"} if change == "layer" else {})
    settings = InspectionParams(
        training_filtering={"attacks": ["planted"], "retrain": "planted"},
        neural_cleanse=CLEANSE,
        fine_pruning=pruning,
        saliency={"attacks": ["planted"], "images": 4},
    )
    poisons = triggered if change == "layer" else triggered.faces.select(np.arange(0))
    suspects = {"planted": AttackedModel(conv, faces.select(), poisons, triggered, triggered, TARGET)}
    with pytest.raises(UserError, match=sentence):
        inspect(suspects, conv, faces.select(), faces.select(), settings, 1, None)


def test_everything_at_once_repeats_and_is_drawn(conv, faces, triggered, tmp_path):
    settings = InspectionParams(
        training_filtering={"attacks": ["planted"], "retrain": "planted"},
        neural_cleanse=CLEANSE | {"steps": 5},
        fine_pruning=PRUNING,
        saliency={"attacks": ["planted"], "images": 4},
    )
    suspects = {
        "planted": AttackedModel(
            conv, faces.select(), triggered._replace(labels=np.full(13, 2)), triggered, triggered, TARGET
        )
    }
    clean = planted_patch()
    both = [inspect(suspects, clean, faces.select(), faces.select(), settings, 1, lambda _: clean) for _ in range(2)]
    for folder, findings in zip("ab", both, strict=True):
        draw(findings, faces.label_names, "conv", tmp_path / folder)
    assert both[0].metrics == both[1].metrics
    key = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    key[PATCH] = [255, 0, 0]
    np.testing.assert_array_equal(both[0].keys["planted"], key)
    methods = (*TRAINING_FILTERS, "retraining", "neural_cleanse", "fine_pruning", "saliency")
    assert set(both[0].metrics) == {"clean/neural_cleanse", *(f"planted/{method}" for method in methods)}
    assert both[0].curves["attack"].tolist() == ["planted"] * 3
    for name in ("neural_cleanse.png", "fine_pruning.png", "saliency.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        assert (tmp_path / "a" / name).read_bytes().startswith(b"\x89PNG")
