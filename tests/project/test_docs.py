"""What the pages say is so: their numbers are those in metrics/, their links lead somewhere."""

import re
import subprocess

import pytest
from docs.results import PAGES, Run, percent, with_tables

from tests.project.test_dvc_yaml import PIPELINE
from tests.support.project import ROOT
from visor.core.config import load_params

EDITED = [
    page
    for page, folder in PAGES.items()
    if not (ROOT / folder / "dvc.lock").exists()
    or subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "params.yaml", "dvc.lock"], cwd=ROOT / folder).returncode
]
REASON = "the page tells of the committed run, which params.yaml or dvc.lock is no longer"


@pytest.mark.parametrize("page", PAGES)
def test_results_are_those_of_the_committed_metrics(page):
    if page in EDITED:
        pytest.skip(REASON)
    assert with_tables(page) == (ROOT / page).read_text()


@pytest.mark.skipif("README.md" in EDITED, reason=REASON)
def test_prose_numbers_are_those_of_the_committed_metrics():
    found = Run(ROOT, load_params(ROOT / "params.yaml")).metrics("baselines")
    nearest, lda = (percent(found[f"{name}_accuracy"]) for name in ("nearest_neighbour", "lda"))
    page = (ROOT / "README.md").read_text()
    assert f"recognises {nearest} of the faces, LDA {lda}" in " ".join(page.split())


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
