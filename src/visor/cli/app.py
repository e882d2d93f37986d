"""The commands ``visor app`` and ``visor unlock``: the privacy app in a browser, and its locked bundles opened."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from visor.cli import common
from visor.core.errors import UserError

if TYPE_CHECKING:
    from visor.app.certificate import CertificatePair


def serve_app(
    host: Annotated[str, typer.Option(help="Address to listen on; only this machine by default.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one.")] = 8501,
    https: Annotated[bool, typer.Option("--https", help="Encrypt; a certificate is made if none is named.")] = False,
    certificate: Annotated[Path | None, typer.Option(help="Your own certificate, PEM.")] = None,
    key: Annotated[Path | None, typer.Option(help="The key of --certificate, PEM.")] = None,
    recogniser: Annotated[
        str, typer.Option(help="That attacks use: facenet, resnet50, senet50, vgg_face.")
    ] = "facenet",
    weights: Annotated[str | None, typer.Option(help="Published weights for it, a file or a URL.")] = None,
    sha256: Annotated[str | None, typer.Option(help="Checksum of --weights.")] = None,
    forget: Annotated[int, typer.Option(min=1, help="Seconds that a closed tab's photos are kept.")] = 120,
    threads: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Serve the privacy app: photos come in by a browser, and leave protected; the app writes them to no file."""
    pair = _pair(https, certificate, key)
    from visor.server import listen

    listener = listen(host, port)  # before TensorFlow takes its seconds
    typer.echo("loading the networks, some 20 seconds …", err=True)
    from visor.app import server, session
    from visor.app.networks import NetworkOptions
    from visor.app.protect import warm_up

    names = server.allowed_hosts(host, pair)
    server.configure(NetworkOptions(recogniser, weights, sha256, threads), names, pair, forget)
    eyes = session.job_queue().networks()
    warm_up(eyes)
    if absent := ", ".join(eyes.untrained):
        typer.echo(f"not trained, so not asked: {absent}; `dvc repro` trains those that params.yaml names", err=True)
    typer.echo(f"open {server.address(listener, pair)}; stop with Ctrl-C")
    if pair:
        typer.echo(f"SHA-256 fingerprint of {pair.certificate}, to compare in the browser:\n{_fingerprint(pair)}")
    elif not server.is_loopback(host):
        typer.echo(f"others can reach {host}, and read along what they send and get; use --https", err=True)
    try:
        server.serve(server.application(names), listener, pair)
    finally:
        session.job_queue().close()
    typer.echo("stopped; all photos are forgotten", err=True)


def unlock(
    bundle: Annotated[Path, typer.Argument(help="A locked bundle, .zip.age.", metavar="BUNDLE")],
    out: Annotated[Path, typer.Option(help="Folder for the photos, as PNG.")],
    force: common.Force = False,
) -> None:
    """Open a locked bundle that the app gave; its password is asked for."""
    from visor.app.downloads import MAX_BUNDLE_BYTES, decrypt
    from visor.core.files import atomic_write

    try:
        with bundle.open("rb") as file:
            content = file.read(MAX_BUNDLE_BYTES + 1)
    except OSError as error:
        raise UserError(f"{bundle} cannot be read ({error.strerror}); name a file that the app gave") from None
    photos = decrypt(content, typer.prompt("password", hide_input=True, err=True))
    try:
        taken = [out / name for name in photos if (out / name).exists()]
        if taken and not force:
            raise UserError(f"{taken[0]} exists; name another folder by --out, or overwrite it with --force")
        for name, photo in photos.items():
            with atomic_write(out / name) as temporary:
                temporary.write_bytes(photo)
            common.echo(str(out / name))
    except OSError as error:
        raise UserError(f"--out {out} cannot be written ({error.strerror}); name another folder") from None


def _pair(https: bool, certificate: Path | None, key: Path | None) -> "CertificatePair | None":
    """Return the certificate to serve with, None: without encryption."""
    from visor.app import certificate as certificates

    if (certificate is None) != (key is None):
        raise UserError("--certificate and --key belong together; name both, or --https alone")
    if certificate and key:
        return certificates.validate(certificates.CertificatePair(certificate, key))
    return certificates.load_or_create(certificates.default_folder()) if https else None


def _fingerprint(pair: "CertificatePair") -> str:
    from visor.app.certificate import certificate_fingerprint

    return certificate_fingerprint(pair.certificate)
