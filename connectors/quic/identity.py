"""Who this node is, and whether a peer is who it should be: mutual TLS for aioquic.

aioquic's server does not ask clients for certificates, and when it is made to, it checks that the
client has the certificate's key but not who signed it. aioquic's client checks dates, name and
signatures, but not what a certificate is for. So both ends call :func:`verify_peer` when the
handshake has completed, and use nothing that the peer sent until it has returned::

    configuration = identity.server_configuration(alpn="braidflow/1")

    def create_protocol(quic, **rest):         # what aioquic calls for each new connection
        identity.accept(quic)
        return Link(quic, **rest)

    class Link(QuicConnectionProtocol):
        def quic_event_received(self, event):
            if isinstance(event, HandshakeCompleted):
                try:
                    peer = verify_peer(self._quic, identity, {"leaf-1"}, datetime.now(UTC))
                except PeerRefused as error:
                    self.close(error_code=1, reason_phrase=str(error))

Sessions are never resumed (a resumed session shows no certificate), so there is no 0-RTT data,
which could be replayed.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.tls import AlertBadCertificate, Certificate
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import (
    PolicyBuilder,
    Store,
    VerificationError,
)

from connectors.quic.certificates import (
    CertificateError,
    authority_certificate,
    node_file,
    node_name,
)

log = logging.getLogger("braidflow.quic")

_UNREADABLE = (
    ValueError,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.UnsupportedGeneralNameType,
)
"""What reading a certificate's fields raises when they are malformed."""


class PeerRefused(Exception):
    """The peer may not connect; the message says why and is fit for the peer to read."""


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """A verified peer: its name, and when its certificate ends (UTC)."""

    name: str
    not_after: datetime


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
        fault = _outside_dates(self._material.certificate, datetime.now(UTC))
        if fault:
            log.warning("peers will refuse %s: %s", self._name, fault)


def verify_peer(
    connection: QuicConnection,
    identity: Identity,
    allowed: Collection[str] | None,
    now: datetime,
) -> PeerCertificate:
    """Check who is at the other end of a connection whose handshake has completed.

    The certificate's path must end at one of the authorities that `identity` trusts, as RFC 5280
    and the CA/Browser Forum's profile define it: signatures, dates of each certificate, authorities
    that may be authorities and at that depth, no unknown critical extension. The certificate must
    be meant for the peer's role (client or server), and its first DNS name, the peer's name, be
    among the `allowed`.

    Args:
        connection: Of a client or of a server.
        identity: Whose authorities count.
        allowed: The names that may connect; None for every name that the authority has signed.
        now: The time at which certificates must be valid, with a time zone.

    Raises:
        PeerRefused: it is not one that may connect.
    """
    tls = connection.tls
    certificate = tls._peer_certificate
    if tls.session_resumed:
        raise PeerRefused("a resumed session: it shows no certificate")
    if certificate is None:
        raise PeerRefused("no certificate")
    name = _verify(
        certificate,
        tls._peer_certificate_chain,
        identity._current().authorities,
        now,
        of_server=connection.configuration.is_client,
    )
    if allowed is not None and name not in allowed:
        raise PeerRefused(f"{name} is not a node that may connect here")
    return PeerCertificate(name, certificate.not_valid_after_utc)


def request_client_certificate(connection: QuicConnection) -> None:
    """Make a server's connection ask its client for a certificate.

    aioquic then requires a proof of its key if the client sends one, and nothing more. There is no
    public way to ask; the flag is that of aioquic's own tests, on a TLS context that exists only
    from the first packet on. A certificate of an unknown X.509 version, which aioquic would let
    escape into the event loop as an error, ends the handshake as unreadable ones do.

    Raises:
        ValueError: the connection is a client's, or its handshake has begun.
    """
    if connection.configuration.is_client:
        raise ValueError("a client's connection: servers show their certificates unasked")
    if hasattr(connection, "tls"):
        raise ValueError("the handshake has begun: ask when the connection is created")
    initialize = connection._initialize

    def initialize_and_ask(peer_cid: bytes) -> None:
        initialize(peer_cid)
        tls = connection.tls
        tls._request_client_certificate = True
        take = tls._set_peer_certificate

        def take_or_refuse(certificate: Certificate) -> None:
            try:
                take(certificate)
            except x509.InvalidVersion as error:
                raise AlertBadCertificate("Certificate has an unknown version") from error

        tls._set_peer_certificate = take_or_refuse  # type: ignore[method-assign]

    connection._initialize = initialize_and_ask  # type: ignore[method-assign]


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
    if _outside_dates(certificate, now):
        # Whether it was made for this node is told apart from whether its time has come.
        now = certificate.not_valid_before_utc
    try:
        found = _verify(certificate, chain, authorities, now, of_server=False)
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


def _outside_dates(certificate: x509.Certificate, now: datetime) -> str | None:
    if now < certificate.not_valid_before_utc:
        return f"the certificate is not valid before {certificate.not_valid_before_utc:%F %T} UTC"
    if now > certificate.not_valid_after_utc:
        return f"the certificate expired on {certificate.not_valid_after_utc:%F %T} UTC"
    return None


def _verify(
    certificate: x509.Certificate,
    chain: list[x509.Certificate],
    authorities: list[x509.Certificate],
    now: datetime,
    *,
    of_server: bool,
) -> str:
    """Return the first DNS name of a certificate that verifies.

    Raises:
        PeerRefused: it does not, or has no name.
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        name = node_name(names.value.get_values_for_type(x509.DNSName)[0])
    except (*_UNREADABLE, IndexError):
        raise PeerRefused("the certificate names no node") from None
    # The verifier would let a certificate pass that does not say what it is for.
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        usage = x509.ExtendedKeyUsage([])
    role = ExtendedKeyUsageOID.SERVER_AUTH if of_server else ExtendedKeyUsageOID.CLIENT_AUTH
    if role not in usage:
        what = "server" if of_server else "client"
        raise PeerRefused(f"the certificate is not meant for a {what}")
    policy = PolicyBuilder().store(Store(authorities)).time(now)
    try:
        if of_server:
            policy.build_server_verifier(x509.DNSName(name)).verify(certificate, chain)
        else:
            policy.build_client_verifier().verify(certificate, chain)
    except (VerificationError, *_UNREADABLE) as error:
        raise PeerRefused(_outside_dates(certificate, now) or _in_short(error)) from None
    return name


def _in_short(error: Exception) -> str:
    # The verifier appends the subject, which is whatever the peer wrote there.
    detail = str(error).partition(" (encountered")[0].rpartition("exhausted: ")[2]
    return f"no valid path to the cluster's authority: {detail.removeprefix('validation failed: ')}"
