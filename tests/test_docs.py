"""What the README says is so: its numbers are those in metrics/, its links lead somewhere."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.test_pipeline import PARAMS, PIPELINE
from visor.files import read_json

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
EDITED = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "params.yaml", "dvc.lock"], cwd=ROOT).returncode != 0
committed_numbers = pytest.mark.skipif(EDITED, reason="params.yaml is edited: the README tells of the committed one")


def results():
    """Rows of the README's table of results as {attack: [cell, …]}."""
    rows = [line.strip("| ").split(" | ") for line in README.splitlines() if line.startswith("| ")]
    return {row[0].replace(" ", "_"): row[1:] for row in rows if row[0].replace(" ", "_") in PARAMS["backdoors"]}


def percent(value):
    return f"{100 * value:.1f} %"


@committed_numbers
@pytest.mark.parametrize("name", results())
def test_results_are_those_of_the_committed_metrics(name):
    attack = ROOT / f"metrics/backdoor/deepid/{name}.json"
    trained = [str(PARAMS["backdoors"][name]["n"]), "–", "–", "–"]
    if attack.exists():
        found = read_json(attack)
        trained = [str(found["n"]), *(percent(found[key]) for key in ("clean_accuracy", "asr", "asr_of_clean_model"))]
    detected = read_json(ROOT / f"metrics/defence/reconstruction/{name}.json")
    assert results()[name] == [*trained, f"{detected['auroc']:.3f}", percent(detected["tpr"])]


def test_the_table_holds_the_original_four_attacks():
    assert {"input_instance", "blended", "accessory", "blended_accessory"} <= set(results())


@committed_numbers
def test_prose_numbers_are_those_of_the_committed_metrics():
    baselines = read_json(ROOT / "metrics/baselines.json")
    clean = read_json(ROOT / "metrics/backdoor/deepid/clean.json")
    held_out = read_json(ROOT / "metrics/defence/reconstruction/clean.json")
    nearest, lda = (percent(baselines[f"{name}_accuracy"]) for name in ("nearest_neighbour", "lda"))
    fpr, low, high = (percent(held_out[key]) for key in ("fpr", "fpr_low", "fpr_high"))
    prose = " ".join(README.split())
    assert f"knows {nearest} of them and LDA {lda}" in prose
    assert f"without poisons reaches {percent(clean['clean_accuracy'])}" in prose
    assert f"flags {fpr} ({low} to {high}) of the clean ones" in prose


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


def test_every_make_target_in_the_readme_exists():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make ([a-z]+)", README):
        assert f"\n{target}:" in makefile, target
