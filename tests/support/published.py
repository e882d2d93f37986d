"""A catalogue of published networks whose archives are made here."""

import hashlib
import io
import tarfile

from ruamel.yaml import YAML

LICENCE = b"Do what you like.\n"


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def archive_of(entries, mode="w:gz"):
    """The bytes of a tar archive of {name: bytes}, or of {name: path that a symbolic link points to}."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as tar:
        for name, content in entries.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def row(archive, files, file="net-1.2.tar.gz", package="net", client="pip", licence_doubt=None, folder="net-1.2/"):
    """A row of the catalogue for an archive (bytes) that holds {file name: bytes} in a folder."""
    return {
        "title": "a network",
        "role": "recogniser",
        "licence": "CC0 1.0",
        "licence_doubt": licence_doubt,
        "source": "https://example.org/net",
        "package": package,
        "version": "1.2",
        "client": client,
        "archive": {"file": file, "bytes": len(archive), "sha256": sha256(archive)},
        "licence_file": f"{folder}LICENSE",
        "members": [
            {"path": f"{folder}{name}", "bytes": len(content), "sha256": sha256(content)}
            for name, content in files.items()
        ],
    }


def write_catalogue(path, rows):
    with path.open("w") as file:
        YAML(typ="safe").dump(rows, file)
