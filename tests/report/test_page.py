"""The run report: every number is that of its file, the same inputs give the same bytes, rounding is exact."""

import base64
import csv
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
import typer
from PIL import Image
from ruamel.yaml import YAML
from typer.testing import CliRunner

from tests.support.tiny_project import ROOT, edit
from visor.cli.pipeline import report
from visor.core.errors import UserError
from visor.core.params import GateParams
from visor.core.tables import EMPTY, MERGE_LEFT, Cell, Row, Table, label
from visor.defences.input_filtering import NEEDS_CLASSIFIER
from visor.report import curves, elements
from visor.report.backdoors import backdoor_section
from visor.report.elements import Figure
from visor.report.images import MAX_PNG_BYTES, MAX_WIDTH, EmbeddedImage, embed_image
from visor.report.inputs import read_run_data
from visor.report.page import SECTIONS, build, by_shape, format_duration, stage_bars, total_seconds
from visor.report.provenance import Provenance, collect_provenance
from visor.report.summary import best_or_worst
from visor.tracking.history import History

PARAMS = YAML(typ="safe").load(ROOT / "params.yaml")
FACTS = {"Data and packages", "All params"}  # tables without a measured number
RECOGNITION = "Impersonation and dodging at a false-accept rate of 1 %"
SOURCES = {"data-metric", "data-original", "data-param", "data-name"}  # a cell with a digit has one of them
YAML_LOCK = "schema: '2.0'\nstages:\n"
NEEDED = ("params.yaml", "data.dvc", "requirements.lock")
TOP = {
    "faces": [
        {
            "before": [{"confidence": 0.9953, "name": "ann"}, {"confidence": 0.0012, "name": "bob_2"}],
            "misclassify": [{"confidence": 0.75, "name": "bob_2"}],
            "target_class": [{"confidence": 0.5, "name": "<b>cleo"}, {"confidence": 0.25, "name": "ann"}],
            "condition": "adam_8x30",
            "person": "ann",
            "target": "<b>cleo",
            "row": 3,
        }
    ]
}


def png(path, colour="red", side=4):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side), colour).save(path)


def make_plots(root):
    """Write an image of one colour for each figure of the page."""
    run = read_run_data(root)
    for part in SECTIONS:
        for figure in part(run).figures:
            png(root / "plots" / figure.path)


def make_project(root):
    """Make a project of the committed metrics and params, with small plots and a short table of top classes."""
    shutil.copytree(ROOT / "metrics", root / "metrics")
    for name in NEEDED:
        shutil.copy(ROOT / name, root)
    for name in PARAMS["classification_attack"]["networks"]:
        path = root / f"artifacts/classification/{name}/top.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(TOP))
    make_plots(root)
    return root


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("report") / "project")


@pytest.fixture
def project(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "project")


@pytest.fixture(scope="module")
def page(whole):
    return build(whole, None)


@pytest.fixture(scope="module")
def tables(page):
    return parsed(page)


class Tables(HTMLParser):
    """Cells of a page: (label of the table, head of the row, head of the column, attributes, text)."""

    def __init__(self):
        super().__init__()
        self.cells, self.kinds, self.labels, self.ids, self.links, self.open = [], [], [], [], [], []
        self.caption = self.row = ""
        self.heads, self.at, self.kind = [], 0, ""

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links += [attributes[name] for name in ("href", "src") if name in attributes]
        if tag == "table":
            self.heads, self.kind, self.caption = [], attributes["class"], attributes["aria-label"]
            self.labels.append(self.caption)
        if tag == "tr":
            self.at = -1
        if tag in ("th", "td"):
            self.open.append((tag, attributes, []))

    def handle_data(self, data):
        if self.open:
            self.open[-1][2].append(data)

    def handle_endtag(self, tag):
        if not self.open or tag != self.open[-1][0]:
            return
        _, attributes, texts = self.open.pop()
        text, span = "".join(texts), int(attributes.get("colspan", 1))
        if attributes.get("scope") == "col":
            self.heads += [text] * span
        elif tag == "th":
            self.row, self.at = text, 1
        else:
            head = self.heads[self.at] if self.heads else ""
            self.cells.append((self.caption, self.row, head, attributes, text))
            self.kinds.append(self.kind)
            self.at += span


def parsed(text):
    tables = Tables()
    tables.feed(text)
    tables.close()
    return tables


def look_up(root, metric):
    """Read the number that a metric names, without any code of the project."""
    file, _, key = metric.partition(":")
    if file.endswith(".csv"):
        place, column = key.split(":")
        return float(list(csv.DictReader((root / file).open()))[int(place)][column])
    content = json.loads((root / (file if file.endswith(".json") else f"metrics/{file}.json")).read_text())
    return walk(content, key)


def walk(content, key):
    """Return the leaf of a dotted name; keys contain dots, too, so that every split is tried."""
    if not key:
        return content
    if isinstance(content, list):
        first, _, rest = key.partition(".")
        return walk(content[int(first)], rest)
    for name in content:
        if key == name or key.startswith(f"{name}."):
            value = walk(content[name], key[len(name) + 1 :])
            if isinstance(value, (int, float)):
                return value
    return None


def is_rounding(text, value):
    """Return whether the text is the value, in percent or points if so written, rounded to the digits shown."""
    text = text.removeprefix("(").removesuffix(")").removesuffix(" to")
    shown = text.replace("−", "-").removesuffix(" %").removesuffix(" pp")
    places = len(shown.partition(".")[2]) if "e" not in shown else 12
    exact = value * 100 if text.endswith(("%", "pp")) else value
    return abs(float(shown) - exact) <= 0.5 * 10**-places + 1e-9


# --- numbers


def test_every_number_is_that_of_its_file(whole, page):
    tables = parsed(page)
    measured = [
        (attributes["data-metric"], text) for *_, attributes, text in tables.cells if "data-metric" in attributes
    ]
    assert {label for label in tables.labels if label not in FACTS} == expected_captions()
    assert [each for each in measured if not is_rounding(each[1], look_up(whole, each[0]))] == []
    for (caption, *_, attributes, text), kind in zip(tables.cells, tables.kinds, strict=True):
        if kind.startswith("results") and re.search(r"\d", text):
            assert len(SOURCES & {*attributes}) == 1, (caption, text)
            assert "data-param" not in attributes or "gates" in kind
        elif kind.startswith("results"):
            assert not {"data-metric", "data-param"} & {*attributes}, (caption, text)


def test_the_rounding_test_can_fail():
    assert is_rounding("97.2 %", 0.9725)
    assert is_rounding("−0.013", -0.0134)
    assert not is_rounding("97.2 %", 0.9735)
    assert not is_rounding("0.013", -0.013)
    assert not is_rounding("97.2", 0.972)
    assert is_rounding("(+8.3 pp to", 0.0833)
    assert not is_rounding("8.3 pp)", 0.0844)


def cells_at(tables, caption, row, column):
    return [
        (attributes.get("data-metric", ""), text)
        for title, line, head, attributes, text in tables.cells
        if (title, line, head) == (caption, row, column)
    ]


def test_numbers_match_their_heads(page):
    tables = parsed(page)
    attack = next(name for name in PARAMS["training_sets"] if name != "clean")
    for network in PARAMS["networks"]:
        cells = cells_at(tables, "Attack success", attack.replace("_", " "), network.replace("_", " "))
        keys = [metric for metric, _ in cells]
        assert keys == [f"backdoor/{network}/{attack}:asr{end}" for end in ("", "_low", "_high")]
    for defence in PARAMS["defences"]:
        if defence not in ("second_opinion", "suite_alone"):  # they are off
            (cell,) = cells_at(tables, "AUROC of every defence on every trigger", "blended", label(defence))
            score = f"{defence}-blended" if defence in NEEDS_CLASSIFIER else defence
            assert cell[0] == f"defence/{score}/blended:auroc"
    for detector in PARAMS["detection_attack"]["detectors"]:
        cells = cells_at(tables, "Average precision at IoU 0.5", "PGD 5/255 × 40", detector.replace("_", " "))
        assert [key for key, _ in cells] == [
            f"detection/{detector}/pgd_5x40:ap_50{end}" for end in ("", "_low", "_high")
        ]
    cells = cells_at(tables, "Transfer: faces that vanished", "attacked on ssd", "mtcnn")
    assert cells[0][0] == "transfer:ssd.mtcnn.vanished"
    column = "accepted as the nearest other person"
    cells = cells_at(tables, "White-box attacks on facenet, FAR 1 %", "pgd 8/255 × 30", column)
    assert cells[0][0] == "recognition/facenet/impersonate_nearest:pgd_8x30.success_0.01"
    lines = list(csv.DictReader((ROOT / "metrics/fine_pruning.csv").open()))
    for place, line in enumerate(lines):
        row = f"{line['attack']}, channels pruned: {100 * float(line['fraction']):.0f}%"
        (cell,) = cells_at(tables, "Fine-pruning", row, "attack success, tuned")
        assert cell[0] == f"metrics/fine_pruning.csv:{place}:tuned_asr"
    cells = cells_at(tables, "resnet50: ann, target <b>cleo; adam 8/255 × 30", "2.", "before")
    assert cells == [("", "bob 2"), ("artifacts/classification/resnet50/top.json:faces.0.before.1.confidence", "0.1 %")]


def expected_captions():
    """Return the labels of all tables of a whole run of the committed params."""
    settings = PARAMS["recognition_attack"]
    (name,), rates = settings["white_box"], [f"{100 * rate:g}" for rate in settings["false_accept_rates"]]
    ways = ["" if way == "none" else f", cropped by {way}" for way in settings["cropping_detectors"]]
    targets = [f"accepted as the {rule} other person" for rule in settings["targets"]]
    goals = (*targets, "no longer accepted as oneself")
    captions = {f"Backdoor attacks on {PARAMS['inspected_network']}"} | {caption for caption, *_ in EXPECTED}
    captions |= {
        f"Verification of people that no recogniser was trained on, threshold for FAR {rate} %" for rate in rates
    }
    captions |= {f"White-box attacks on {name}, FAR {rate} %" for rate in rates}
    captions |= {f"Transfer from {name}: {goal}, FAR {rates[0]} %{way}" for goal in goals for way in ways}
    if any("n_at_90" in path.read_text() for path in ROOT.glob("metrics/poison_budget/*/*.json")):
        captions.add("Number of poisons for 90 % attack success")
    return captions


# One cell of each kind of table: (table, row, column) -> its metric.
EXPECTED = {
    ("Attackers who know the defence", "adaptive blend", "suite: not flagged"): (
        "adaptive/adaptive_blend:suite_asr_unflagged"
    ),
    (
        "Detecting poisoned images",
        "clean faces flagged by the reference",
        "this run",
    ): "defence/reconstruction/clean:fpr",
    ("Hiding faces from detectors", "faster rcnn: attacked, 5/255 × 40", "this run"): (
        "detection/faster_rcnn/pgd_5x40:ap_50"
    ),
    (RECOGNITION, "facenet: dodging, pgd 8/255 × 30", "this run"): ("recognition/facenet/dodge:pgd_8x30.success_0.01"),
    (RECOGNITION, "facenet: dodging of vgg face, momentum augmented 16/255 × 30", "this run"): (
        "recognition_transfer:dodge.facenet.momentum_augmented_16x30.vgg_face.none.success_0.01"
    ),
    (RECOGNITION, "facenet: dodging of vgg face, noise 16/255", "this run"): (
        "recognition_transfer:dodge.facenet.noise_16.vgg_face.none.success_0.01"
    ),
    ("Misclassification", "resnet50: the target's class, by noise", "this run"): (
        "classification/resnet50/target_class:noise_8.success"
    ),
    ("Attack success", "input instance", "poisons"): "backdoor/deepid/input_instance:n",
    ("Attack success", "input instance", "deepid without poisons"): "backdoor/deepid/input_instance:asr_of_clean_model",
    ("Clean accuracy", "input instance", "deepface"): "backdoor/deepface/input_instance:clean_accuracy",
    ("Poison budgets", "deepid, blended, seed 11", "clean accuracy"): "metrics/poison_budget.csv:0:clean_accuracy",
    ("Verification by the features of deepid", "none, joint bayesian", "equal error rate"): (
        "verification/clean:joint_bayesian_eer"
    ),
    ("Face data", "test faces", "this run"): "split:test",
    ("Reconstruction loss (reference defence)", "blended", "above the threshold"): "defence/reconstruction/blended:tpr",
    ("Attack success that is not flagged", "blended", "no defence"): "defence/reconstruction/blended:asr",
    ("Attack success that is not flagged", "blended", "suite"): "defence/suite-blended/blended:asr_unflagged",
    ("Attack success that is not flagged", "blended", "paste detector"): "defence/patch/blended:asr_unflagged",
    (
        "Flagged although correctly classified",
        "knn, blended",
        "clean faces",
    ): "defence/knn-blended/blended:fpr_correctly_classified",
    ("Flagged although correctly classified", "suite, blended", "abstained"): "defence/suite-blended/blended:abstained",
    ("AUROC of every defence on every trigger", "blended", "paste detector"): "defence/patch/blended:auroc",
    ("False positives of the thresholds", "knn, blended", "mean + std, expected"): "threshold/knn-blended:implied_fpr",
    ("False positives of the thresholds", "knn, blended", "mean + std, measured"): "defence/knn-blended/clean:fpr",
    ("False positives of the thresholds", "suite, blended", "conformal, expected"): (
        "threshold/suite-blended:conformal_fpr"
    ),
    ("False positives of the thresholds", "paste detector", "conformal, measured"): (
        "defence/patch/clean:conformal_fpr"
    ),
    ("False positives of the thresholds", "paste detector", "AUROC, delivered once more"): (
        "defence/patch/clean:control_auroc"
    ),
    ("Poisons in the training set", "blended, spectral signatures", "recall"): (
        "inspection/blended/spectral_signatures:recall"
    ),
    ("Neural Cleanse", "no backdoor", "largest of the others"): "inspection/clean/neural_cleanse:largest_anomaly_index",
    ("Fine-pruning", "blended, channels pruned: 0%", "attack success, tuned"): "metrics/fine_pruning.csv:0:tuned_asr",
    ("Share of the integrated gradients on the key", "accessory", "attacked network"): (
        "inspection/accessory/saliency:share"
    ),
    ("Average precision at IoU 0.5", "noise 2/255", "ssd"): "detection/ssd/noise_2:ap_50",
    ("Recall at IoU 0.5", "PGD 5/255 × 40, JPEG 75", "ssd"): "detection/ssd/jpeg75_5x40:recall_50",
    ("Outcome for each face", "PGD 5/255 × 40", "faster rcnn: vanished"): "detection/faster_rcnn/pgd_5x40:vanished",
    ("Outcome for each face", "training loss 5/255 × 40", "ssd: recall at IoU 0.3"): (
        "detection/ssd/training_loss_5x40:recall_30"
    ),
    ("Size of the changes, measured on the saved files", "noise 2/255", "ssd: PSNR, dB"): (
        "detection/ssd/noise_2:psnr"
    ),
    ("Transfer: faces that vanished", "noise", "cascade"): "transfer:noise.cascade.vanished",
    (
        "Verification of people that no recogniser was trained on, threshold for FAR 1 %",
        "mtcnn → vgg face",
        "faces not detected",
    ): ("recognition/facenet/verification:vgg_face.mtcnn.not_found"),
    ("White-box attacks on facenet, FAR 0.1 %", "pgd 8/255 × 30", "no longer accepted as oneself"): (
        "recognition/facenet/dodge:pgd_8x30.success_0.001"
    ),
    ("Transfer from facenet: accepted as the furthest other person, FAR 1 %", "noise 16/255", "facenet (white box)"): (
        "recognition_transfer:impersonate_furthest.facenet.noise_16.facenet.none.success_0.01"
    ),
    (
        "Transfer from facenet: no longer accepted as oneself, FAR 1 %, cropped by mtcnn",
        "noise 16/255",
        "faces detected",
    ): ("recognition_transfer:dodge.facenet.noise_16.facenet.mtcnn.found"),
    ("Transfer from facenet: no longer accepted as oneself, FAR 1 %, cropped by mtcnn", "of faces", "vgg face"): (
        "recognition_transfer:dodge.facenet.noise_16.vgg_face.mtcnn.right_0.01"
    ),
    ("Gain in transfer by method", "dodge: momentum augmented 16/255, on all others", "FAR 0.1 %"): (
        "recognition_transfer:gain.dodge.momentum_augmented.16x30.all.gain_0.001"
    ),
    ("resnet50: success among correctly classified faces", "adam 8/255 × 30", "classified as any other class"): (
        "classification/resnet50/misclassify:adam_8x30.success"
    ),
    ("resnet50: ann, target <b>cleo; adam 8/255 × 30", "1.", "the target's class"): (
        "artifacts/classification/resnet50/top.json:faces.0.target_class.0.confidence"
    ),
    ("Gates", "defence/suite-blended/blended:asr_unflagged", "value"): "defence/suite-blended/blended:asr_unflagged",
}


@pytest.mark.parametrize(("place", "metric"), EXPECTED.items(), ids=lambda value: value[0] if len(value) == 3 else "")
def test_each_table_shows_the_metric_of_its_heads(tables, place, metric):
    assert [name for name, _ in cells_at(tables, *place) if name][:1] == [metric]


def test_published_values_are_beside_ours(page):
    tables = parsed(page)
    shown = {
        (caption, row): text for caption, row, _, attributes, text in tables.cells if "data-original" in attributes
    }
    precision, attacks = "Average precision at IoU 0.5", ("PGD 2/255 × 40", "PGD 5/255 × 40")
    published = [shown[precision, row] for row in ("clean, all test scenes", *attacks)]
    assert published == ["0.51", "0.04", "0.00"]
    recall = "Recall at IoU 0.5"
    published = [shown[recall, row] for row in ("clean, all test scenes", *attacks)]
    assert published == ["0.56", "0.14", "0.01"]
    losses = "Reconstruction loss (reference defence)"
    published = [shown[losses, row] for row in ("threshold", "accessory", "eyebrows", "lipstick")]
    assert published == ["0.097", "0.199", "0.111", "0.106"]
    assert (losses, "blended accessory") not in shown, "the same key, laid on in another way"
    goals = [f"accepted as the {rule} other person" for rule in PARAMS["recognition_attack"]["targets"]]
    for goal in (*goals, "no longer accepted as oneself"):
        assert shown[f"Transfer from facenet: {goal}, FAR 1 %", "original system, on services, photographs"] == "35 %"
    assert [(row, text) for (_, row), text in shown.items() if "35" in text] == [
        ("original system, on services, photographs", "35 %")
    ] * 3
    hiding = {row: text for (caption, row), text in shown.items() if caption == "Hiding faces from detectors"}
    assert hiding == {"faster rcnn: average precision, clean": "0.51", "faster rcnn: attacked, 5/255 × 40": "0.00"}
    assert [text for (caption, _), text in shown.items() if caption.startswith("Backdoor attacks on")] == [
        "above 90 %, around 50 poisons"
    ]


def test_the_summary_shows_extremes(whole, page):
    tables, network = parsed(page), PARAMS["inspected_network"]
    attacks = [name for name in PARAMS["training_sets"] if name != "clean"]
    success = {name: look_up(whole, f"backdoor/{network}/{name}:asr") for name in attacks}
    lowest = min(success, key=success.get)
    poisons = look_up(whole, f"backdoor/{network}/{lowest}:n")
    head = f"lowest attack success ({lowest.replace('_', ' ')}, {poisons} poisons)"
    ((metric, text),) = cells_at(tables, f"Backdoor attacks on {network}", head, "this run")
    assert (metric, text) == (f"backdoor/{network}/{lowest}:asr", f"{100 * success[lowest]:.1f} %")
    drops = {name: look_up(whole, f"backdoor/{network}/{name}:clean_drop") for name in attacks}
    worst = max(drops, key=drops.get)
    head = f"largest drop of clean accuracy ({worst.replace('_', ' ')})"
    ((metric, _),) = cells_at(tables, f"Backdoor attacks on {network}", head, "this run")
    assert metric == f"backdoor/{network}/{worst}:clean_drop"
    assert best_or_worst({"a:x": 2.0, "b:x": 1.0}, {"a": "a:x", "b": "b:x", "c": "c:x"}, min) == ("b", "b:x")
    assert best_or_worst({}, {"c": "c:x"}, min) == ("", "")


# --- the page as a whole


def test_equal_inputs_give_equal_bytes(whole, page, project):
    for path in project.rglob("metrics/**/*.json"):
        values = json.loads(path.read_text())
        path.write_text(json.dumps(dict(reversed(values.items()))))
    assert build(project, None) == page
    changed = project / "metrics/baselines.json"
    changed.write_text(json.dumps(json.loads(changed.read_text()) | {"lda_accuracy": 0.5}))
    assert build(project, None) != page


def test_it_is_one_file_without_script_that_names_no_machine(whole, page):
    tables = parsed(page)
    assert page.startswith("<!DOCTYPE html>\n<html lang=")
    assert "<script" not in page
    assert "http:" not in page.replace("http-equiv", "")
    assert "https:" not in page
    assert "url(" not in page
    assert "@import" not in page
    assert str(whole) not in page
    assert str(ROOT) not in page
    assert socket.gethostname() not in re.sub(r"base64,[\w+/=]+", "", page)
    anchors = [link for link in tables.links if link.startswith("#")]
    assert {link for link in tables.links if not link.startswith(("#", "data:"))} == set()
    assert {link[1:] for link in anchors} <= {*tables.ids}
    assert len(tables.ids) == len({*tables.ids})
    assert page.count("<img ") == len(re.findall(r'<img [^>]*alt="[^"]{10,}"', page)) > 20
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    assert "width=device-width" in page


def test_untrusted_text_is_escaped(project):
    bad = 'x"><script>alert(1)<img src=y onerror=z>'
    params = YAML().load(project / "params.yaml")
    params["sources"]["folder"]["path"] = bad
    params["gates"][f"{bad}:asr"] = {"min": 0.5}
    YAML().dump(params, project / "params.yaml")
    pin = project / "data.dvc"
    pin.write_text(pin.read_text().replace("path: data\n", f"path: '{bad}'\n"))
    make_plots(project)
    text = build(project, None)
    assert "<script" not in text
    assert "<img src=y" not in text
    assert text.count("&gt;&lt;script&gt;alert(1)&lt;img src=y onerror=z&gt;") >= 3
    assert "<b>" not in text


def test_missing_metrics_are_left_out(project):
    for name in ("detection/faster_rcnn", "backdoor/deepface", "inspection", "defence/strip-accessory"):
        shutil.rmtree(project / "metrics" / name)
    for name in ("poison_budget.csv", "fine_pruning.csv"):
        (project / "metrics" / name).unlink()
    for path in project.glob("metrics/backdoor/*/input_instance.json"):
        path.unlink()
    edit(project, networks=["deepid", "vgg_face"], gates={}, poison_budget__ratios__train=[])
    (project / "plots/poison_budget/ratios.png").unlink()
    text = build(project, None)
    tables = parsed(text)
    captions = {caption for caption, *_ in tables.cells}
    assert "Poison budgets" not in captions
    assert "Fine-pruning" not in captions
    assert not {"inspection", "gates"} & {*tables.ids}
    heads = {(caption, head) for caption, _, head, *_ in tables.cells}
    assert ("Attack success", "vgg face") in heads
    assert ("Attack success", "deepface") not in heads
    assert ("Average precision at IoU 0.5", "faster rcnn") not in heads
    rows = {row for caption, row, *_ in tables.cells if caption == "Clean accuracy"}
    assert rows == {"none", *(label(name) for name in PARAMS["training_sets"][1:] if name != "input_instance")}
    (cell,) = cells_at(tables, "AUROC of every defence on every trigger", "accessory", "strip")
    assert cell == ("", "–")
    assert [
        attributes
        for *_, attributes, text in tables.cells
        if "data-metric" in attributes and not re.search(r"\d", text)
    ] == []


@pytest.mark.parametrize("name", [*NEEDED, "plots/defences/matrix.png", "plots/poison/accessory.png"])
def test_a_missing_file_is_one_sentence(project, name):
    (project / name).unlink()
    with pytest.raises(UserError, match=re.escape(name) + r" is missing; .+"):
        build(project, None)


def test_missing_or_broken_folders_and_plots(project):
    (project / "plots/scenes.png").write_text("not an image")
    with pytest.raises(UserError, match=r"plots/scenes\.png cannot be read \(not an image\)"):
        build(project, None)
    shutil.rmtree(project / "artifacts")
    with pytest.raises(UserError, match=r"top\.json is missing; run `dvc repro`"):
        build(project, None)
    shutil.rmtree(project / "metrics")
    with pytest.raises(UserError, match="metrics/ has no numbers"):
        build(project, None)


def test_figures_are_outputs_of_the_pipeline(whole):
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"].values()
    plots = [out for each in stages for out in each.get("do", each).get("plots", [])]
    listed = [next(iter(out)) if isinstance(out, dict) else out for out in plots]
    patterns = [re.sub(r"\\\$\\\{.*?\\\}", "[^/]+", re.escape(out)) for out in listed]
    run = read_run_data(whole)
    for part in SECTIONS:
        for figure in part(run).figures:
            assert any(re.match(rf"{pattern}(/|$)", f"plots/{figure.path}") for pattern in patterns), figure.path
            if (ROOT / "plots/transfer.png").exists() and (ROOT / "plots/recognition_transfer.png").exists():
                assert (ROOT / "plots" / figure.path).exists(), figure.path


# --- gates and provenance


def provenance(**values):
    example = Provenance("0123abc", True, "", "no <lock>", "3.11.7", "Z80", 2, {"numpy": "2.1"}, {}, {})
    return example._replace(**values)


def test_gates_are_checked(project):
    gates = {"baselines:lda_accuracy": {"min": 0.99}, "gone:x": {"max": 1}, "split:labels": {"max_change": 0}}
    edit(project, gates=gates)
    tables = parsed(build(project, None))
    verdicts = {row: text for caption, row, head, _, text in tables.cells if head == "verdict"}
    assert verdicts == {
        "baselines:lda_accuracy": "breach: below 0.99",
        "gone:x": "breach: missing",
        "split:labels": "kept",
    }
    text = build(project, provenance(baseline={"split:labels": 35.0}))
    tables = parsed(text)
    verdicts = {row: text for caption, row, head, _, text in tables.cells if head == "verdict"}
    assert verdicts["split:labels"] == "breach: changed by 1, more than 0"
    assert [text for _, row, head, _, text in tables.cells if head == "at the commit"] == ["–", "–", "35"]
    assert "0 of 3" in text


def test_provenance_is_shown(project, page):
    text = build(project, provenance(stages={"split": 2.0, "train_vae": 118.0}))
    for text_part in (
        "0123abc",
        "with uncommitted changes",
        "no &lt;lock&gt;",
        "Z80, 2 cores",
        "numpy&nbsp;2.1",
    ):
        assert text_part in text
        assert text_part not in page
    assert "Total: 2.0 minutes." in text
    assert '<th scope="row">Git commit checked out</th>' in text
    assert [(stage.name, stage.seconds, stage.share) for stage in stage_bars({"split": 2.0, "train_vae": 118.0})] == [
        ("train_vae", "118.0", "100.0"),
        ("split", "2.0", "1.7"),
    ]
    assert format_duration(59.96) == "60.0 seconds"
    partial = {"poison": None, "split": 2.0, "adapt": None}
    assert [(stage.name, stage.seconds) for stage in stage_bars(partial)] == [
        ("split", "2.0"),
        ("poison", "–"),
        ("adapt", "–"),
    ]
    assert total_seconds(partial) == "2.0 seconds for 1 of 3 stages"
    assert "Total: 2.0 seconds for 1 of 3 stages." in build(project, provenance(stages=partial))
    clean = build(project, provenance(dirty=False))
    assert "<code>0123abc</code>, without changes" in clean
    assert "uncommitted" not in clean
    outside = build(project, provenance(commit=""))
    assert "not a Git repository" in outside
    assert "at the commit" not in outside


def test_stale_numbers_are_reported_first(project, page):
    message = "<strong>The numbers do not match the params below:</strong> no &lt;lock&gt;"
    assert f'<main>\n<p class="breach">{message}</p>\n' in build(project, provenance())
    fresh = build(project, provenance(problem="", state="482b03e7" + 56 * "c"))
    assert '<p class="breach">' not in fresh + page
    assert "<code>state 482b03e7</code>: the name of this run in MLflow" in fresh
    assert "482b03e7c" not in fresh


def test_provenance_comes_from_git_and_python(project, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(project.parent))
    bounds = {"split:labels": GateParams(max=100)}
    outside_git = collect_provenance(project, bounds)
    assert outside_git[:2] == ("", False)
    assert (outside_git.stages, outside_git.problem) == (
        {},
        "dvc.lock is missing; run `dvc repro` in the project's root",
    )

    def git(*arguments):
        return subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments],
            cwd=project,
            check=True,
            capture_output=True,
        ).stdout

    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "a")
    (project / ".dvc/tmp/seconds").mkdir(parents=True)
    (project / ".dvc/.gitignore").write_text("*")
    stages = ("split", "download", "poison", "threshold", "train@a")
    (project / "dvc.lock").write_text(YAML_LOCK + "".join(f"  {name}: {{cmd: a}}\n" for name in stages))
    git("add", "dvc.lock")
    git("commit", "-qm", "b")
    seconds = {"split": "2.5\n", "train@a": "4.5\n", "removed": "9\n"}
    for name, text in seconds.items():
        (project / ".dvc/tmp/seconds" / name).write_text(text)
    collected = collect_provenance(project, bounds)
    assert (collected.commit, collected.dirty) == (git("rev-parse", "HEAD").decode().strip(), False)
    assert collected.baseline == {f"split:{key}": value for key, value in read_split(project).items()}
    assert collected.stages == {"download": None, "poison": None, "split": 2.5, "threshold": None, "train@a": 4.5}
    (project / ".dvc/tmp/seconds/poison").write_text("")
    assert set(collect_provenance(project, bounds).stages.values()) == {None}
    assert collected.problem.startswith("dvc.yaml cannot be read")
    assert collected.python == ".".join(map(str, sys.version_info[:3]))
    assert collected.packages["numpy"] == np.__version__
    (project / "metrics/split.json").write_text("{}")
    assert collect_provenance(project, bounds).dirty


def read_split(root):
    return json.loads((root / "metrics/split.json").read_text())


# --- its parts


def test_numbers_are_rounded_by_form():
    expected = {("percent", 0.98625): "98.6 %", ("points", -0.0075): "−0.8 pp", ("three", 0.0776): "0.078"}
    expected |= {("signed", -0.0004): "0.000", ("whole", 115.0): "115", ("six", 0.00268480): "0.0026848"}
    assert {key: elements.format_value(key[1], key[0]) for key in expected} == expected
    assert elements.format_value(float("nan"), "six") == "not finite"


def test_empty_rows_and_columns_are_left_out():
    one, two = elements.metric_cell({"a:x": 0.5}, "a:x", "three"), elements.metric_cell({}, "b:x", "three")
    assert (one[0].text, two) == ("0.500", EMPTY)
    interval = elements.interval_cells({"a:x": 0.5, "a:x_low": 0.25, "a:x_high": 0.75}, "a:x", "three")
    assert [(cell.text, cell.kind) for cell in interval] == [("0.500", ""), ("(0.250 to", "low"), ("0.750)", "high")]
    rows = [Row("first", (interval, two, one)), Row("empty", (two, two, two)), Row("short", (one, two, one))]
    rows.append(Row("published", (elements.reference_cell("9"), two, MERGE_LEFT)))
    result = elements.table("c", "", ("p", "q", "r"), rows)
    assert (result.columns, result.spans) == (("p", "r"), (3, 1))
    assert [row.head for row in result.rows] == ["first", "short", "published"]
    assert [(cell.text, span) for cell, span in result.layout(result.rows[1])] == [("0.500", 1), ("", 2), ("0.500", 1)]
    assert [(cell.text, span) for cell, span in result.layout(result.rows[2])] == [("9", 4)]
    assert elements.table("c", "", ("p",), [Row("published", (elements.reference_cell("9"),))]).rows == ()


def test_a_table_in_html_and_markdown():
    score = (Cell("0.5", "a:x"), Cell("(0.2 to", "a:x_low", "low"), Cell("0.7)", "a:x_high", "high"))
    rows = (
        Row("<b>", (score, (Cell("x & y", kind="param"),))),
        Row("published", ((Cell("9", kind="original"),), EMPTY)),
    )
    result = Table("it's", "c", ("p", "q"), rows)
    assert result.to_html("results gates") == (
        '<table class="results gates" aria-label="it&#x27;s">\n'
        '<thead><tr><th scope="col">c</th><th scope="col" colspan="3">p</th><th scope="col">q</th></tr></thead>\n'
        "<tbody>\n"
        '<tr><th scope="row">&lt;b&gt;</th><td data-metric="a:x">0.5</td>'
        '<td data-metric="a:x_low" class="low">(0.2 to</td><td data-metric="a:x_high" class="high">0.7)</td>'
        '<td data-param class="param">x &amp; y</td></tr>\n'
        '<tr><th scope="row">published</th><td data-original class="original" colspan="3">9</td><td>–</td></tr>\n'
        "</tbody>\n</table>"
    )
    assert result.to_markdown().splitlines()[2:] == ["| <b> | 0.5 (0.2 to 0.7) | x & y |", "| published | 9 | – |"]
    assert "<tbody>\n</tbody>" in Table("", "", ("p",), ()).to_html()


def test_large_images_become_jpeg(tmp_path):
    png(tmp_path / "plots/a.png", "blue", 5)
    embedded = embed_image(tmp_path, Figure("a.png", "", ""))
    kind, data = embedded.uri.split(",")
    assert (kind, embedded.width) == ("data:image/png;base64", 5)
    assert base64.b64decode(data) == (tmp_path / "plots/a.png").read_bytes()

    ramp = np.linspace(0, 255, 2000)[None, :, None] + np.zeros((300, 1, 4))
    ramp[..., :3] += np.random.default_rng(1).integers(-6, 7, (300, 2000, 3))
    ramp[..., 3], ramp[:, :400, 3] = 255, 0  # transparent pixels appear white
    Image.fromarray(ramp.clip(0, 255).astype(np.uint8)).save(tmp_path / "plots/b.png")
    assert (tmp_path / "plots/b.png").stat().st_size > MAX_PNG_BYTES
    embedded = embed_image(tmp_path, Figure("b.png", "", ""))
    kind, data = embedded.uri.split(",")
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))), float)
    assert (kind, image.shape) == ("data:image/jpeg;base64", (240, MAX_WIDTH, 3))
    assert (embedded.width, embedded.height) == (MAX_WIDTH, 240)
    assert image[:, :300].mean() > 254
    np.testing.assert_allclose(image[:, 400:].mean((0, 2)), np.linspace(0, 255, MAX_WIDTH)[400:], atol=4)


def test_curves():
    history = History(("loss", "accuracy", "validation_loss"), {1: (4.0, 0.1, 2.0), 3: (1.0, 0.9, 0.0)})
    plot = curves.plot_history("net", history)
    assert plot.lines == {"training": "0.0,0.0 200.0,67.5", "validation": "0.0,45.0 200.0,90.0"}
    assert (plot.first, plot.last, plot.top, plot.diverged) == (1, 3, "4", None)
    assert curves.plot_history("net", History(("accuracy",), {1: (0.5,)})) is None
    plots = curves.plots_by_folder({"b/y": history, "a/x": history, "b/x": history})
    titles = {name: [each.title for each in curves_] for name, curves_ in plots.items()}
    assert titles == {"a": ["x"], "b": ["x", "y"]}


def test_a_loss_that_is_not_finite_has_no_point(project):
    nan, inf = float("nan"), float("inf")
    plot = curves.plot_history("net", History(("loss",), {1: (4.0,), 2: (1.0,), 3: (nan,), 4: (inf,)}))
    assert plot.lines == {"training": "0.0,0.0 66.7,67.5"}
    assert (plot.top, plot.last, plot.diverged) == ("4", 4, 3)
    plot = curves.plot_history("net", History(("loss", "accuracy"), {1: (nan, 1.0), 2: (nan, 1.0)}))
    assert (plot.lines, plot.top, plot.diverged) == ({"training": ""}, "–", 1)
    assert curves.plot_history("net", History(("loss", "accuracy"), {1: (1.0, nan)})).diverged is None
    (project / "metrics/history/vae/all.csv").write_text("epoch,loss\n1,2\n2,nan\n")
    text = build(project, None)
    assert text.count("not finite from epoch") == 1
    assert ">not finite from epoch 2</text>" in text


def test_captions_state_which_keys_were_trained_with(whole):
    captions = {figure.path: figure.caption for figure in backdoor_section(read_run_data(whole)).figures}
    for name in PARAMS["backdoors"]:
        caption = captions[f"poison/{name}.png"]
        assert ("poisons for training" in caption) == (name in PARAMS["training_sets"])
        assert ("no network was trained with" in caption) == (name not in PARAMS["training_sets"])


def test_tall_images_are_grouped():
    sides = [(8, 4), (4, 8), (6, 6)]
    images = [EmbeddedImage(Figure("", "", ""), "", *side) for side in sides]
    assert by_shape(images) == [[images[0], images[2]], [images[1]]]
    assert by_shape(images[:1]) == [images[:1]]


# --- stage and command


def test_the_stage_writes_the_page_without_tensorflow(project, page):
    start = f"runpy.run_path({str(ROOT / 'stages/report.py')!r}, run_name='__main__')"
    command = [sys.executable, "-c", f"import runpy, sys; {start}; sys.exit('tensorflow' in sys.modules)"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    result = subprocess.run(command, cwd=project, capture_output=True, text=True, env=environment)
    assert (result.returncode, result.stderr) == (0, "")
    written = project / "artifacts/report.html"
    assert written.read_text(encoding="utf-8") == page
    written.unlink()
    (project / "plots/transfer.png").unlink()
    result = subprocess.run(command, cwd=project, capture_output=True, text=True, env=environment)
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1)
    assert result.stderr.startswith("error: plots/transfer.png is missing; run `dvc repro`")
    assert not written.exists()


def command(*arguments):
    app = typer.Typer()
    app.command()(report)
    return CliRunner().invoke(app, list(arguments))


def test_the_command_writes_the_page_with_provenance(project, monkeypatch, page):
    monkeypatch.chdir(project)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(project.parent))
    for _ in range(2):  # an existing report may be overwritten
        assert command("--out", "x.html").stdout.startswith("x.html: ")
    text = (project / "x.html").read_text(encoding="utf-8")
    assert text != page
    assert f"numpy&nbsp;{np.__version__}" in text
    assert "x.html do not match its params: dvc.lock is missing" in command("--out", "x.html").stderr
    (project / "y.html").write_text("mine")
    result = command("--out", "y.html")
    assert isinstance(result.exception, UserError)
    assert "y.html exists and is not a run report" in str(result.exception)
    assert (project / "y.html").read_text() == "mine"
    assert command("--out", "y.html", "--force").exit_code == 0
    assert isinstance(command("--out", ".").exception, UserError)
    result = command("--out", "y.html/z.html")  # its folder is a file
    assert isinstance(result.exception, UserError)
    assert re.fullmatch(r"--out y\.html/z\.html cannot be written \(.+\); pass another file", str(result.exception))
