"""Whether a peer is who it should be: mutual TLS for aioquic.

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
                now = datetime.now(UTC)
                try:
                    peer = verify_peer(self._quic, identity.authorities, {"leaf-1"}, now)
                except PeerRefused as error:
                    self.close(error_code=1, reason_phrase=str(error))

Sessions are never resumed (a resumed session shows no certificate), so there is no 0-RTT data,
which could be replayed.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from aioquic.quic.connection import QuicConnection
from aioquic.tls import AlertBadCertificate, Certificate
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from connectors.quic.certificates import node_name

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


def verify_peer(
    connection: QuicConnection,
    authorities: list[x509.Certificate],
    allowed: Collection[str] | None,
    now: datetime,
) -> PeerCertificate:
    """Check who is at the other end of a connection whose handshake has completed.

    The certificate's path must end at one of the `authorities`, as RFC 5280 and the CA/Browser
    Forum's profile define it: signatures, dates of each certificate, authorities that may be
    authorities and at that depth, no unknown critical extension. The certificate must be meant for
    the peer's role (client or server), and its first DNS name, the peer's name, be among the
    `allowed`.

    Args:
        connection: Of a client or of a server.
        authorities: Those that are trusted.
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
    name = verify_path(
        certificate,
        tls._peer_certificate_chain,
        authorities,
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


def verify_path(
    certificate: x509.Certificate,
    chain: list[x509.Certificate],
    authorities: list[x509.Certificate],
    now: datetime,
    *,
    of_server: bool,
) -> str:
    """Return the first DNS name of a certificate that verifies, for a server or for a client.

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
        raise PeerRefused(outside_dates(certificate, now) or _in_short(error)) from None
    return name


def outside_dates(certificate: x509.Certificate, now: datetime) -> str | None:
    """Return in words that it is too early or too late for a certificate; None if it is not."""
    if now < certificate.not_valid_before_utc:
        return f"the certificate is not valid before {certificate.not_valid_before_utc:%F %T} UTC"
    if now > certificate.not_valid_after_utc:
        return f"the certificate expired on {certificate.not_valid_after_utc:%F %T} UTC"
    return None


def _in_short(error: Exception) -> str:
    # The verifier appends the subject, which is whatever the peer wrote there.
    detail = str(error).partition(" (encountered")[0].rpartition("exhausted: ")[2]
    return f"no valid path to the cluster's authority: {detail.removeprefix('validation failed: ')}"
