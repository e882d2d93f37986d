"""A frozen graph that the test freezes: boxes and gradients of the live one; PGD blinds it; hostile ones refused."""

import visor.core.tf  # noqa: F401 - before anything imports TensorFlow

# isort: split
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import op_def_registry

from visor.attacks.evasion.loop import AttackSettings
from visor.attacks.evasion.losses.detectors import DETECTOR_LOSSES
from visor.attacks.evasion.pgd import compile_pgd
from visor.core.errors import UserError
from visor.core.params import DetectorParams
from visor.models import graph_file
from visor.models.detectors import frozen_graph

SIDE, CELLS = 40, 5
WEIGHTS = np.random.default_rng(3).normal(0, 1, (8, 8, 3, 1)).astype(np.float32)


def live_scores(images):
    """Scores (n, cells²) of float images in 0..255."""
    cells = tf.nn.conv2d(images / 255.0 - 0.5, WEIGHTS, 8, "VALID")
    return tf.sigmoid(tf.reshape(cells, (-1, CELLS * CELLS)))


def freeze(path, raw=True, kind=tf.uint8, classes=None):
    """Write the graph; with so many ``classes``, which it does not know, the last one has the scores / classes."""
    with tf.Graph().as_default() as graph:
        image = tf.compat.v1.placeholder(kind, (1, SIDE, SIDE, 3), "image_tensor")
        scores = live_scores(tf.cast(image, tf.float32, "ToFloat"))
        start = np.stack(np.mgrid[:CELLS, :CELLS], -1).reshape(-1, 2) / CELLS
        boxes = tf.constant(np.concatenate([start, start + 1 / CELLS], 1), tf.float32)
        if raw:
            tf.identity(boxes[None], "raw_detection_boxes")
            columns = tf.stack([scores / (classes - i) for i in range(classes)][::-1], -1) if classes else scores
            unknown = (1, None, None)[: columns.shape.rank]
            tf.compat.v1.placeholder_with_default(columns, unknown, "raw_detection_scores")
        kept = tf.image.non_max_suppression(boxes, scores[0], 10)
        tf.expand_dims(tf.gather(boxes, kept), 0, "detection_boxes")
        tf.expand_dims(tf.gather(scores[0], kept), 0, "detection_scores")
        tf.ones((1, tf.size(kept)), name="detection_classes")
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return path


def load(path, **options):
    return frozen_graph.load(DetectorParams(threshold=0.5, options={"path": str(path), **options}), path.parent)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)


def test_finds_what_the_live_one_finds(tmp_path, images):
    scores = live_scores(tf.cast(images, tf.float32)).numpy()
    for own, expected in zip(load(freeze(tmp_path / "a.pb")).detect(images), scores, strict=True):
        np.testing.assert_allclose(own.scores, np.sort(expected)[::-1][:10], rtol=1e-5)
        y, x = divmod(int(expected.argmax()), CELLS)
        np.testing.assert_allclose(own.boxes[0], [8 * x, 8 * y, 8, 8], atol=1e-4)


@pytest.mark.parametrize("raw", [True, False])
def test_gradient_is_that_of_the_live_one(tmp_path, images, raw):
    floats = tf.constant(images / 255, tf.float32)
    detector = load(freeze(tmp_path / "a.pb", raw))

    def gradient(score):
        with tf.GradientTape() as tape:
            tape.watch(floats)
            best = tf.reduce_sum(tf.math.top_k(score(floats), 10).values)
        return tape.gradient(best, floats)

    ours = gradient(lambda images: detector.pre_nms(images)[1])
    np.testing.assert_allclose(ours, gradient(lambda images: live_scores(images * 255)), rtol=1e-4, atol=1e-6)


def test_pgd_hides_from_it(tmp_path, images):
    detector = load(freeze(tmp_path / "a.pb"))
    loss = DETECTOR_LOSSES["suppress"](detector.pre_nms, None, 0.5, 1.0)
    truth = np.zeros((3, 1, 4), np.float32), np.zeros((3, 1), np.int32)
    found = compile_pgd(loss, AttackSettings(0.2, 20, 0.02))(images, truth, [0, 1, 2]).images
    after = detector.detect(np.rint(found * 255).astype(np.uint8))
    before = detector.detect(images)
    assert min(own.scores[0] for own in before) > 0.6
    assert max(own.scores.max(initial=0) for own in after) < 0.1


def test_an_image_of_another_size_than_a_fixed_one_is_one_sentence(tmp_path):
    detector = load(freeze(tmp_path / "a.pb"))
    with pytest.raises(
        UserError, match=r"a\.pb does not accept an image of 47×52 pixels \(Input to reshape .*; freeze"
    ) as told:
        detector.detect(np.zeros((1, 52, 47, 3), np.uint8))
    assert "\n" not in str(told.value)


def test_files_that_are_refused(tmp_path):
    (tmp_path / "broken.pb").write_bytes(b"\xff" * 100)
    (tmp_path / "empty.pb").write_bytes(b"")
    for name, said in (("none", "cannot be read"), ("broken", "not a frozen graph"), ("empty", "not a frozen graph")):
        with pytest.raises(UserError, match=f"{name}.pb .*{said}"):
            load(tmp_path / f"{name}.pb")


HOSTILE = (
    *("ReadFile", "WriteFile", "ImmutableConst", "MatchingFiles", "RecordInput", "GenerateVocabRemapping"),
    *("EncodeProto", "DecodeProtoV2", "Abort", "PyFunc", "EagerPyFunc", "PrintV2", "DumpTensor", "ImportEvent"),
    *("Skipgram", "FixedUnigramCandidateSampler", "FileSystemSetConfiguration", "VarHandleOp", "SymbolicGradient"),
    *("const", "ReadFileConst", ""),
)


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("operation", HOSTILE)
def test_operations_that_no_detector_needs_are_refused(tmp_path, operation, hidden):
    """Also in the body of a function, of which the graph itself shows the call alone."""
    graph = tf.compat.v1.GraphDef.FromString(freeze(tmp_path / "a.pb").read_bytes())
    nodes = graph.library.function.add().node_def if hidden else graph.node
    nodes.add(name="spy", op=operation)
    (tmp_path / "spy.pb").write_bytes(graph.SerializeToString())
    with pytest.raises(UserError, match=rf"spy.pb: operation {operation} \(spy\) .*freeze"):
        load(tmp_path / "spy.pb")


def test_the_list_names_real_operations_without_a_state_of_their_own():
    stateful = {"Placeholder", "Assert", "If", "While", "Case", "StatefulPartitionedCall"}
    registered = {name: op_def_registry.get(name) for name in graph_file.ALLOWED_OPERATIONS}
    assert [name for name, found in registered.items() if found is None] == []
    kept = {name for name, found in registered.items() if found.is_stateful and not name.startswith("TensorArray")}
    assert kept <= stateful
    attributes = {attribute.name for found in registered.values() for attribute in found.attr}
    assert not [name for name in attributes if "file" in name or "path" in name or "memory" in name]


def test_loops_of_tensorflow_1_are_taken(tmp_path, images):
    """As the zoo's: every image is resized in a loop that fills a TensorArray, with an assertion beside."""
    tf.compat.v1.disable_control_flow_v2()
    try:
        with tf.Graph().as_default() as graph:
            image = tf.compat.v1.placeholder(tf.uint8, (None, None, None, 3), "image_tensor")
            floats = tf.cast(image, tf.float32)
            squares = tf.compat.v1.map_fn(lambda one: tf.compat.v1.image.resize(one, (SIDE, SIDE)), floats)
            with tf.control_dependencies([tf.compat.v1.Assert(tf.rank(squares) > 3, [squares])]):
                squares = tf.identity(squares)
                scores = live_scores(tf.reshape(squares, (-1, SIDE, SIDE, 3)))
            tf.identity(scores, "detection_scores")
            tf.zeros((1, CELLS * CELLS, 4), name="detection_boxes")
    finally:
        tf.compat.v1.enable_control_flow_v2()
    written = graph.as_graph_def()
    assert {"Enter", "LoopCond", "TensorArrayReadV3", "Assert"} <= {node.op for node in written.node}
    (tmp_path / "a.pb").write_bytes(written.SerializeToString())
    with pytest.raises(UserError, match=r"a\.pb: detection_scores:0 has no gradient; set the options raw_boxes, raw_s"):
        load(tmp_path / "a.pb").pre_nms(tf.constant(images / 255, tf.float32))
    detector = load(tmp_path / "a.pb", floats="map/TensorArrayStack/TensorArrayGatherV3", input_size=SIDE)
    found = detector.detect(images)
    expected = live_scores(tf.cast(images, tf.float32)).numpy()
    for own, scores in zip(found, expected, strict=True):
        np.testing.assert_allclose(own.scores, np.sort(scores[scores >= 0.01])[::-1], rtol=1e-5)
    pixels = tf.constant(images / 255, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(pixels)
        scores = detector.pre_nms(pixels)[1]
    np.testing.assert_allclose(scores, expected, rtol=1e-4)
    assert (np.abs(tape.gradient(scores, pixels)).max((1, 2, 3)) > 0).all()


def test_placeholder_of_floats(tmp_path, images):
    bytes_taken = load(freeze(tmp_path / "a.pb"))
    floats_taken = load(freeze(tmp_path / "b.pb", kind=tf.float32))
    pixels = tf.constant(images / 255, tf.float32)
    for one, other in zip(floats_taken.detect(images), bytes_taken.detect(images), strict=True):
        np.testing.assert_allclose(one.scores, other.scores, rtol=1e-5)
    np.testing.assert_allclose(floats_taken.pre_nms(pixels)[1], bytes_taken.pre_nms(pixels)[1], rtol=1e-5)


@pytest.mark.parametrize("columns", [1, 3])
def test_number_of_classes_may_be_unknown(tmp_path, images, columns):
    """The column of the face is that option's, or the last one."""
    detector = load(freeze(tmp_path / "a.pb", classes=columns), face=2)
    pixels = tf.constant(images / 255, tf.float32)
    expected = live_scores(pixels * 255) / columns
    np.testing.assert_allclose(detector.pre_nms(pixels)[1], expected, rtol=1e-5)


def test_scores_that_are_no_list(tmp_path, images):
    detector = load(freeze(tmp_path / "a.pb"), raw_scores="ToFloat")
    with pytest.raises(UserError, match=r"a.pb: ToFloat:0 is not \(n, a\)"):
        detector.pre_nms(tf.constant(images / 255, tf.float32))


def test_wrong_options(tmp_path):
    path = freeze(tmp_path / "a.pb")
    for options, said in (
        ({"scores": "no_such"}, "no_such"),
        ({"nms": 3}, "nms"),
        ({"face": "abc"}, "face is 'abc'; choose a whole number"),
        ({"input_size": -300}, "input_size is -300; choose a whole number"),
        ({"input_size": 1.5}, "input_size is 1.5; choose a whole number"),
        (
            {"raw_boxes": "detection_boxes:5"},
            r"a.pb cannot be run .*output 5 of node 'detection_boxes'.* correct the options",
        ),
    ):
        with pytest.raises(UserError, match=said):
            load(path, **options)
