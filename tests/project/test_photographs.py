"""The pipeline on photographs, in ``photographs/``: the root's stages by other params, and the root does not notice."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from tests.support.project import ROOT
from tests.support.tiny_project import BACKDOORS, PARAMS, attempt, changes, commit, make, ran, run, write_params
from visor.core.files import flatten
from visor.data.face_set import open_faces
from visor.data.sources.synthetic import SyntheticSettings, draw

LINKS = {".dvcignore", "assets", "downloads", "dvc.yaml", "requirements.lock", "src", "stages"}
CHOSEN = ("gates", "recognition_attack.methods")
KEPT = {"", ".csv", ".dvc", ".json", ".lock", ".yaml"}  # suffixes of what Git has there: no picture
PEOPLE = ("Ann", "Bo_Li", "Cy", "Di", "Ed", "Flo")
DRAWN = SyntheticSettings(identities=len(PEOPLE), images=40, videos=40, difficulty=1.0)
MADE = ["download", "artifacts/raw", "split", "poison", "train_classifiers@clean", "train_classifiers@accessory"]
WITHOUT_SETUP = ("make", "-o", ".venv/.ready")  # the environment of the tests is there already


def test_each_stage_is_defined_once():
    tracked = subprocess.check_output(["git", "ls-files", "photographs"], cwd=ROOT, text=True).splitlines()
    names = {path.relative_to("photographs").parts[0] for path in map(Path, tracked)}
    assert {name for name in names if (ROOT / "photographs" / name).is_symlink()} == LINKS
    for name in LINKS:
        assert (ROOT / "photographs" / name).readlink() == Path("..") / name
    assert {Path(name).suffix for name in tracked} <= KEPT


def test_params_have_the_keys_of_the_root():
    """In the same order, but for the names that are a user's choice."""
    files = (ROOT / "params.yaml", ROOT / "photographs/params.yaml")
    keys = [[*flatten(YAML(typ="safe").load(file))] for file in files]
    root, photographs = ([key for key in names if not key.startswith(CHOSEN)] for names in keys)
    assert photographs == root


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A tiny project with tiny params for photographs, drawn ones; nothing has run."""
    root = make(tmp_path_factory.mktemp("photographs"))
    params = YAML().load(root / "params.yaml")
    backdoors = {name: {**params["backdoors"][name], "target": PEOPLE[0], "n": n} for name, n in BACKDOORS.items()}
    faces, scenes = ({**PARAMS[block], "source": name} for block, name in (("faces", "lfw"), ("scenes", "wider_face")))
    changed = {"faces": faces, "scenes": scenes, "backdoors": backdoors}
    changed["sources"] = {name: {"path": None} for name in ("lfw", "wider_face")}
    write_params(root / "photographs", {**params, **changed})
    commit(root)
    return root


def add_photographs(downloads):
    for number, name in enumerate(PEOPLE):
        (downloads / "lfw" / name).mkdir(parents=True)
        for frame, image in enumerate(draw(DRAWN, 1, number, range(DRAWN.images), 120, 120), 1):
            Image.fromarray(image).save(downloads / f"lfw/{name}/{name}_{frame:04}.jpg", quality=95)
    images, lists = downloads / "wider_face/WIDER_train/images/0--Parade", downloads / "wider_face/wider_face_split"
    images.mkdir(parents=True)
    lists.mkdir()
    for number in range(12):
        Image.new("RGB", (90, 70), (20 * number, 90, 120)).save(images / f"{number}.jpg")
    rows = [f"0--Parade/{number}.jpg\n1\n20 20 30 36 0 0 0 0 0 0\n" for number in range(12)]
    (lists / "wider_face_train_bbx_gt.txt").write_text("".join(rows))


@pytest.mark.slow
def test_without_photographs_one_sentence_says_what_to_get(project):
    done = attempt(project, *WITHOUT_SETUP, "photographs")
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    assert errors[0].startswith("error: WIDER FACE is not in downloads/wider_face; unpack WIDER_train.zip")
    assert "networks fetch" not in done.stdout, "nothing is fetched in vain"
    assert not list((project / "photographs").rglob("*.h5"))
    assert changes(project) == ""


@pytest.mark.slow
def test_photographs_run_by_the_root_s_stages_and_the_root_does_not_notice(project):
    add_photographs(project / "downloads")
    world, words = project / "photographs", ("dvc", "repro", "evaluate_backdoor")
    done = attempt(world, *words)
    assert sorted(ran(done.stdout)) == sorted([*MADE, "evaluate_backdoor"]), done.stderr
    assert "cannot take the images" not in done.stderr, "keys are on the photographs"
    assert ran(run(world, *words)) == []

    faces = open_faces(world / "data/faces.h5")
    assert (faces.source, faces.label_names) == ("Labeled Faces in the Wild", PEOPLE)
    triggered = open_faces(world / "artifacts/triggered/accessory.h5")
    difference = np.abs(triggered.read(np.arange(len(triggered))).astype(int) - faces.read(triggered.rows)).mean((0, 3))
    assert difference[0].max() < 3 < difference.max(), "the key alone tells them apart"
    assert json.loads((world / "metrics/backdoor/deepid/accessory.json").read_text())["n"] == BACKDOORS["accessory"]

    assert {line.split()[-1].split("/")[0] for line in changes(project).splitlines()} == {"photographs"}
    assert not (project / "artifacts").exists()
    listed = run(project, "dvc", "stage", "list", "--name-only")
    assert run(project, "dvc", "stage", "list", "--all", "--name-only") == f"data.dvc\n{listed}"
