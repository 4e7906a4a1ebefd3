"""Who this node is: its name, key and certificate, and the authorities that it trusts.

Whether a peer is who it should be is told by :mod:`connectors.quic.verification`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from connectors.quic.certificates import (
    CertificateError,
    authority_certificate,
    node_file,
    node_name,
)
from connectors.quic.verification import (
    PeerRefused,
    outside_dates,
    request_client_certificate,
    verify_path,
)

log = logging.getLogger("braidflow.quic")


@dataclass(frozen=True, slots=True)
class _Material:
    """A certificate with its key, and the authorities that are trusted."""

    certificate: x509.Certificate
    chain: list[x509.Certificate]
    key: PrivateKeyTypes = field(repr=False)
    authorities: list[x509.Certificate]


_Seen = tuple[tuple[int, int, int], ...]
"""By which a changed file is told: modification time (ns), size, inode, of each file."""


class Identity:
    """A node's name, key and certificate, and the authority it trusts.

    The files are looked at again whenever a connection is made, so that a renewed certificate, or
    an authority added to ``ca.crt``, is used by the next connection without a restart; connections
    that are up are not touched. If the new files are unusable (half-written, a key that is not the
    certificate's, another authority's certificate) the old ones stay in use and the fault is
    logged once.

    Two identities are equal if they are the same node of the same directory.
    """

    __slots__ = ("_directory", "_fault", "_material", "_name", "_seen")

    def __init__(self, directory: Path, name: str, material: _Material, seen: _Seen) -> None:
        self._directory = directory
        self._name = name
        self._material = material
        self._seen = seen
        self._fault: _Seen | None = None

    @classmethod
    def load(cls, directory: Path, name: str) -> Self:
        """Read ``ca.crt`` and ``NAME.pem`` in `directory`.

        A certificate whose time has passed or not yet come is loaded, with a warning: peers will
        refuse it, until it is renewed.

        Raises:
            CertificateError: a file is missing, damaged, or does not fit the other.
            OSError: a file cannot be read.
        """
        node_name(name)
        # Not resolved: a directory may be renewed by pointing a symbolic link elsewhere.
        directory = directory.absolute()
        # Before reading: what changes while it is read is noticed at the next look.
        seen = _look(directory, name)
        identity = cls(directory, name, _read(directory, name), seen)
        identity._warn_of_dates()
        return identity

    @property
    def name(self) -> str:
        """The node's name."""
        return self._name

    @property
    def not_after(self) -> datetime:
        """When the certificate ends (UTC)."""
        return self._current().certificate.not_valid_after_utc

    @property
    def authorities(self) -> list[x509.Certificate]:
        """Whose certificates it trusts."""
        return self._current().authorities

    def client_configuration(self, *, server_name: str, alpn: str) -> QuicConfiguration:
        """Return the configuration of one connection to the node called `server_name`."""
        configuration = QuicConfiguration(
            is_client=True, alpn_protocols=[alpn], server_name=server_name
        )
        self._fill(configuration)
        return configuration

    def server_configuration(self, *, alpn: str) -> QuicConfiguration:
        """Return the configuration of a server, whose connections go through :meth:`accept`."""
        configuration = QuicConfiguration(is_client=False, alpn_protocols=[alpn])
        self._fill(configuration)
        return configuration

    def accept(self, connection: QuicConnection) -> None:
        """Prepare a connection that a server has just created.

        Its server shows the certificate that is now in the file, and asks for the client's.

        Raises:
            ValueError: the connection is a client's, or its handshake has begun.
        """
        request_client_certificate(connection)
        # The server's connections share the configuration, and read it as the handshake begins.
        self._fill(connection.configuration)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Identity):
            return NotImplemented
        return (self._directory, self._name) == (other._directory, other._name)

    def __hash__(self) -> int:
        return hash((self._directory, self._name))

    def __repr__(self) -> str:
        return f"Identity({str(self._directory)!r}, {self._name!r})"

    def _fill(self, configuration: QuicConfiguration) -> None:
        material = self._current()
        configuration.certificate = material.certificate
        configuration.certificate_chain = material.chain
        configuration.private_key = material.key
        configuration.cadata = b"".join(
            authority.public_bytes(Encoding.PEM) for authority in material.authorities
        )

    def _current(self) -> _Material:
        """Return what is in the files, or was when they were last usable."""
        seen: _Seen | None = None
        try:
            seen = _look(self._directory, self._name)
            if seen == self._seen:
                self._fault = None
            if seen in (self._seen, self._fault):
                return self._material
            material = _read(self._directory, self._name)
        except (OSError, CertificateError) as error:
            # A file that is missing altogether looks like nothing, and is reported once too.
            fault = seen or ()
            if fault != self._fault:
                log.warning("%s keeps the certificate it has: %s", self._name, error)
            self._fault = fault
            return self._material
        self._material, self._seen, self._fault = material, seen, None
        end = material.certificate.not_valid_after_utc
        log.info("%s has a new certificate, valid until %s", self._name, f"{end:%F %T} UTC")
        self._warn_of_dates()
        return material

    def _warn_of_dates(self) -> None:
        fault = outside_dates(self._material.certificate, datetime.now(UTC))
        if fault:
            log.warning("peers will refuse %s: %s", self._name, fault)


def _look(directory: Path, name: str) -> _Seen:
    paths = (authority_certificate(directory), node_file(directory, name))
    states = []
    for path in paths:
        try:
            state = path.stat()
        except FileNotFoundError:
            raise CertificateError(f"{path} is missing") from None
        states.append((state.st_mtime_ns, state.st_size, state.st_ino))
    return tuple(states)


def _read(directory: Path, name: str) -> _Material:
    """Read certificate, key and authorities, and check that they belong together."""
    path = authority_certificate(directory)
    try:
        authorities = x509.load_pem_x509_certificates(path.read_bytes())
        path = node_file(directory, name)
        data = path.read_bytes()
        certificate, *chain = x509.load_pem_x509_certificates(data)
        key = load_pem_private_key(_key_block(data), password=None)
    except FileNotFoundError:
        raise CertificateError(f"{path} is missing") from None
    except (TypeError, ValueError, x509.InvalidVersion):
        # The parser's own words may quote the file.
        raise CertificateError(f"{path} is damaged, incomplete or encrypted") from None
    if _public(certificate.public_key()) != _public(key.public_key()):
        raise CertificateError(f"{path}: the key is not the certificate's")
    now = datetime.now(UTC)
    if outside_dates(certificate, now):
        # Whether it was made for this node is told apart from whether its time has come.
        now = certificate.not_valid_before_utc
    try:
        found = verify_path(certificate, chain, authorities, now, of_server=False)
    except PeerRefused as error:
        raise CertificateError(f"{path}: {error}") from None
    if found != name:
        raise CertificateError(f"{path} is the certificate of {found}, not of {name}")
    return _Material(certificate, chain, key, authorities)


def _key_block(data: bytes) -> bytes:
    """Return what follows the certificates, for parsers that only look at the first block."""
    return data[data.rindex(b"-----END CERTIFICATE-----") :].partition(b"\n")[2]


def _public(key: object) -> bytes:
    encoded: bytes = key.public_bytes(  # type: ignore[attr-defined]
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    return encoded
