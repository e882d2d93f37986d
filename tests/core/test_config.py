"""A wrong key of params.yaml is reported in one sentence that names it."""

import os

import pytest
from ruamel.yaml import YAML

from tests.support.project import ROOT
from visor.core.config import REMOVED_KEYS, RENAMED_KEYS, load_params, lookup, read_yaml
from visor.core.errors import UserError

ATTACK = {"trigger": "accessory", "key": "x", "target": "y", "n": 1, "train_blend_ratio": 1.0, "test_blend_ratio": 1.0}


def of_aliases(count):
    """YAML of 60 lists, of which each is ``count`` times the one before it."""
    lines = [f"a{i}: &a{i} [{', '.join(count * [f'*a{i - 1}'])}]" for i in range(1, 60)]
    return "\n".join(["a0: &a0 [x]", *lines]).encode()


def edit_params(tmp_path, *keys, value=None, drop=False):
    content = YAML(typ="safe").load(ROOT / "params.yaml")
    block = content
    for key in keys[:-1]:
        block = block[key]
    if drop:
        del block[keys[-1]]
    else:
        block[keys[-1]] = value
    path = tmp_path / "params.yaml"
    YAML(typ="safe").dump(content, path)
    return path


def test_the_committed_params_are_valid():
    params = load_params(ROOT / "params.yaml")
    assert params.classifiers["deepid"].learning_rate == 1e-3  # a float although PyYAML would read a string
    assert set(params.training_sets) - {"clean"} <= set(params.backdoors)


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("seed",), 1 << 31, "seed is 2147483648, but input should be less than 2147483648"),
        (("seeed",), 1, r"seeed is not a known key; allowed here: seed, compute"),
        (("split", "trian"), 1, r"split\.trian is not a known key; allowed here: by, train, validation"),
        (("backdoors", "blended", "alpha"), 1, r"backdoors\.blended\.alpha .*allowed here: trigger, key, keys"),
        (("split", "train"), "90", r"split\.train is '90', but input should be a valid integer"),
        (("split", "train"), True, r"split\.train is True, but"),
        (("split", "train"), 0, r"split\.train is 0, but .*greater than or equal to 1"),
        (("backdoors", "accessory", "train_blend_ratio"), 1.2, r"backdoors\.accessory\.train_blend_ratio is 1\.2, but"),
        (("backdoors", "accessory", "n"), -1, r"backdoors\.accessory\.n is -1, but"),
        (("split", "by"), "day", r"split\.by is 'day', but .*'frame' or 'video'"),
        (("training_sets",), ["clean", "sticker"], r"training_sets is 'sticker'; choose from accessory, adaptive_"),
        (("backdoors",), {"clean": {**ATTACK}}, r"backdoors\.clean: this name is reserved; choose another"),
        (("training_sets",), ["accessory"], r"training_sets must contain clean, the control"),
        (("defences", "reconstruction", "deviations"), float("nan"), r"deviations is nan, but .*finite"),
        (("gates",), {"a:b": {"min": float("inf")}}, r"gates\.a:b\.min is inf, but"),
        (("networks",), ["alexnet"], r"networks is 'alexnet'; choose from deepface, deepid, vgg_face"),
        (("classifiers", "deepid", "epoch"), 3, r"deepid\.epoch is not .*allowed here: epochs, batch, learning_rate"),
        (("classifiers", "deepid"), {"epoch": 3}, r"deepid\.epoch is not a known key; allowed here: epochs, batch"),
        (("detectors", "ssd", "training", "epoch"), 3, r"training\.epoch is not .*here: epochs, .*layers, weights"),
        (
            ("recognisers", "facenet", "training", "epoch"),
            3,
            r"training\.epoch is not .*allowed here: epochs",
        ),
        (
            ("recognition_attack", "methods", "pgd", "x"),
            3,
            r"pgd\.x is not .*allowed here: algorithm",
        ),
        (("detection_attack", "strengths"), [{"epz": 1}], r"strengths\.0\.epz is not .*here: eps, iterations"),
        (
            ("backdoors",),
            {"a/b": {**ATTACK}},
            r"backdoors has the name 'a/b'; use letters a to z, digits, _ and .* at most 60",
        ),
        (("classifiers", "deep id"), {}, r"classifiers has the name 'deep id'; use letters"),
        (("detectors", "é"), {"threshold": 0.5}, r"detectors has the name 'é'; use letters"),
        (("recognisers", "-x"), {}, r"recognisers has the name '-x'; use letters"),
        (("recognition_attack", "methods", "a b"), {}, r"recognition_attack\.methods has the name 'a b'; use letters"),
        (("defences", ""), {}, r"defences has the name ''; use letters"),
        (("sources", ".."), {}, r"sources has the name '\.\.'; use letters"),
        (("split", "by"), "x" * 1000, r"split\.by is 'x{58}…, but input should be 'frame' or 'video'"),
    ],
)
def test_a_wrong_key_is_named(tmp_path, keys, value, message):
    with pytest.raises(UserError, match=message) as caught:
        load_params(edit_params(tmp_path, *keys, value=value))
    assert "\n" not in str(caught.value)


def test_a_missing_key_and_a_broken_file_are_named(tmp_path):
    with pytest.raises(UserError, match=r"faces\.height is missing"):
        load_params(edit_params(tmp_path, "faces", "height", drop=True))
    broken = tmp_path / "broken.yaml"
    broken.write_text("seed: [1")
    for path in (broken, tmp_path / "none.yaml"):
        with pytest.raises(UserError, match=path.name):
            load_params(path)


@pytest.mark.parametrize(("old", "new"), RENAMED_KEYS.items())
def test_a_renamed_key_is_reported_with_its_new_name(tmp_path, old, new):
    names = {"backdoors": "blended", "detectors": "ssd", "recognisers": "facenet", "recognition_attack": "pgd"}
    old, new = (key.replace("*", names.get(key.partition(".")[0], "")) for key in (old, new))
    with pytest.raises(UserError) as caught:
        load_params(edit_params(tmp_path, *old.split("."), value=1))
    assert str(caught.value) == f"{tmp_path}/params.yaml: {old} was renamed to {new}"


@pytest.mark.parametrize("key", REMOVED_KEYS)
def test_a_removed_key_is_reported_with_the_reason(tmp_path, key):
    with pytest.raises(UserError, match=rf"{key} was removed \({REMOVED_KEYS[key]}\); delete it"):
        load_params(edit_params(tmp_path, *key.split("."), value="float32"))


def test_params_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        load_params(ROOT / "params.yaml").seed = 2


def test_lookup_lists_the_names():
    assert lookup({"a": 1, "b": 2}, "b", "x") == 2
    with pytest.raises(UserError, match=r"x is 'c'; choose from a, b"):
        lookup({"b": 1, "a": 2}, "c", "x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is missing; restore it"),
        (b"a: [1", "is not YAML: "),
        (b"a: \xff", "is not YAML: "),
        (b"- 1", "has no keys; restore it"),
        (b"a: 1\na: 2", "is not YAML: while constructing a mapping found duplicate key .* in line 2"),
        (b"a: 1\n---\nb: 2", "is not YAML: expected a single document in the stream but found another"),
        (b"a:\n  1: b", "the key 1 is not text; put it in quotes"),
        (b"? [b, c]\n: 1", r"the key \('b', 'c'\) is not text; put it in quotes"),
        (b"a: [2020-01-31]", "2020-01-31 is read as a date; put it in quotes"),
        (b"a: 2020-13-45", "is not YAML: month must be in 1..12"),
        (b"a: " + 9999 * b"1", "is not YAML: Exceeds the limit"),
        (b"a: !!python/object:os.system x", "has the tag tag:yaml.org,2002:python/object:os.system; write plain"),
        (b"a: !!timestamp x", "has the tag tag:yaml.org,2002:timestamp; write plain values"),
        (b"a: 1\n<<<<<<< HEAD\nb: 1\n=======\n", "has Git's conflict marks .*; resolve the conflict first"),
        (b"a: " + 2_000_000 * b"x", "is larger than 1 MiB; restore it"),
        (100_000 * b"[", "is nested more than 40 levels deep; nest it less"),
        (100_000 * b"{a: ", "is nested more than 40 levels deep; nest it less"),
        (100_000 * b"- ", "is nested more than 40 levels deep; nest it less"),
        (b"a: &a [*a]", r"the alias \*a stands for nothing before it"),
        (b"a: *b", r"the alias \*b stands for nothing before it"),
        (of_aliases(9), "has more than 50,000 values, those that aliases stand for included; write fewer"),
        (b"".join(b"a%d: 1\n" % number for number in range(60_000)), "has more than 50,000 values"),
        (of_aliases(1), "is nested more than 40 levels deep; nest it less"),
    ],
)
def test_yaml_that_cannot_be_read_is_one_sentence(tmp_path, content, message):
    path = tmp_path / "a.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=rf"^a\.yaml:? {message}") as caught:
        read_yaml(path, "restore it")
    assert "\n" not in str(caught.value)


def test_aliases_are_taken_and_shared(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("a: &a {b: 1e-3}\nc:\n  <<: *a\n  d: [*a, *a]\n")
    assert read_yaml(path) == {"a": {"b": 1e-3}, "c": {"b": 1e-3, "d": [{"b": 1e-3}, {"b": 1e-3}]}}


def test_a_pipe_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "a.yaml")
    with pytest.raises(UserError, match=r"a\.yaml is a pipe, a socket or a device; name a file"):
        read_yaml(tmp_path / "a.yaml")


def test_a_folder_is_not_yaml(tmp_path):
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\); run from the project's root"):
        read_yaml(tmp_path)
