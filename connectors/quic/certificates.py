"""The cluster's certificate authority and the short-lived certificates of its nodes.

A directory of keys holds

- ``ca.crt``: the authority's certificate. Every node has a copy; it is no secret.
- ``ca.key``: the authority's key, mode 0600. Only where certificates are made.
- ``NAME.pem``: certificate and key of the node NAME, mode 0600. One file, so that a renewal is one
  rename and no process ever reads a key beside the certificate of another.

A node's name is the **first DNS name among its subject alternative names**. The common name is
there for people and never consulted (RFC 9525, 2: a common name has no type and TLS clients ignore
it), and the names of one certificate are a signed sequence (RFC 5280, 4.2.1.6), so that "the first"
is a matter of fact and a node has exactly one name whatever addresses it is also given.

Keys are ECDSA P-256. By default a node's certificate is valid for 14 days, the most that browsers
accept for a certificate pinned by its hash (WebTransport ``serverCertificateHashes``).
"""

from __future__ import annotations

import ipaddress
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NODE_LIFETIME = timedelta(days=14)
AUTHORITY_LIFETIME = timedelta(days=5 * 365)

_SKEW = timedelta(minutes=5)
"""Certificates are dated back, for nodes whose clocks are behind."""

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DNS_NAME = re.compile(rf"(?=.{{1,253}}\Z)(?:{_LABEL}\.)*(?=[0-9-]*[a-z]){_LABEL}")


class CertificateError(ValueError):
    """Keys or certificates cannot be made or read; the message names the file or name."""


@dataclass(frozen=True, slots=True)
class Issued:
    """What was written: whose certificate, in which file, until when it is valid."""

    name: str
    path: Path
    not_after: datetime


def authority_certificate(directory: Path) -> Path:
    """Return where the authority's certificate is."""
    return directory / "ca.crt"


def authority_key(directory: Path) -> Path:
    """Return where the authority's key is."""
    return directory / "ca.key"


def node_file(directory: Path, name: str) -> Path:
    """Return where a node's certificate and key are.

    Raises:
        CertificateError: `name` is not a name for a node.
    """
    return directory / f"{node_name(name)}.pem"


def node_name(name: str) -> str:
    """Return `name` if a node may be called so: a lower-case DNS name, of one label or more.

    The last label needs a letter, since TLS clients take anything else for an IP address.

    >>> node_name("region-1")
    'region-1'

    Raises:
        CertificateError: it may not.
    """
    if not _DNS_NAME.fullmatch(name):
        raise CertificateError(
            f"{name!r} cannot name a node: lower-case letters, digits and hyphens in labels "
            "joined by dots, with a letter in the last label"
        )
    return name


def node_names(directory: Path) -> list[str]:
    """Return the names of the nodes that have a file in `directory`, sorted."""
    names = (path.stem for path in directory.glob("*.pem"))
    return sorted(name for name in names if _DNS_NAME.fullmatch(name))


def make_authority(
    directory: Path, *, lifetime: timedelta = AUTHORITY_LIFETIME, now: datetime | None = None
) -> Issued:
    """Make a certificate authority in `directory`, which is created if missing.

    The authority can sign nodes but no further authority (path length 0). An existing authority is
    never replaced: all its nodes would be cut off.

    Args:
        directory: Where to write ``ca.crt`` and ``ca.key``.
        lifetime: How long the certificate is valid.
        now: The time of issue; by default the clock's.

    Raises:
        CertificateError: there is an authority, or a part of one, or `lifetime` is not positive.
        OSError: a file cannot be written.
    """
    start = _start(lifetime, now)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "braidflow cluster authority")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    directory.mkdir(parents=True, exist_ok=True)
    found = authority_certificate(directory)
    if found.exists():
        raise CertificateError(f"{found} exists: an authority is never replaced")
    _create(authority_key(directory), _key_pem(key), 0o600)
    _create(found, certificate.public_bytes(Encoding.PEM), 0o644)
    return Issued("ca", found, certificate.not_valid_after_utc)


def make_node(
    directory: Path,
    name: str,
    *,
    addresses: Sequence[str] | None = None,
    lifetime: timedelta = NODE_LIFETIME,
    now: datetime | None = None,
) -> Issued:
    """Make the key and certificate of a node, or renew them in one step.

    A renewed node gets a new key. Processes that read the file see the old pair or the new one.

    Args:
        directory: Where the authority is and ``NAME.pem`` goes.
        name: The node's name: see :func:`node_name`.
        addresses: Further DNS names and IP addresses under which clients that know nothing of node
            names (browsers) reach it; they are no names of the node. By default those of the
            certificate that is renewed, if any.
        lifetime: How long the certificate is valid, but not longer than the authority's.
        now: The time of issue; by default the clock's.

    Raises:
        CertificateError: `name` or an address is malformed; there is no authority, or it has
            expired, or its files are damaged.
        OSError: a file cannot be read or written.
    """
    path = node_file(directory, name)
    start = _start(lifetime, now)
    issuer, issuer_key = _read_authority(directory)
    end = min(start + lifetime, issuer.not_valid_after_utc)
    if end <= start + _SKEW:
        raise CertificateError(
            f"{authority_certificate(directory)} expired on {issuer.not_valid_after_utc:%F %T} UTC"
        )
    if addresses is None:
        others = _addresses(path)
    else:
        others = [_general_name(address) for address in addresses]
    names: list[x509.GeneralName] = [x509.DNSName(name)]
    names += [other for other in dict.fromkeys(others) if other not in names]
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
            ),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
        .sign(issuer_key, hashes.SHA256())
    )
    _replace(path, certificate.public_bytes(Encoding.PEM) + _key_pem(key))
    return Issued(name, path, certificate.not_valid_after_utc)


def _start(lifetime: timedelta, now: datetime | None) -> datetime:
    if lifetime <= _SKEW:
        raise CertificateError(f"a lifetime of {lifetime} is too short: more than {_SKEW}")
    return (now or datetime.now(UTC)).replace(microsecond=0) - _SKEW


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        pass
    if not _DNS_NAME.fullmatch(address):
        raise CertificateError(f"{address!r} is neither a DNS name nor an IP address")
    return x509.DNSName(address)


def _addresses(path: Path) -> list[x509.GeneralName]:
    """Return the names but the first in an earlier certificate."""
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except FileNotFoundError:
        return []
    except (ValueError, x509.InvalidVersion, x509.DuplicateExtension, x509.ExtensionNotFound):
        raise CertificateError(
            f"{path} is damaged: it cannot be renewed, only removed and made anew"
        ) from None
    return list(names.value)[1:]


def _read_authority(directory: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    path = authority_certificate(directory)
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        path = authority_key(directory)
        key = load_pem_private_key(path.read_bytes(), password=None)
    except FileNotFoundError:
        raise CertificateError(f"{path} is missing: no authority to sign with") from None
    except (TypeError, ValueError):
        # The parser's own words may quote the file.
        raise CertificateError(f"{path} is damaged or encrypted") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or (
        key.public_key() != certificate.public_key()
    ):
        raise CertificateError(f"{path} is not the key of {authority_certificate(directory)}")
    return certificate, key


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _create(path: Path, data: bytes, mode: int) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise CertificateError(f"{path} exists: an authority is never replaced") from None
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(handle)


def _replace(path: Path, data: bytes) -> None:
    # A name of its own for each writer, readable for its owner only from the first byte on.
    handle, new = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(handle)
        Path(new).replace(path)
    except BaseException:
        Path(new).unlink(missing_ok=True)
        raise
