"""Commands ``visor app`` and ``visor unlock``: the privacy app in a browser, and its encrypted archives decrypted."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from visor.cli import common
from visor.core.errors import FULL, UserError

if TYPE_CHECKING:
    from visor.app.certificate import CertificatePair


def serve_app(
    host: Annotated[
        str, typer.Option(help="Address to listen on. The default accepts connections from this machine only.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 picks a free one.")] = 8501,
    https: Annotated[
        bool, typer.Option("--https", help="Encrypt traffic, with a self-signed certificate unless one is passed.")
    ] = False,
    certificate: Annotated[Path | None, typer.Option(help="Your own certificate, PEM.")] = None,
    key: Annotated[Path | None, typer.Option(help="Key of --certificate, PEM.")] = None,
    recogniser: Annotated[
        str,
        typer.Option(
            help="Recogniser to attack: facenet, resnet50, senet50, vgg_face, dlib_resnet, faceres, or a FILE.tflite."
        ),
    ] = "facenet",
    weights: Annotated[str | None, typer.Option(help="Published weights for it, a file or a URL.")] = None,
    sha256: Annotated[str | None, typer.Option(help="Checksum of --weights.")] = None,
    forget: Annotated[int, typer.Option(min=1, help="Seconds to keep the photos of a closed tab.")] = 120,
    threads: common.Threads = 2,
) -> None:
    """Serve the privacy app: upload photos in a browser and download protected copies.

    The app writes no photo to a file.
    """
    from visor.core.server import listen, url

    pair = _certificate_pair(https, certificate, key)
    listener = listen(host, port)  # Check arguments first: importing TensorFlow takes seconds.
    typer.echo("Loading networks (about 20 seconds) …", err=True)
    from visor.app import server, session
    from visor.app.certificate import certificate_fingerprint
    from visor.app.networks import NetworkOptions
    from visor.app.protect import warm_up

    hosts = server.allowed_hosts(host, pair)
    server.configure(NetworkOptions(recogniser, weights, sha256, threads), hosts, pair, forget)
    networks = session.job_queue().networks()
    warm_up(networks)
    if untrained := ", ".join(networks.untrained):
        typer.echo(f"Not trained, skipped: {untrained}; `dvc repro` trains those in params.yaml", err=True)
    typer.echo(f"open {url(listener, tls=pair is not None)}; stop with Ctrl-C")
    if pair:
        fingerprint = certificate_fingerprint(pair.certificate)
        typer.echo(f"SHA-256 fingerprint of {pair.certificate}, to compare in the browser:\n{fingerprint}")
    elif not server.is_loopback(host):
        typer.echo(f"{host} is reachable from other machines and traffic is not encrypted; use --https", err=True)
    try:
        server.serve(server.application(hosts, forget), listener, pair)
    finally:
        session.job_queue().close()
    typer.echo("Stopped. All photos were removed from memory.", err=True)


def unlock(
    bundle: Annotated[Path, typer.Argument(help="Encrypted archive, .zip.age.", metavar="BUNDLE")],
    out: Annotated[Path, typer.Option(help="Folder for the photos, as PNG.")],
    force: common.Force = False,
) -> None:
    """Decrypt an archive downloaded from the app; prompts for its password."""
    from visor.app.downloads import MAX_BUNDLE_BYTES, decrypt
    from visor.core.files import atomic_write

    try:
        with bundle.open("rb") as file:
            content = file.read(MAX_BUNDLE_BYTES + 1)
    except OSError as error:
        raise UserError(f"{bundle} cannot be read ({error.strerror}); pass a file downloaded from the app") from None
    photos = decrypt(content, typer.prompt("password", hide_input=True, err=True))
    try:
        existing = [out / name for name in photos if (out / name).exists()]
        if existing and not force:
            raise UserError(f"{existing[0]} exists; pass another folder with --out, or overwrite it with --force")
        for name, photo in photos.items():
            with atomic_write(out / name, private=True) as temporary:
                temporary.write_bytes(photo)
            common.echo(str(out / name))
    except OSError as error:
        if error.errno in FULL:
            raise
        raise UserError(f"--out {out} cannot be written ({error.strerror}); pass another folder") from None


def _certificate_pair(https: bool, certificate: Path | None, key: Path | None) -> "CertificatePair | None":
    """Return the certificate to serve with; None for HTTP."""
    from visor.app.certificate import CertificatePair, default_folder, load_or_create, validate

    if (certificate is None) != (key is None):
        raise UserError("--certificate and --key belong together; pass both, or --https alone")
    if certificate and key:
        return validate(CertificatePair(certificate, key))
    return load_or_create(default_folder()) if https else None
