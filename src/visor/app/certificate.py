"""TLS certificates: the user's own, or a self-signed one that is created when it is first needed.

A browser warns about a self-signed certificate once. Comparing its fingerprint with the one that ``visor app`` prints
rules out a machine in the middle.
"""

import contextlib
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
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from visor.core.errors import UserError
from visor.core.files import atomic_write

T = TypeVar("T")
DAYS = 397  # browsers accept no longer validity
RENEWAL_MARGIN = datetime.timedelta(days=1)  # before the end of validity
PEM, UTC = serialization.Encoding.PEM, datetime.timezone.utc


class CertificatePair(NamedTuple):
    """PEM files of a certificate and its key."""

    certificate: Path
    key: Path


def default_folder() -> Path:
    """Return the folder of the self-signed certificate, in the user's configuration."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "visor"


def load_or_create(folder: Path, now: datetime.datetime | None = None) -> CertificatePair:
    """Return the self-signed pair in ``folder``, a new one if it is missing, damaged or expired at ``now``.

    Raises:
        UserError: It cannot be written.
    """
    now = now or datetime.datetime.now(UTC)
    pair = CertificatePair(folder / "app-certificate.pem", folder / "app-key.pem")
    with contextlib.suppress(UserError):
        return validate(pair, now + RENEWAL_MARGIN)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _create(pair, now)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"cannot store the certificate in {folder} ({reason}); fix the permissions or pass --certificate"
        ) from None
    return pair


def validate(pair: CertificatePair, now: datetime.datetime | None = None) -> CertificatePair:
    """Return a pair of files that belong together and are valid at ``now``.

    Raises:
        UserError: A file is missing, not PEM or encrypted, the key is of another certificate, or it is not valid now.
    """
    certificate = _read(pair.certificate, "certificate", x509.load_pem_x509_certificate)
    key = _read(pair.key, "key", lambda content: serialization.load_pem_private_key(content, None))
    if key.public_key() != certificate.public_key():
        raise UserError(f"{pair.key} is not the key of {pair.certificate}; pass two files that belong together")
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not start <= (now or datetime.datetime.now(UTC)) < end:
        validity = f"from {start:%Y-%m-%d} to {end:%Y-%m-%d}"
        raise UserError(f"{pair.certificate} is valid {validity}; renew it, or correct this machine's clock")
    return pair


def certificate_fingerprint(path: Path) -> str:
    """Return the SHA-256 fingerprint of a certificate as browsers show it."""
    return x509.load_pem_x509_certificate(path.read_bytes()).fingerprint(hashes.SHA256()).hex(":").upper()


def local_hostnames() -> list[str]:
    """Return the names and addresses of this machine."""
    addresses = {"127.0.0.1", "::1"}
    for interface in psutil.net_if_addrs().values():
        addresses |= {entry.address for entry in interface if entry.family in (socket.AF_INET, socket.AF_INET6)}
    names = ("localhost", socket.gethostname().lower(), *sorted(addresses))
    return [name for name in dict.fromkeys(names) if name.isascii() and "%" not in name]  # %: link-local


def certificate_hostnames(path: Path) -> list[str]:
    """Return the names and addresses that a certificate is for."""
    extensions = x509.load_pem_x509_certificate(path.read_bytes()).extensions
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value).lower() for name in names if isinstance(name, (x509.DNSName, x509.IPAddress))]


def _read(path: Path, kind: str, load: Callable[[bytes], T]) -> T:
    try:
        return load(path.read_bytes())
    except OSError as error:
        raise UserError(f"--{kind} {path} cannot be read ({error.strerror}); pass a PEM file") from None
    except TypeError:
        raise UserError(f"--{kind} {path} is encrypted with a password; pass an unencrypted PEM file") from None
    except ValueError:
        raise UserError(f"--{kind} {path} is not a {kind} in PEM format; pass a PEM file") from None


def _create(pair: CertificatePair, now: datetime.datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Visor on this machine")])
    key_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))  # clocks differ
        .not_valid_after(now + datetime.timedelta(days=DAYS) - RENEWAL_MARGIN)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in local_hostnames()]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(key_id, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id), critical=False)
        .sign(key, hashes.SHA256())
    )
    key_pem = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    for path, content in ((pair.key, key_pem), (pair.certificate, certificate.public_bytes(PEM))):
        with atomic_write(path, private=True) as temporary:
            temporary.write_bytes(content)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
