"""What the README says is so: its numbers are those in metrics/, its links lead somewhere."""

import re
import subprocess

import pytest
from docs.results import metrics, percent, with_tables

from tests.project.test_dvc_yaml import PIPELINE
from tests.support.project import ROOT

README = (ROOT / "README.md").read_text()
EDITED = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "params.yaml", "dvc.lock"], cwd=ROOT).returncode != 0
committed_numbers = pytest.mark.skipif(EDITED, reason="params.yaml is edited: the README tells of the committed one")


@committed_numbers
def test_results_are_those_of_the_committed_metrics():
    assert with_tables(README) == README


@committed_numbers
def test_prose_numbers_are_those_of_the_committed_metrics():
    found = metrics("baselines")
    nearest, lda = (percent(found[f"{name}_accuracy"]) for name in ("nearest_neighbour", "lda"))
    assert f"recognises {nearest} of the faces, LDA {lda}" in " ".join(README.split())


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
