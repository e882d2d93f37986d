"""The README's section "Add a trigger", followed in a copy: file, registry line, params; then the trigger runs."""

import os
import re
import shutil
import subprocess
import sys

import numpy as np

from tests.support.project import ROOT

SECTION = (ROOT / "README.md").read_text().partition("## Add a trigger\n")[2].partition("\n## ")[0]
COPIED = ["src/visor", "tests/attacks/backdoors", "tests/support", "assets/keys", "params.yaml", "pyproject.toml"]
SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from visor.attacks.backdoors.poisoning import load_keys, make_poisons, make_triggered
from visor.attacks.backdoors.triggers import TRIGGERS
from visor.core.config import load_params
from visor.core.params import SplitParams
from visor.data.face_set import FaceBatch, open_faces, write_faces
from visor.data.split import split_rows

params, name, rows = load_params(), sys.argv[1], np.arange(90, dtype=np.int32)
backdoor, labels = params.backdoors[name], (rows // 30).astype(np.int32)
assert name in params.training_sets
images = np.random.default_rng(1).integers(0, 256, (90, 34, 29, 3), dtype=np.uint8)
names = ["person_000", "person_001", "person_002"]
write_faces(Path("faces.h5"), [FaceBatch(images, labels, rows, rows)], (34, 29, 3), names, "test", "none")
faces, split = open_faces(Path("faces.h5")), SplitParams(by="frame", train=2, validation=2, test=3, calibration=0.5)
table, trigger = split_rows(labels, rows, split, seed=1), TRIGGERS[backdoor.trigger]
keys = load_keys(faces, table, backdoor, Path("assets/keys"), seed=1)
batches = [*make_poisons(faces, table, backdoor.model_copy(update={"n": 40}), trigger, keys, seed=1)]
batches += make_triggered(faces, table, backdoor, trigger, keys, seed=1)
rows, stamped = (np.concatenate([getattr(batch, part) for batch in batches]) for part in ("rows", "images"))
np.savez("result.npz", clean=images[rows], stamped=stamped)
"""


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)


def edit(path, pattern, replacement):
    """Change the one place of a file that fits."""
    text, count = re.subn(pattern, replacement, path.read_text(), flags=re.MULTILINE)
    assert count == 1, f"{path.name}: {pattern}"
    path.write_text(text)


def test_the_section_adds_an_attack_that_runs(tmp_path):
    (module, line), (params,) = blocks("python"), blocks("yaml")
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / name, tmp_path / name)
    for name in ("tests/__init__.py", "tests/conftest.py", "tests/attacks/__init__.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    path = re.match(r'"""(src/visor/attacks/backdoors/triggers/(\w+)\.py)', module)
    name = path[2]
    assert not (ROOT / path[1]).exists()
    (tmp_path / path[1]).write_text(module)
    registry = tmp_path / "src/visor/attacks/backdoors/triggers/__init__.py"
    edit(registry, r"^from visor\.attacks\.backdoors\.triggers import \(\n", rf"\g<0>    {name},\n")
    edit(registry, r"^TRIGGERS = \{\n", rf"\g<0>{line}")
    block = params.removeprefix("backdoors:\n")
    edit(tmp_path / "params.yaml", r"^backdoors:\n", rf"\g<0>{block}")
    edit(tmp_path / "params.yaml", r"^training_sets: \[(.*)\]$", rf"training_sets: [\1, {name}]")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path / 'src'}:{tmp_path}"}
    (tmp_path / "run.py").write_text(SCRIPT)
    contract = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        f"[{name}]",
        "tests/attacks/backdoors/test_triggers.py",
    ]
    for command in ([sys.executable, "run.py", name], contract):
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
    result = np.load(tmp_path / "result.npz")
    assert len(result["stamped"]) == 40 + 6
    np.testing.assert_array_equal(result["stamped"], 255 - result["clean"])
