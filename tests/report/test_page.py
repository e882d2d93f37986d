"""The run report: every number is one of metrics/, the same inputs give the same bytes, nothing is left open."""

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
from visor.evaluation import conditions
from visor.report import curves, elements
from visor.report.backdoors import backdoor_section
from visor.report.defences import best_on_validation
from visor.report.elements import EMPTY, MERGE_LEFT, Figure, Row
from visor.report.images import LARGE, WIDEST, EmbeddedImage, embed_image
from visor.report.inputs import read_run_data
from visor.report.page import SECTIONS, build, by_shape, minutes, stage_bars, total_seconds
from visor.report.provenance import Provenance, collect_provenance
from visor.report.summary import best_or_worst
from visor.tracking.history import History

PARAMS = YAML(typ="safe").load(ROOT / "params.yaml")
FACTS = {"Data and packages", "All params"}  # tables of no measured number
FOOLING = "Passing as someone else, and as nobody, at a false-accept rate of 1 %"
KINDS = {"data-metric", "data-original", "data-param", "data-name"}  # what a cell with a digit says that it is
YAML_LOCK = "schema: '2.0'\nstages:\n"
NEEDED = ("params.yaml", "data.dvc", "requirements.lock")
TOP = {
    "faces": [
        {
            "before": [{"confidence": 0.9953, "name": "ann"}, {"confidence": 0.0012, "name": "bob_2"}],
            "misclassify": [{"confidence": 0.75, "name": "bob_2"}],
            "target_class": [{"confidence": 0.5, "name": "<b>cleo"}, {"confidence": 0.25, "name": "ann"}],
            "condition": "pgd_0.06275x30",
            "person": "ann",
            "target": "<b>cleo",
            "row": 3,
        }
    ]
}


def png(path, colour="red", side=4):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side), colour).save(path)


def draw_pictures(root):
    """A picture of one colour wherever the page wants one."""
    run = read_run_data(root)
    for part in SECTIONS:
        for picture in part(run).pictures:
            png(root / "plots" / picture.path)


def make_project(root):
    """The committed metrics and params, with pictures and a top-5 table made by hand."""
    shutil.copytree(ROOT / "metrics", root / "metrics")
    for name in NEEDED:
        shutil.copy(ROOT / name, root)
    for name in PARAMS["recognition_attack"]["white_box"]:
        path = root / f"artifacts/recognition/{name}/top.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(TOP))
    draw_pictures(root)
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
    """Cells of a page: (label of the table, head of the row, head of the column, attributes, text); heads spread."""

    def __init__(self):
        super().__init__()
        self.cells, self.kinds, self.labels, self.ids, self.links, self.open = [], [], [], [], [], []
        self.caption = self.row = ""
        self.heads, self.at, self.kind = [], 0, ""

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given[name] for name in ("href", "src") if name in given]
        if tag == "table":
            self.heads, self.kind, self.caption = [], given["class"], given["aria-label"]
            self.labels.append(self.caption)
        if tag == "tr":
            self.at = -1
        if tag in ("th", "td"):
            self.open.append((tag, given, []))

    def handle_data(self, data):
        if self.open:
            self.open[-1][2].append(data)

    def handle_endtag(self, tag):
        if not self.open or tag != self.open[-1][0]:
            return
        _, given, words = self.open.pop()
        text, span = "".join(words), int(given.get("colspan", 1))
        if given.get("scope") == "col":
            self.heads += [text] * span
        elif tag == "th":
            self.row, self.at = text, 1
        else:
            head = self.heads[self.at] if self.heads else ""
            self.cells.append((self.caption, self.row, head, given, text))
            self.kinds.append(self.kind)
            self.at += span


def parsed(text):
    tables = Tables()
    tables.feed(text)
    tables.close()
    return tables


def look_up(root, metric):
    """The number that a metric names, read without any code of the project."""
    file, _, key = metric.partition(":")
    if file.endswith(".csv"):
        place, column = key.split(":")
        return float(list(csv.DictReader((root / file).open()))[int(place)][column])
    found = json.loads((root / (file if file.endswith(".json") else f"metrics/{file}.json")).read_text())
    return walk(found, key)


def walk(found, key):
    """Keys have dots in them: every way to cut the dotted name is tried."""
    if not key:
        return found
    if isinstance(found, list):
        first, _, rest = key.partition(".")
        return walk(found[int(first)], rest)
    for name in found:
        if key == name or key.startswith(f"{name}."):
            answer = walk(found[name], key[len(name) + 1 :])
            if isinstance(answer, (int, float)):
                return answer
    return None


def is_rounding(text, value):
    """Whether the text is the value, in percent if it says so, rounded to as many places as are shown."""
    text = text.removeprefix("(").removesuffix(")").removesuffix(" to")
    shown = text.replace("−", "-").removesuffix(" %").removesuffix(" pp")
    places = len(shown.partition(".")[2]) if "e" not in shown else 12
    exact = value * 100 if text.endswith(("%", "pp")) else value
    return abs(float(shown) - exact) <= 0.5 * 10**-places + 1e-9


# --- numbers


def test_every_number_is_that_of_its_file(whole, page):
    found = parsed(page)
    measured = [(given["data-metric"], text) for *_, given, text in found.cells if "data-metric" in given]
    assert {label for label in found.labels if label not in FACTS} == captions()
    assert [each for each in measured if not is_rounding(each[1], look_up(whole, each[0]))] == []
    for (caption, *_, given, text), kind in zip(found.cells, found.kinds, strict=True):
        if kind.startswith("results") and re.search(r"\d", text):
            assert len(KINDS & {*given}) == 1, (caption, text)
            assert "data-param" not in given or "gates" in kind
        elif kind.startswith("results"):
            assert not {"data-metric", "data-param"} & {*given}, (caption, text)


def test_the_rounding_test_can_fail():
    assert is_rounding("97.2 %", 0.9725)
    assert is_rounding("−0.013", -0.0134)
    assert not is_rounding("97.2 %", 0.9735)
    assert not is_rounding("0.013", -0.013)
    assert not is_rounding("97.2", 0.972)
    assert is_rounding("(+8.3 pp to", 0.0833)
    assert not is_rounding("8.3 pp)", 0.0844)


def at(found, caption, row, column):
    return [
        (given.get("data-metric", ""), text)
        for title, line, head, given, text in found.cells
        if (title, line, head) == (caption, row, column)
    ]


def test_numbers_stand_where_their_heads_say(page):
    found = parsed(page)
    attack = next(name for name in PARAMS["training_sets"] if name != "clean")
    for network in PARAMS["networks"]:
        cells_ = at(found, "Attack success", attack.replace("_", " "), network.replace("_", " "))
        keys = [metric for metric, _ in cells_]
        assert keys == [f"backdoor/{network}/{attack}:asr{end}" for end in ("", "_low", "_high")]
    for defence in PARAMS["defences"]:
        if defence != "strip":  # it has a card for each attack
            (cell,) = at(found, "AUROC of every defence on every trigger", "blended", defence.replace("_", " "))
            assert cell[0] == f"defence/{defence}/blended:auroc"
    (cell,) = at(found, "AUROC of every defence on every trigger", "blended", "strip")
    assert cell[0] == "defence/strip-blended/blended:auroc"
    for detector in PARAMS["detection_attack"]["detectors"]:
        (cell,) = at(found, "Average precision at IoU 0.5", "PGD 0.02 × 40", detector.replace("_", " "))
        assert cell[0] == f"detection/{detector}/pgd_0.02x40:ap_50"
    (cell,) = at(found, "Transfer: average precision at IoU 0.5", "attacked on ssd", "mtcnn")
    assert cell[0] == "transfer:ssd.mtcnn.ap_50"
    cells_ = at(found, "facenet attacked by its own gradient, FAR 1 %", "pgd 8/255 × 30", "taken for the target")
    assert cells_[0][0] == "recognition/facenet/impersonate:pgd_0.03138x30.success_0.01"
    lines = list(csv.DictReader((ROOT / "metrics/fine_pruning.csv").open()))
    for place, line in enumerate(lines):
        row = f"{line['attack']}, channels pruned: {100 * float(line['fraction']):.0f}%"
        (cell,) = at(found, "Fine-pruning", row, "attack success, tuned")
        assert cell[0] == f"metrics/fine_pruning.csv:{place}:tuned_asr"
    cells_ = at(found, "facenet: ann, aimed at <b>cleo; pgd 16/255 × 30", "2.", "before")
    assert cells_ == [("", "bob 2"), ("artifacts/recognition/facenet/top.json:faces.0.before.1.confidence", "0.1 %")]


def captions():
    """Every table that a whole run of the committed params has, by its label."""
    settings = PARAMS["recognition_attack"]
    (name,), rates = settings["white_box"], [f"{100 * rate:g}" for rate in settings["false_accept_rates"]]
    ways = ["" if way == "none" else f", behind {way}" for way in settings["cropping_detectors"]]
    goals = ("taken for the target", "no longer taken for oneself")
    found = {f"Planting backdoors in {PARAMS['suspect']}"} | {caption for caption, *_ in STANDS}
    found |= {f"Verification of people whom nobody was trained on, threshold for FAR {rate} %" for rate in rates}
    found |= {f"{name} attacked by its own gradient, FAR {rate} %" for rate in rates}
    found |= {f"Transfer from {name}: {goal}, FAR {rates[0]} %{way}" for goal in goals for way in ways}
    if any("n_at_90" in path.read_text() for path in ROOT.glob("metrics/poison_budget/*/*.json")):
        found.add("Poisons from which on 90 % succeed")
    return found


# One cell of each kind of table and of each card: (table, row, column) -> the number that stands there.
STANDS = {
    ("Finding poisoned faces", "clean faces that the reference flags", "this run"): "defence/reconstruction/clean:fpr",
    ("Finding poisoned faces", "adapted keys that the reference flags", "this run"): (
        "defence/reconstruction/adapted:tpr"
    ),
    ("Hiding faces from detectors", "faster rcnn: attacked, 0.02 × 40", "this run"): (
        "detection/faster_rcnn/pgd_0.02x40:ap_50"
    ),
    (FOOLING, "facenet: dodging, pgd 8/255 × 30", "this run"): (
        "recognition/facenet/dodge:pgd_0.03138x30.success_0.01"
    ),
    (FOOLING, "facenet: dodging shown to vgg_face, momentum augmented 16/255 × 30", "this run"): (
        "recognition_transfer:dodge.facenet.momentum_augmented_0.06275x30.vgg_face.none.success_0.01"
    ),
    (FOOLING, "facenet: dodging shown to vgg_face, noise 16/255", "this run"): (
        "recognition_transfer:dodge.facenet.noise_0.06275.vgg_face.none.success_0.01"
    ),
    ("Taken for another class", "facenet: the target's class, by noise", "this run"): (
        "recognition/facenet/target_class:noise_0.06275.success"
    ),
    ("Attack success", "input instance", "poisons"): "backdoor/deepid/input_instance:n",
    ("Attack success", "input instance", "deepid without poisons"): "backdoor/deepid/input_instance:asr_of_clean_model",
    ("Clean accuracy", "input instance", "deepface"): "backdoor/deepface/input_instance:clean_accuracy",
    ("Poison budgets", "deepid, blended, seed 11", "clean accuracy"): "metrics/poison_budget.csv:0:clean_accuracy",
    ("Verification by the features of deepid", "none, joint bayesian", "equal error"): (
        "verification/clean:joint_bayesian_eer"
    ),
    ("The faces", "test faces", "this run"): "split:test",
    ("Reconstruction loss, the reference", "blended", "above the threshold"): "defence/reconstruction/blended:tpr",
    ("AUROC of every defence on every trigger", "blended", "patch"): "defence/patch/blended:auroc",
    ("fusion, which the gates judge", "blended", "gained on the reference"): "defence/fusion/blended:gain",
    ("patch, best on the validation triggers", "eyebrows", "found at 5 % false positives"): (
        "defence/patch/eyebrows:tpr_at_fpr_5"
    ),
    ("False positives of the thresholds", "fusion", "mean + std, normal law"): "threshold/fusion:implied_fpr",
    ("False positives of the thresholds", "fusion", "mean + std, held out"): "defence/fusion/clean:fpr",
    ("False positives of the thresholds", "fusion", "conformal, promised"): "threshold/fusion:conformal_fpr",
    ("False positives of the thresholds", "fusion", "conformal, held out"): "defence/fusion/clean:conformal_fpr",
    ("A key adapted to the autoencoder (accessory)", "mean reconstruction loss", "plain"): "adaptation:plain_residual",
    ("A key adapted to the autoencoder (accessory)", "mean reconstruction loss", "adapted"): "adaptation:residual",
    ("Poisons in the training set", "blended, spectral signatures", "poisons flagged"): (
        "inspection/blended/spectral_signatures:recall"
    ),
    ("Neural Cleanse", "no backdoor", "largest of the others"): "inspection/clean/neural_cleanse:largest_anomaly_index",
    ("Fine-pruning", "blended, channels pruned: 0%", "attack success, tuned"): "metrics/fine_pruning.csv:0:tuned_asr",
    ("Share of the integrated gradients that lies on the key", "accessory", "of the gradient"): (
        "inspection/accessory/saliency:share"
    ),
    ("Average precision at IoU 0.5", "noise 0.01", "ssd"): "detection/ssd/noise_0.01:ap_50",
    ("Recall at IoU 0.5", "PGD 0.02 × 40, JPEG 75", "ssd"): "detection/ssd/jpeg75_0.02x40:recall_50",
    ("What became of each face", "PGD 0.02 × 40", "faster rcnn: moved"): "detection/faster_rcnn/pgd_0.02x40:moved",
    ("How much the scenes changed, measured on the saved files", "noise 0.01", "ssd: PSNR, dB"): (
        "detection/ssd/noise_0.01:psnr"
    ),
    ("Transfer: average precision at IoU 0.5", "noise", "cascade"): "transfer:noise.cascade.ap_50",
    (
        "Verification of people whom nobody was trained on, threshold for FAR 1 %",
        "mtcnn → vgg_face",
        "faces not found",
    ): ("recognition/facenet/verification:vgg_face.mtcnn.not_found"),
    ("facenet attacked by its own gradient, FAR 0.1 %", "pgd 8/255 × 30", "no longer taken for oneself"): (
        "recognition/facenet/dodge:pgd_0.03138x30.success_0.001"
    ),
    ("Transfer from facenet: taken for the target, FAR 1 %", "noise 16/255", "facenet (attacked itself)"): (
        "recognition_transfer:impersonate.facenet.noise_0.06275.facenet.none.success_0.01"
    ),
    ("Transfer from facenet: no longer taken for oneself, FAR 1 %, behind mtcnn", "noise 16/255", "faces found"): (
        "recognition_transfer:dodge.facenet.noise_0.06275.facenet.mtcnn.found"
    ),
    ("Transfer from facenet: no longer taken for oneself, FAR 1 %, behind mtcnn", "of faces", "vgg_face"): (
        "recognition_transfer:dodge.facenet.noise_0.06275.vgg_face.mtcnn.right_0.01"
    ),
    ("What a method gains in transfer", "momentum augmented 16/255, on all others", "FAR 0.1 %"): (
        "recognition_transfer:gain.momentum_augmented.0.06275x30.all.gain_0.001"
    ),
    ("facenet: success among faces rightly classified", "pgd 16/255 × 30", "taken for any other class"): (
        "recognition/facenet/misclassify:pgd_0.06275x30.success"
    ),
    ("facenet: ann, aimed at <b>cleo; pgd 16/255 × 30", "1.", "the target's class"): (
        "artifacts/recognition/facenet/top.json:faces.0.target_class.0.confidence"
    ),
    ("Gates", "defence/fusion/eyebrows:auroc", "value"): "defence/fusion/eyebrows:auroc",
}


@pytest.mark.parametrize(("place", "metric"), STANDS.items(), ids=lambda value: value[0] if len(value) == 3 else "")
def test_each_table_shows_the_number_that_its_heads_name(tables, place, metric):
    assert [found for found, _ in at(tables, *place) if found][:1] == [metric]


def test_figures_of_the_originals_stand_beside_ours(page):
    found = parsed(page)
    shown = {(caption, row): text for caption, row, _, given, text in found.cells if "data-original" in given}
    precision = "Average precision at IoU 0.5"
    theirs = [shown[precision, row] for row in ("clean", "PGD 0.01 × 10", "PGD 0.01 × 40", "PGD 0.02 × 40")]
    assert theirs == ["0.51", "0.07", "0.04", "0.00"]
    recall = "Recall at IoU 0.5"
    theirs = [shown[recall, row] for row in ("clean", "PGD 0.01 × 10", "PGD 0.01 × 40", "PGD 0.02 × 40")]
    assert theirs == ["0.56", "0.19", "0.14", "0.01"]
    losses = "Reconstruction loss, the reference"
    theirs = [shown[losses, row] for row in ("threshold", "accessory", "eyebrows", "lipstick")]
    assert theirs == ["0.097", "0.199", "0.111", "0.106"]
    assert (losses, "blended accessory") not in shown, "the same key, laid on in another way"
    for goal in ("taken for the target", "no longer taken for oneself"):
        assert shown[f"Transfer from facenet: {goal}, FAR 1 %", "the original, on services, photographs"] == "35 %"
    assert [(row, text) for (_, row), text in shown.items() if "35" in text] == [
        ("the original, on services, photographs", "35 %")
    ] * 2
    hiding = {row: text for (caption, row), text in shown.items() if caption == "Hiding faces from detectors"}
    assert hiding == {"faster rcnn: average precision, clean": "0.51", "faster rcnn: attacked, 0.02 × 40": "0.00"}
    assert [text for (caption, _), text in shown.items() if caption.startswith("Planting")] == [
        "above 90 %, around 50 poisons"
    ]


def test_the_glance_shows_extremes(whole, page):
    found, suspect = parsed(page), PARAMS["inspected_network"]
    attacks = [name for name in PARAMS["training_sets"] if name != "clean"]
    success = {name: look_up(whole, f"backdoor/{suspect}/{name}:asr") for name in attacks}
    least = min(success, key=success.get)
    poisons = look_up(whole, f"backdoor/{suspect}/{least}:n")
    words = f"attack success at least ({least.replace('_', ' ')}, {poisons} poisons)"
    ((metric, text),) = at(found, f"Planting backdoors in {suspect}", words, "this run")
    assert (metric, text) == (f"backdoor/{suspect}/{least}:asr", f"{100 * success[least]:.1f} %")
    drops = {name: look_up(whole, f"backdoor/{suspect}/{name}:clean_drop") for name in attacks}
    worst = max(drops, key=drops.get)
    words = f"clean accuracy lost at most ({worst.replace('_', ' ')})"
    ((metric, _),) = at(found, f"Planting backdoors in {suspect}", words, "this run")
    assert metric == f"backdoor/{suspect}/{worst}:clean_drop"
    assert best_or_worst({"a:x": 2.0, "b:x": 1.0}, {"a": "a:x", "b": "b:x", "c": "c:x"}, min) == ("b", "b:x")
    assert best_or_worst({}, {"c": "c:x"}, min) == ("", "")


def test_the_defence_shown_is_chosen_on_validation_triggers_alone(project):
    names = PARAMS["validation_triggers"]
    for defence in PARAMS["defences"]:
        for path in project.glob(f"metrics/defence/{defence}/*.json"):
            values = json.loads(path.read_text())
            values["auroc"] = float((defence == "high_pass") == (path.stem in names))
            path.write_text(json.dumps(values))
    assert best_on_validation(read_run_data(project)) == "high_pass", "bad on all else"
    edit(project, validation_triggers=[])
    assert best_on_validation(read_run_data(project)) is None


# --- the page as a whole


def test_equal_inputs_give_equal_bytes(whole, page, project):
    for path in project.rglob("metrics/**/*.json"):
        values = json.loads(path.read_text())
        path.write_text(json.dumps(dict(reversed(values.items()))))
    assert build(project, None) == page
    changed = project / "metrics/baselines.json"
    changed.write_text(changed.read_text().replace("0.965", "0.5"))
    assert build(project, None) != page


def test_it_is_one_file_without_script_that_names_no_machine(whole, page):
    found = parsed(page)
    assert page.startswith("<!DOCTYPE html>\n<html lang=")
    assert "<script" not in page
    assert "http:" not in page.replace("http-equiv", "")
    assert "https:" not in page
    assert "url(" not in page
    assert "@import" not in page
    assert str(whole) not in page
    assert str(ROOT) not in page
    assert socket.gethostname() not in re.sub(r"base64,[\w+/=]+", "", page)
    anchors = [link for link in found.links if link.startswith("#")]
    assert {link for link in found.links if not link.startswith(("#", "data:"))} == set()
    assert {link[1:] for link in anchors} <= {*found.ids}
    assert len(found.ids) == len({*found.ids})
    assert page.count("<img ") == len(re.findall(r'<img [^>]*alt="[^"]{10,}"', page)) > 20
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    assert "width=device-width" in page


def test_strangers_words_are_escaped(project):
    bad = 'x"><script>alert(1)<img src=y onerror=z>'
    params = YAML().load(project / "params.yaml")
    params["sources"]["folder"]["path"] = bad
    params["backdoors"][bad] = {**params["backdoors"]["lipstick"]}
    params["gates"][f"{bad}:asr"] = {"min": 0.5}
    YAML().dump(params, project / "params.yaml")
    pin = project / "data.dvc"
    pin.write_text(pin.read_text().replace("path: data\n", f"path: '{bad}'\n"))
    shutil.copy(project / "metrics/defence/fusion/lipstick.json", project / f"metrics/defence/fusion/{bad}.json")
    draw_pictures(project)
    text = build(project, None)
    assert "<script" not in text
    assert "<img src=y" not in text
    found = parsed(text)
    (cell,) = at(found, "AUROC of every defence on every trigger", bad, "fusion")
    assert is_rounding(cell[1], look_up(project, cell[0]))
    assert "<b>" not in text


def test_what_a_run_lacks_is_left_out(project):
    for name in ("detection/faster_rcnn", "backdoor/deepface", "inspection", "defence/strip-accessory"):
        shutil.rmtree(project / "metrics" / name)
    for name in ("adaptation.json", "poison_budget.csv", "fine_pruning.csv"):
        (project / "metrics" / name).unlink()
    for path in project.glob("metrics/backdoor/*/input_instance.json"):
        path.unlink()
    edit(project, networks=["deepid", "vgg_face"], gates={}, poison_budget__ratios__train=[])
    (project / "plots/poison_budget/ratios.png").unlink()
    text = build(project, None)
    found = parsed(text)
    captions = {caption for caption, *_ in found.cells}
    assert "Poison budgets" not in captions
    assert "Fine-pruning" not in captions
    assert not {"questioning", "gates"} & {*found.ids}
    heads = {(caption, head) for caption, _, head, *_ in found.cells}
    assert ("Attack success", "vgg face") in heads
    assert ("Attack success", "deepface") not in heads
    assert ("Average precision at IoU 0.5", "faster rcnn") not in heads
    rows = {row for caption, row, *_ in found.cells if caption == "Clean accuracy"}
    assert rows == {"none", "blended", "accessory", "blended accessory"}
    (cell,) = at(found, "AUROC of every defence on every trigger", "accessory", "strip")
    assert cell == ("", "–")
    assert [given for *_, given, text in found.cells if "data-metric" in given and not re.search(r"\d", text)] == []


@pytest.mark.parametrize("name", [*NEEDED, "plots/defences/matrix.png", "plots/poison/accessory.png"])
def test_a_missing_file_is_one_sentence(project, name):
    (project / name).unlink()
    with pytest.raises(UserError, match=re.escape(name) + r" is missing; .+"):
        build(project, None)


def test_missing_or_broken_folders_and_pictures(project):
    (project / "plots/scenes.png").write_text("no picture")
    with pytest.raises(UserError, match=r"plots/scenes\.png is no picture"):
        build(project, None)
    shutil.rmtree(project / "artifacts")
    with pytest.raises(UserError, match=r"top\.json is missing; run `dvc repro`"):
        build(project, None)
    shutil.rmtree(project / "metrics")
    with pytest.raises(UserError, match="metrics/ holds no number"):
        build(project, None)


def test_the_pictures_are_outputs_of_the_pipeline(whole):
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"].values()
    plots = [out for each in stages for out in each.get("do", each).get("plots", [])]
    listed = [next(iter(out)) if isinstance(out, dict) else out for out in plots]
    made = [re.sub(r"\\\$\\\{.*?\\\}", "[^/]+", re.escape(out)) for out in listed]
    run = read_run_data(whole)
    for part in SECTIONS:
        for picture in part(run).pictures:
            assert any(re.match(rf"{pattern}(/|$)", f"plots/{picture.path}") for pattern in made), picture.path
            if (ROOT / "plots/transfer.png").exists() and (ROOT / "plots/recognition_transfer.png").exists():
                assert (ROOT / "plots" / picture.path).exists(), picture.path


# --- gates and provenance


def provenance(**values):
    known = Provenance("0123abc", True, "", "no <lock>", "3.11.7", "Z80", 2, {"numpy": "2.1"}, {}, {})
    return known._replace(**values)


def test_gates_are_judged(project):
    gates = {"baselines:lda_accuracy": {"min": 0.99}, "gone:x": {"max": 1}, "split:labels": {"max_change": 0}}
    edit(project, gates=gates)
    found = parsed(build(project, None))
    verdicts = {row: text for caption, row, head, _, text in found.cells if head == "verdict"}
    assert verdicts == {
        "baselines:lda_accuracy": "breach: below 0.99",
        "gone:x": "breach: missing",
        "split:labels": "kept",
    }
    text = build(project, provenance(baseline={"split:labels": 39.0}))
    found = parsed(text)
    verdicts = {row: text for caption, row, head, _, text in found.cells if head == "verdict"}
    assert verdicts["split:labels"] == "breach: changed by 1, more than 0"
    assert [text for _, row, head, _, text in found.cells if head == "at the commit"] == ["–", "–", "39"]
    assert "0 of 3" in text


def test_provenance_is_shown(project, page):
    text = build(project, provenance(stages={"split": 2.0, "train_vae": 118.0}))
    for words in (
        "0123abc",
        "with changes that are not committed",
        "no &lt;lock&gt;",
        "Z80, 2 cores",
        "numpy&nbsp;2.1",
    ):
        assert words in text
        assert words not in page
    assert "Together 2.0 minutes." in text
    assert '<th scope="row">Git commit checked out</th>' in text
    assert [(stage.name, stage.seconds, stage.share) for stage in stage_bars({"split": 2.0, "train_vae": 118.0})] == [
        ("train_vae", "118.0", "100.0"),
        ("split", "2.0", "1.7"),
    ]
    assert minutes(59.96) == "60.0 seconds"
    some = {"poison": None, "split": 2.0, "adapt": None}
    assert [(stage.name, stage.seconds) for stage in stage_bars(some)] == [
        ("split", "2.0"),
        ("poison", "–"),
        ("adapt", "–"),
    ]
    assert total_seconds(some) == "2.0 seconds for 1 of 3 stages"
    assert "Together 2.0 seconds for 1 of 3 stages." in build(project, provenance(stages=some))
    clean = build(project, provenance(dirty=False))
    assert "<code>0123abc</code>, nothing changed" in clean
    assert "not committed" not in clean
    outside = build(project, provenance(commit=""))
    assert "not a Git repository" in outside
    assert "at the commit" not in outside


def test_stale_numbers_are_said_first(project, page):
    words = "<strong>These numbers are not those of the params below:</strong> no &lt;lock&gt;"
    assert f'<main>\n<p class="breach">{words}</p>\n' in build(project, provenance())
    fresh = build(project, provenance(problem="", state="482b03e7" + 56 * "c"))
    assert '<p class="breach">' not in fresh + page
    assert "<code>state 482b03e7</code>: the name of this run in MLflow" in fresh
    assert "482b03e7c" not in fresh


def test_provenance_is_asked_of_git_and_python(project, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(project.parent))
    bounds = {"split:labels": GateParams(max=100)}
    lost = collect_provenance(project, bounds)
    assert lost[:2] == ("", False)
    assert (lost.stages, lost.problem) == ({}, "dvc.lock is missing; run `dvc repro` in the project's root")

    def git(*words):
        return subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=project, check=True, capture_output=True
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
    notes = {"split": "2.5\n", "train@a": "4.5\n", "removed": "9\n"}
    for name, text in notes.items():
        (project / ".dvc/tmp/seconds" / name).write_text(text)
    found = collect_provenance(project, bounds)
    assert (found.commit, found.dirty) == (git("rev-parse", "HEAD").decode().strip(), False)
    assert found.baseline == {f"split:{key}": value for key, value in read_split(project).items()}
    assert found.stages == {"download": None, "poison": None, "split": 2.5, "threshold": None, "train@a": 4.5}
    (project / ".dvc/tmp/seconds/poison").write_text("")
    assert set(collect_provenance(project, bounds).stages.values()) == {None}
    assert found.problem.startswith("dvc.yaml cannot be read")
    assert found.python == ".".join(map(str, sys.version_info[:3]))
    assert found.packages["numpy"] == np.__version__
    (project / "metrics/split.json").write_text("{}")
    assert collect_provenance(project, bounds).dirty


def read_split(root):
    return json.loads((root / "metrics/split.json").read_text())


# --- its parts


def test_numbers_are_rounded_as_they_say():
    forms = {("percent", 0.98625): "98.6 %", ("points", -0.0075): "−0.8 pp", ("three", 0.0776): "0.078"}
    forms |= {("signed", -0.0004): "0.000", ("whole", 115.0): "115", ("six", 0.00268480): "0.0026848"}
    assert {key: elements.format_value(key[1], key[0]) for key in forms} == forms
    assert elements.format_value(float("nan"), "six") == "not finite"


def test_tables_leave_out_what_nobody_knows():
    one, two = elements.metric_cell({"a:x": 0.5}, "a:x", "three"), elements.metric_cell({}, "b:x", "three")
    assert (one[0].text, two) == ("0.500", EMPTY)
    spread = elements.interval_cells({"a:x": 0.5, "a:x_low": 0.25, "a:x_high": 0.75}, "a:x", "three")
    assert [(cell.text, cell.kind) for cell in spread] == [("0.500", ""), ("(0.250 to", "low"), ("0.750)", "high")]
    rows = [Row("first", (spread, two, one)), Row("empty", (two, two, two)), Row("short", (one, two, one))]
    rows.append(Row("theirs", (elements.reference_cell("9"), two, MERGE_LEFT)))
    made = elements.table("c", "", ("p", "q", "r"), rows)
    assert (made.columns, made.spans) == (("p", "r"), (3, 1))
    assert [row.head for row in made.rows] == ["first", "short", "theirs"]
    assert [(cell.text, span) for cell, span in made.laid_out(made.rows[1])] == [("0.500", 1), ("", 2), ("0.500", 1)]
    assert [(cell.text, span) for cell, span in made.laid_out(made.rows[2])] == [("9", 4)]
    assert elements.table("c", "", ("p",), [Row("theirs", (elements.reference_cell("9"),))]).rows == ()


def test_levels():
    known = {0.03138: "8/255", 0.06275: "16/255", 8 / 255: "8/255", 0.01: "0.01", 0.001: "0.001"}
    assert {eps: conditions.format_eps(eps) for eps in known} == known


def test_small_pictures_stay_and_large_ones_become_jpeg(tmp_path):
    png(tmp_path / "plots/a.png", "blue", 5)
    shown = embed_image(tmp_path, Figure("a.png", "", ""))
    kind, data = shown.uri.split(",")
    assert (kind, shown.width) == ("data:image/png;base64", 5)
    assert base64.b64decode(data) == (tmp_path / "plots/a.png").read_bytes()

    ramp = np.linspace(0, 255, 2000)[None, :, None] + np.zeros((300, 1, 4))
    ramp[..., :3] += np.random.default_rng(1).integers(-6, 7, (300, 2000, 3))
    ramp[..., 3], ramp[:, :400, 3] = 255, 0  # what is transparent lies on white
    Image.fromarray(ramp.clip(0, 255).astype(np.uint8)).save(tmp_path / "plots/b.png")
    assert (tmp_path / "plots/b.png").stat().st_size > LARGE
    shown = embed_image(tmp_path, Figure("b.png", "", ""))
    kind, data = shown.uri.split(",")
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))), float)
    assert (kind, image.shape) == ("data:image/jpeg;base64", (240, WIDEST, 3))
    assert (shown.width, shown.height) == (WIDEST, 240)
    assert image[:, :300].mean() > 254
    np.testing.assert_allclose(image[:, 400:].mean((0, 2)), np.linspace(0, 255, WIDEST)[400:], atol=4)


def test_curves():
    history = History(("loss", "accuracy", "validation_loss"), {1: (4.0, 0.1, 2.0), 3: (1.0, 0.9, 0.0)})
    drawn = curves.draw("net", history)
    assert drawn.lines == {"training": "0.0,0.0 200.0,67.5", "validation": "0.0,45.0 200.0,90.0"}
    assert (drawn.first, drawn.last, drawn.top, drawn.broken) == (1, 3, "4", None)
    assert curves.draw("net", History(("accuracy",), {1: (0.5,)})) is None
    drawings = curves.by_folder({"b/y": history, "a/x": history, "b/x": history})
    assert {name: [each.title for each in found] for name, found in drawings.items()} == {"a": ["x"], "b": ["x", "y"]}


def test_a_loss_that_is_not_finite_has_no_point(project):
    nan, inf = float("nan"), float("inf")
    drawn = curves.draw("net", History(("loss",), {1: (4.0,), 2: (1.0,), 3: (nan,), 4: (inf,)}))
    assert drawn.lines == {"training": "0.0,0.0 66.7,67.5"}
    assert (drawn.top, drawn.last, drawn.broken) == ("4", 4, 3)
    drawn = curves.draw("net", History(("loss", "accuracy"), {1: (nan, 1.0), 2: (nan, 1.0)}))
    assert (drawn.lines, drawn.top, drawn.broken) == ({"training": ""}, "–", 1)
    assert curves.draw("net", History(("loss", "accuracy"), {1: (1.0, nan)})).broken is None
    (project / "metrics/history/vae/all.csv").write_text("epoch,loss\n1,2\n2,nan\n")
    text = build(project, None)
    assert text.count("not finite from epoch") == 1
    assert ">not finite from epoch 2</text>" in text


def test_captions_say_which_keys_were_trained_with(whole):
    captions = {picture.path: picture.caption for picture in backdoor_section(read_run_data(whole)).pictures}
    for name in PARAMS["backdoors"]:
        said = captions[f"poison/{name}.png"]
        assert ("poisons for training" in said) == (name in PARAMS["training_sets"])
        assert ("no network was trained with" in said) == (name not in PARAMS["training_sets"])


def test_tall_pictures_stand_by_themselves():
    sides = [(8, 4), (4, 8), (6, 6)]
    shown = [EmbeddedImage(Figure("", "", ""), "", *side) for side in sides]
    assert by_shape(shown) == [[shown[0], shown[2]], [shown[1]]]
    assert by_shape(shown[:1]) == [shown[:1]]


# --- stage and command


def test_the_stage_writes_the_page_without_tensorflow(project, page):
    start = f"runpy.run_path({str(ROOT / 'stages/report.py')!r}, run_name='__main__')"
    command = [sys.executable, "-c", f"import runpy, sys; {start}; sys.exit('tensorflow' in sys.modules)"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    written = project / "artifacts/report.html"
    assert written.read_text(encoding="utf-8") == page
    written.unlink()
    (project / "plots/transfer.png").unlink()
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, env=environment)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert done.stderr.startswith("error: plots/transfer.png is missing; run `dvc repro`")
    assert not written.exists()


def command(*words):
    app = typer.Typer()
    app.command()(report)
    return CliRunner().invoke(app, list(words))


def test_the_command_writes_the_page_with_provenance(project, monkeypatch, page):
    monkeypatch.chdir(project)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(project.parent))
    for _ in range(2):  # a report may be written over
        assert command("--out", "x.html").stdout.startswith("x.html: ")
    text = (project / "x.html").read_text(encoding="utf-8")
    assert text != page
    assert f"numpy&nbsp;{np.__version__}" in text
    assert "x.html are not those of its params: dvc.lock is missing" in command("--out", "x.html").stderr
    (project / "y.html").write_text("mine")
    done = command("--out", "y.html")
    assert isinstance(done.exception, UserError)
    assert "y.html is there and is no run report" in str(done.exception)
    assert (project / "y.html").read_text() == "mine"
    assert command("--out", "y.html", "--force").exit_code == 0
    assert isinstance(command("--out", ".").exception, UserError)
    done = command("--out", "y.html/z.html")  # its folder is a file
    assert isinstance(done.exception, UserError)
    assert re.fullmatch(r"--out y\.html/z\.html cannot be written \(.+\); name another file", str(done.exception))
