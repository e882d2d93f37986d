"""The certificate of HTTPS: one that the user has, or a self-signed one that is made when it is first needed.

Nobody vouches for a self-signed certificate: a browser warns once. Whoever compares its fingerprint with the one that
``visor app`` prints knows that nobody listens in between.
"""

import datetime
import ipaddress
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import psutil
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from visor.core.errors import UserError
from visor.core.files import atomic_write

DAYS = 397  # browsers believe no longer ones
Read = TypeVar("Read")
RENEWAL_MARGIN = datetime.timedelta(days=1)  # a certificate that expires within it is made anew


class CertificatePair(NamedTuple):
    """The files of a certificate and its key, PEM."""

    certificate: Path
    key: Path


def default_folder() -> Path:
    """Return where the certificate that is made here is kept: visor in the user's folder of settings."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "visor"


def load_or_create(folder: Path, now: datetime.datetime | None = None) -> CertificatePair:
    """Return the self-signed pair in ``folder``; it is made if there is none, or none that is whole and valid ``now``.

    Raises:
        UserError: it cannot be written.
    """
    moment = now or datetime.datetime.now(datetime.timezone.utc)
    pair = CertificatePair(folder / "app-certificate.pem", folder / "app-key.pem")
    try:
        if validate(pair, moment + RENEWAL_MARGIN):
            return pair
    except UserError:
        pass
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make(pair, moment)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"{folder} cannot hold a certificate ({reason}); mend that, or name one by --certificate"
        ) from None
    return pair


def validate(pair: CertificatePair, now: datetime.datetime | None = None) -> CertificatePair:
    """Return a pair of files after a look into them.

    Raises:
        UserError: a file is missing or no PEM, the key is locked or another certificate's, or the time is up.
    """
    moment = now or datetime.datetime.now(datetime.timezone.utc)
    certificate = _read(pair.certificate, "certificate", x509.load_pem_x509_certificate)
    key = _read(pair.key, "key", lambda content: serialization.load_pem_private_key(content, None))
    if _public(key.public_key()) != _public(certificate.public_key()):
        raise UserError(f"{pair.key} is not the key of {pair.certificate}; name the two that belong together")
    if not certificate.not_valid_before_utc <= moment < certificate.not_valid_after_utc:
        raise UserError(
            f"{pair.certificate} is valid from {certificate.not_valid_before_utc:%Y-%m-%d} to "
            f"{certificate.not_valid_after_utc:%Y-%m-%d}; renew it, or correct this machine's clock"
        )
    return pair


def certificate_fingerprint(path: Path) -> str:
    """Return the SHA-256 fingerprint of a certificate as browsers show it."""
    return x509.load_pem_x509_certificate(path.read_bytes()).fingerprint(hashes.SHA256()).hex(":").upper()


def local_hostnames() -> list[str]:
    """Return what this machine is called: its names and addresses."""
    addresses = {"127.0.0.1", "::1"}
    for interface in psutil.net_if_addrs().values():
        addresses |= {one.address for one in interface if one.family in (socket.AF_INET, socket.AF_INET6)}
    names = ("localhost", socket.gethostname().lower(), *sorted(addresses))
    return [name for name in dict.fromkeys(names) if name.isascii() and "%" not in name]  # %: on one interface alone


def certificate_hostnames(path: Path) -> list[str]:
    """Return the names and addresses that a certificate is for."""
    found = x509.load_pem_x509_certificate(path.read_bytes()).extensions
    try:
        names = found.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value).lower() for name in names if isinstance(name, (x509.DNSName, x509.IPAddress))]


def _read(path: Path, kind: str, load: Callable[[bytes], Read]) -> Read:
    try:
        return load(path.read_bytes())
    except OSError as error:
        raise UserError(f"--{kind} {path} cannot be read ({error.strerror}); name a PEM file") from None
    except TypeError:
        raise UserError(f"--{kind} {path} is locked by a password; name an unlocked PEM file") from None
    except ValueError:
        raise UserError(f"--{kind} {path} is no {kind} in PEM; name a PEM file") from None


def _make(pair: CertificatePair, moment: datetime.datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Visor on this machine")])
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - datetime.timedelta(hours=1))  # clocks differ
        .not_valid_after(moment + datetime.timedelta(days=DAYS) - RENEWAL_MARGIN)
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in local_hostnames()]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(own, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own), critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for path, content in ((pair.key, secret), (pair.certificate, certificate.public_bytes(serialization.Encoding.PEM))):
        with atomic_write(path) as temporary:
            temporary.touch(mode=0o600)  # before there is anything in it to read
            temporary.write_bytes(content)


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _public(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
