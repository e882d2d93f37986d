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


SHOWN_TRIGGERS = [name for name in (*PARAMS["backdoors"], "adapted") if name not in PARAMS["validation_triggers"]]


def hiding_conditions():
    """Names of the metrics' files, and their titles, that the README shows."""
    strengths = PARAMS["detection_attack"]["strengths"]
    last = strengths[-1]
    attacked = {
        f"pgd_{each['eps']:g}x{each['iterations']}": f"{each['eps']:g} × {each['iterations']}" for each in strengths
    }
    jpeg = {
        f"jpeg{quality}_{last['eps']:g}x{last['iterations']}": f"JPEG {quality}"
        for quality in PARAMS["detection_attack"]["jpeg"]
    }
    return {"clean": "clean", f"noise_{last['eps']:g}": f"noise {last['eps']:g}", **attacked, **jpeg}


def hiding_table():
    """AP at IoU 0.5 of each attacked detector: clean, noise, PGD by eps × iterations, and the last after JPEG."""
    names = hiding_conditions()
    lines = [f"| detector | {' | '.join(names.values())} | faces vanished |", f"|---|{'---|' * (len(names) + 1)}"]
    for detector in PARAMS["detection_attack"]["detectors"]:
        found = {name: metrics(f"detection/{detector}/{name}") for name in names}
        cells = [f"{numbers['ap_50']:.3f}" for numbers in found.values()]
        last = [name for name in names if name.startswith("pgd")][-1]
        lines.append(f"| {detector.replace('_', ' ')} | {' | '.join(cells)} | {percent(found[last]['vanished'])} |")
    return lines


def strength(each):
    return f"{each['eps']:g}x{each['iterations']}"


def recognition_row(name):
    """AUC on unseen people, success of PGD and of noise at the least eps, what transforms gain at the greatest."""
    settings = PARAMS["recognition_attack"]
    least, most, rate = settings["strengths"][0], settings["strengths"][-1], settings["false_accept_rates"][0]
    verified = metrics(f"recognition/{settings['white_box'][0]}/verification")
    cells = [f"{verified[name]['none']['auc']:.3f}"]
    for goal in ("impersonate", "dodge"):
        if name in settings["white_box"]:
            found = metrics(f"recognition/{name}/{goal}")
            attack, noise = (
                found[key][f"success_{rate}"] for key in (f"pgd_{strength(least)}", f"noise_{least['eps']:g}")
            )
            cells.append(f"{percent(attack)} ({percent(noise)})")
        else:
            cells.append("–")
    gain = metrics("recognition_transfer")["gain"]["momentum_augmented"][strength(most)].get(name)
    if gain is None:  # it was shown to no other
        return f"| {name} | {' | '.join(cells)} | – |"
    values = [f"{100 * gain[f'{key}_{rate}']:+.1f}" for key in ("gain", "low", "high")]
    return f"| {name} | {' | '.join(cells)} | {values[0]} ({values[1]} to {values[2]}) |"


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
