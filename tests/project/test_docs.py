"""What the README says is so: its numbers are those in metrics/, its links lead somewhere."""

import re
import subprocess

import pytest

from tests.project.test_dvc_yaml import PARAMS, PIPELINE
from tests.support.project import ROOT
from visor.core.files import read_json

README = (ROOT / "README.md").read_text()
EDITED = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "params.yaml", "dvc.lock"], cwd=ROOT).returncode != 0
committed_numbers = pytest.mark.skipif(EDITED, reason="params.yaml is edited: the README tells of the committed one")


def percent(value):
    return f"{100 * value:.1f} %"


def metrics(name):
    return read_json(ROOT / f"metrics/{name}.json")


def attack_row(name):
    """Attack success and clean accuracy of each network, as the README has them."""
    found = [metrics(f"backdoor/{network}/{name}") for network in PARAMS["networks"]]
    cells = [f"{percent(numbers['asr'])} ({percent(numbers['clean_accuracy'])})" for numbers in found]
    control = percent(found[0]["asr_of_clean_model"])
    return f"| {name.replace('_', ' ')} | {found[0]['n']} | {' | '.join(cells)} | {control} |"


def clean_row():
    cells = [f"({percent(metrics(f'backdoor/{network}/clean')['clean_accuracy'])})" for network in PARAMS["networks"]]
    return f"| none | 0 | {' | '.join(cells)} | – |"


SHOWN = ("reconstruction", "raw_mahalanobis", "patch", "fusion")


def detector_row(trigger):
    """AUROC of some defences, and what the last one gains on the first."""
    found = [metrics(f"defence/{name}/{trigger}") for name in SHOWN]
    gain = found[-1]
    cells = [f"{numbers['auroc']:.3f}" for numbers in found]
    return (
        f"| {trigger.replace('_', ' ')} | {' | '.join(cells)} | {gain['gain']:+.3f} "
        f"({gain['gain_low']:+.3f} to {gain['gain_high']:+.3f}) | {percent(gain['tpr_at_fpr_5'])} |"
    )


REPORTED = [name for name in (*PARAMS["backdoors"], "adapted") if name not in PARAMS["validation_triggers"]]
SHOWN_TRIGGERS = [name for name in REPORTED if name != "instances"]  # a variant of input_instance


def strength(each):
    return f"{each['eps']}x{each['iterations']}"


def hiding_conditions():
    """Names of the metrics' files whose vanished faces the README shows, and their titles."""
    settings = PARAMS["detection_attack"]
    last = settings["strengths"][-1]
    attacked = {f"pgd_{strength(each)}": f"PGD {each['eps']}/255" for each in settings["strengths"]}
    jpeg = {f"jpeg{quality}_{strength(last)}": f"JPEG {quality}" for quality in settings["jpeg"]}
    return {f"noise_{last['eps']}": f"noise {last['eps']}/255", **attacked, **jpeg}


def hiding_table():
    """Vanished faces of each attacked detector by condition, recall and AP under the last attack, AP when clean."""
    names = hiding_conditions()
    last = f"pgd_{strength(PARAMS['detection_attack']['strengths'][-1])}"
    heads = [f"vanished: {title}" for title in names.values()]
    heads = ["detector", "AP@.5, clean", "faces", *heads, "recall@.3", "AP@.5"]
    lines = [f"| {' | '.join(heads)} |", f"|{len(heads) * '---|'}"]
    for detector in PARAMS["detection_attack"]["detectors"]:
        clean, found = metrics(f"detection/{detector}/clean"), metrics(f"detection/{detector}/{last}")
        cells = [f"{clean['ap_50']:.3f} ({clean['ap_50_low']:.3f} to {clean['ap_50_high']:.3f})"]
        cells.append(str(found["found_before"]))
        for name in names:
            numbers = metrics(f"detection/{detector}/{name}")
            low, high = (f"{100 * numbers[f'vanished_{end}']:.0f}" for end in ("low", "high"))
            cells.append(f"{percent(numbers['vanished'])} ({low} to {high})")
        cells += [f"{found['recall_30']:.3f}", f"{found['ap_50']:.3f}"]
        lines.append(f"| {detector.replace('_', ' ')} | {' | '.join(cells)} |")
    return lines


def recognition_row(name):
    """AUC and TAR of unseen people, success of PGD and of noise at the least eps, transfer gains at the greatest.

    Each goal by itself.
    """
    settings = PARAMS["recognition_attack"]
    least, most, rate = settings["strengths"][0], settings["strengths"][-1], settings["false_accept_rates"][0]
    verified = metrics(f"recognition/{settings['white_box'][0]}/verification")[name]["none"]
    tar, low, high = (verified[f"tar_{rate}{end}"] for end in ("", "_low", "_high"))
    cells = [f"{verified['auc']:.3f}", f"{percent(tar)} ({100 * low:.0f} to {100 * high:.0f})"]
    goals = (*(f"impersonate_{target}" for target in settings["targets"]), "dodge")
    for goal in goals:
        if name in settings["white_box"]:
            found = metrics(f"recognition/{name}/{goal}")
            attack, noise = found[f"pgd_{strength(least)}"], found[f"noise_{least['eps']}"]
            shares = f"{percent(attack[f'success_{rate}'])} ({percent(noise[f'success_{rate}'])})"
            cells.append(f"{shares} of {attack[f'right_{rate}']}")
        else:
            cells.append("–")
    for goal in goals:
        gain = metrics("recognition_transfer")["gain"][goal]["momentum_augmented"][strength(most)].get(name)
        if gain is None:  # it was shown to no other
            cells.append("–")
        else:
            values = [f"{100 * gain[f'{key}_{rate}']:+.1f}" for key in ("gain", "low", "high")]
            cells.append(f"{values[0]} ({values[1]} to {values[2]})")
    return f"| {name} | {' | '.join(cells)} |"


@committed_numbers
def test_results_are_those_of_the_committed_metrics():
    attacks = [name for name in PARAMS["training_sets"] if name != "clean"]
    rows = [clean_row(), *map(attack_row, attacks), *map(detector_row, SHOWN_TRIGGERS), *hiding_table()]
    rows += map(recognition_row, PARAMS["recognition_attack"]["networks"])
    assert [row for row in rows if row not in README.splitlines()] == []


@committed_numbers
def test_prose_numbers_are_those_of_the_committed_metrics():
    baselines, held_out = metrics("baselines"), metrics("defence/fusion/clean")
    nearest, lda = (percent(baselines[f"{name}_accuracy"]) for name in ("nearest_neighbour", "lda"))
    prose = " ".join(README.split())
    assert f"recognises {nearest} of the faces, LDA {lda}" in prose
    fpr, low, high = (percent(held_out[key]) for key in ("fpr", "fpr_low", "fpr_high"))
    assert f"flags {fpr} ({low} to {high}) of held-out clean faces" in prose
    plain, adapted = (percent(metrics(f"defence/reconstruction/{key}")["tpr"]) for key in ("accessory", "adapted"))
    assert f"{plain} of the time and the adapted ones {adapted}" in prose


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))])
def test_links_lead_somewhere(page):
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{page}: {target}"


def test_the_architecture_page_names_every_stage():
    page = (ROOT / "docs/architecture.md").read_text()
    for name in PIPELINE:
        assert f"`{name}`" in page, name
