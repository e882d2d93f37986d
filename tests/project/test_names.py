"""Names are those of the field: the former dialect is gone, and a public class has a name of its own."""

import ast
import re
from collections import Counter

import pytest

from tests.support.project import ROOT

SOURCE = ROOT / "src/visor"
# What the files of the app and of photos defined before 0.2.0, and must not define again.
FORMER = {
    "app/job_queue.py": (
        "Desk open_eyes eyes opened drop forget alive sweep _require_room _busy _serve _next _work_on "
        "_watch say COPIES Paper Order in_turn OPEN held words place end open"
    ),
    "app/networks.py": (
        "Eyes open_eyes look_at best_scores ATTACKED STRANGERS hider fooler attacked missing Options "
        "SURROUNDINGS CLOSE _once Spot by_hand"
    ),
    "app/session.py": (
        "Visit Photo Request spots ticked chosen marks marked view drawn small tapped VISITS TOGETHER "
        "enter expire visit guarded keep held unsent settled round Sessions join patience desk "
        "sessions joined RETURNS_WITHIN FORGET SETTINGS"
    ),
    "app/protect.py": (
        "Protected Cancelled rehearse Say STRIP distance pace search hide evade Pace PART tried gains "
        "Verdict judge views Views onlooker used USED"
    ),
    "photos/identify.py": "Onlooker onlooker Known looker meet look",
}
DIALECT = (
    "Desk Paper Eyes Onlooker Court Roll Ledger Visit Fool Fooled Spot Known Canvases Victims pursue convene apologise"
)


def defined_names(tree):
    """Yield every name that a file defines: functions, classes, parameters, variables, attributes of ``self``."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


@pytest.mark.parametrize("file", FORMER)
def test_former_names_are_gone(file):
    names = set(defined_names(ast.parse((SOURCE / file).read_text())))
    assert names & set(FORMER[file].split()) == set()


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_no_identifier_is_of_the_dialect(path):
    words = {word for name in defined_names(ast.parse(path.read_text())) for word in (name, *re.split(r"_+", name))}
    assert words & set(DIALECT.split()) == set()


def test_public_classes_have_names_of_their_own():
    count = Counter(
        node.name
        for path in SOURCE.rglob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, times in count.items() if times > 1] == []
