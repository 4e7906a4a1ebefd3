"""Mutual TLS over real connections, and each way in which a peer is not who it should be."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted, QuicEvent
from aioquic.tls import AlertDescription, Context, SessionTicket
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

from connectors.quic.certificates import CertificateError, make_authority, make_node
from connectors.quic.identity import Identity
from connectors.quic.verification import (
    PeerCertificate,
    PeerRefused,
    request_client_certificate,
    verify_peer,
)

ALPN = "identity-test"
NOW = datetime.now(UTC)
CLIENT_AUTH, SERVER_AUTH = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
LOGGER = "braidflow.quic"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of keys with a server and two leaves."""
    directory = tmp_path_factory.mktemp("keys")
    make_authority(directory)
    for name in ("root", "leaf-1", "leaf-2"):
        make_node(directory, name)
    return directory


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The keys of another cluster, with nodes of the same names."""
    directory = tmp_path_factory.mktemp("others")
    make_authority(directory)
    for name in ("root", "leaf-1"):
        make_node(directory, name)
    return directory


@dataclass
class Seen:
    """What the two ends of one connection saw."""

    at_server: list[PeerCertificate | str] = field(default_factory=list)
    at_client: list[PeerCertificate | str] = field(default_factory=list)
    ended: tuple[int, str] | None = None
    serial: int = 0
    """The serial number of the certificate that the server showed."""


class Verifying(QuicConnectionProtocol):
    """Verify the peer as the links do, and note what happened."""

    def __init__(
        self,
        quic: QuicConnection,
        *,
        identity: Identity,
        allowed: Collection[str] | None,
        noted: list[PeerCertificate | str],
        **rest: Any,
    ) -> None:
        super().__init__(quic, **rest)
        self.identity, self.allowed, self.noted = identity, allowed, noted
        self.decided = asyncio.Event()
        self.ended: ConnectionTerminated | None = None

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, HandshakeCompleted):
            try:
                peer = verify_peer(
                    self._quic, self.identity.authorities, self.allowed, datetime.now(UTC)
                )
            except PeerRefused as error:
                self.noted.append(str(error))
                self.close(error_code=1, reason_phrase=str(error))
            else:
                self.noted.append(peer)
            self.decided.set()
        elif isinstance(event, ConnectionTerminated):
            self.ended = event


async def meet(
    server: Identity,
    clients: Sequence[Identity | QuicConfiguration],
    *,
    allowed: Collection[str] | None = None,
    expected: str | None = None,
    between: Callable[[], None] = lambda: None,
) -> list[Seen]:
    """Let clients connect to a server one after another; call `between` after each."""
    current = Seen()

    def accept(quic: QuicConnection, **rest: Any) -> Verifying:
        server.accept(quic)
        return Verifying(quic, identity=server, allowed=allowed, noted=current.at_server, **rest)

    listening = await serve(
        "127.0.0.1",
        0,
        configuration=server.server_configuration(alpn=ALPN),
        create_protocol=accept,
    )
    assert listening._transport is not None
    port = listening._transport.get_extra_info("sockname")[1]
    meetings = []
    try:
        for client in clients:
            current = Seen()
            await _call(port, server, client, expected or server.name, current)
            meetings.append(current)
            between()
    finally:
        listening.close()
    return meetings


async def _call(
    port: int,
    server: Identity,
    client: Identity | QuicConfiguration,
    expected: str,
    current: Seen,
) -> None:
    if isinstance(client, Identity):
        identity = client
        configuration = client.client_configuration(server_name=expected, alpn=ALPN)
    else:
        identity, configuration = server, client

    def create(quic: QuicConnection, **rest: Any) -> Verifying:
        return Verifying(
            quic, identity=identity, allowed=[expected], noted=current.at_client, **rest
        )

    connecting = connect(
        "127.0.0.1",
        port,
        configuration=configuration,
        create_protocol=create,
        wait_connected=False,
    )
    async with asyncio.timeout(10), connecting as protocol:
        assert isinstance(protocol, Verifying)
        protocol.transmit()
        try:
            await protocol.wait_connected()
            await protocol.decided.wait()
            shown = protocol._quic.tls._peer_certificate
            assert shown is not None
            current.serial = shown.serial_number
            # The answer to a ping comes after the server's verdict, or the end does.
            await protocol.ping()
        except ConnectionError:
            await protocol.wait_closed()
    if protocol.ended is not None:
        current.ended = protocol.ended.error_code, protocol.ended.reason_phrase


def one(server: Identity, client: Identity | QuicConfiguration, **rest: Any) -> Seen:
    return asyncio.run(meet(server, [client], **rest))[0]


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def read_pair(certificate: Path, key: Path) -> Pair:
    found = load_pem_private_key(key.read_bytes().split(b"CERTIFICATE-----\n")[-1], None)
    assert isinstance(found, ec.EllipticCurvePrivateKey)
    return Pair(x509.load_pem_x509_certificate(certificate.read_bytes()), found)


def forge(
    issuer: Pair | None,
    *names: str | x509.GeneralName,
    authority: bool = False,
    usage: Sequence[x509.ObjectIdentifier] = (CLIENT_AUTH, SERVER_AUTH),
) -> Pair:
    """Make a certificate that `make_node` would not; without an issuer it signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "leaf-1")])
    signing = issuer.key if issuer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(hours=1))
        .not_valid_after(NOW + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(authority, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()),
            critical=False,
        )
    )
    if authority:
        signs = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = builder.add_extension(signs, critical=True)
    if names:
        general = [x509.DNSName(name) if isinstance(name, str) else name for name in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
    if usage:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
    return Pair(builder.sign(signing, hashes.SHA256()), key)


def showing(
    identity: Identity, pair: Pair | None, *chain: x509.Certificate, server_name: str = "root"
) -> QuicConfiguration:
    """Return a client's configuration that shows what `identity` would not."""
    configuration = identity.client_configuration(server_name=server_name, alpn=ALPN)
    configuration.certificate = pair and pair.certificate
    configuration.private_key = pair and pair.key
    configuration.certificate_chain = list(chain)
    return configuration


class TestConnections:
    def test_both_ends_learn_who_the_other_is(self, keys: Path) -> None:
        root, leaf = Identity.load(keys, "root"), Identity.load(keys, "leaf-1")
        seen = one(root, leaf, allowed={"leaf-1", "leaf-2"})
        assert seen.at_server == [PeerCertificate("leaf-1", leaf.not_after)]
        assert seen.at_client == [PeerCertificate("root", root.not_after)]
        assert seen.ended == (0, "")

    def test_without_a_list_every_node_may_connect(self, keys: Path) -> None:
        leaf = Identity.load(keys, "leaf-2")
        assert one(Identity.load(keys, "root"), leaf).at_server == [
            PeerCertificate("leaf-2", leaf.not_after)
        ]

    def test_an_intermediate_authority_vouches_if_the_root_allows_it(self, tmp_path: Path) -> None:
        # A user's own authority: ours allows none below it.
        top = forge(None, authority=True, usage=())
        middle = forge(top, authority=True, usage=())
        nodes = {name: forge(middle, name) for name in ("root", "leaf-1")}
        (tmp_path / "ca.crt").write_bytes(top.certificate.public_bytes(Encoding.PEM))
        for name, pair in nodes.items():
            chain = [pair.certificate, middle.certificate]
            (tmp_path / f"{name}.pem").write_bytes(
                b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain)
                + pair.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            )
        seen = one(Identity.load(tmp_path, "root"), Identity.load(tmp_path, "leaf-1"))
        ends = seen.at_server + seen.at_client
        assert [isinstance(end, PeerCertificate) and end.name for end in ends] == ["leaf-1", "root"]


class TestClientsRefused:
    """Each is told why, in the words that the server has for its log."""

    def refuse(self, keys: Path, client: Identity | QuicConfiguration, reason: str) -> None:
        seen = one(Identity.load(keys, "root"), client, allowed={"leaf-1"})
        assert len(seen.at_server) == 1
        assert reason in str(seen.at_server[0])
        assert seen.ended == (1, seen.at_server[0])

    def test_of_another_authority(self, keys: Path, others: Path) -> None:
        stranger = Identity.load(others, "leaf-1").client_configuration(
            server_name="root", alpn=ALPN
        )
        stranger.cadata = (keys / "ca.crt").read_bytes()
        self.refuse(keys, stranger, "signature does not match")

    def test_without_a_certificate(self, keys: Path) -> None:
        self.refuse(keys, showing(Identity.load(keys, "leaf-1"), None), "no certificate")

    def test_whose_name_is_not_on_the_list(self, keys: Path) -> None:
        self.refuse(
            keys, Identity.load(keys, "leaf-2"), "leaf-2 is not a node that may connect here"
        )

    @pytest.mark.parametrize(
        ("issued", "reason"), [(-20, "expired on 2"), (1, "is not valid before 2")]
    )
    def test_at_the_wrong_time(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, issued: int, reason: str
    ) -> None:
        make_authority(tmp_path, now=NOW - timedelta(days=30))
        make_node(tmp_path, "root")
        make_node(tmp_path, "leaf-1", now=NOW + timedelta(days=issued))
        leaf = Identity.load(tmp_path, "leaf-1")
        assert f"peers will refuse leaf-1: the certificate {reason}" in caplog.text
        self.refuse(tmp_path, leaf, reason)

    def test_with_a_certificate_that_nobody_signed(self, keys: Path) -> None:
        self.refuse(
            keys,
            showing(Identity.load(keys, "leaf-1"), forge(None, "leaf-1")),
            "no valid path to the cluster's authority",
        )

    def test_signed_by_a_node(self, keys: Path) -> None:
        leaf = Identity.load(keys, "leaf-1")
        node = read_pair(keys / "leaf-2.pem", keys / "leaf-2.pem")
        forged = forge(node, "leaf-1")
        self.refuse(
            keys,
            showing(leaf, forged, node.certificate),
            "basicConstraints.cA must be asserted in a CA",
        )

    def test_signed_by_an_authority_below_ours(self, keys: Path) -> None:
        leaf = Identity.load(keys, "leaf-1")
        middle = forge(read_pair(keys / "ca.crt", keys / "ca.key"), authority=True, usage=())
        forged = forge(middle, "leaf-1")
        self.refuse(
            keys, showing(leaf, forged, middle.certificate), "path length constraint violated"
        )

    def test_that_is_the_authority(self, keys: Path) -> None:
        authority = read_pair(keys / "ca.crt", keys / "ca.key")
        leaf = Identity.load(keys, "leaf-1")
        self.refuse(keys, showing(leaf, authority), "the certificate names no node")

    def test_that_may_sign_others(self, keys: Path) -> None:
        forged = forge(read_pair(keys / "ca.crt", keys / "ca.key"), "leaf-1", authority=True)
        self.refuse(
            keys,
            showing(Identity.load(keys, "leaf-1"), forged),
            "basicConstraints.cA must not be asserted",
        )

    @pytest.mark.parametrize("usage", [(), (SERVER_AUTH,)])
    def test_with_a_certificate_for_something_else(
        self, keys: Path, usage: tuple[x509.ObjectIdentifier, ...]
    ) -> None:
        forged = forge(read_pair(keys / "ca.crt", keys / "ca.key"), "leaf-1", usage=usage)
        self.refuse(keys, showing(Identity.load(keys, "leaf-1"), forged), "not meant for a client")

    @pytest.mark.parametrize(
        "names",
        [
            (),
            (x509.IPAddress(ip_address("127.0.0.1")),),
            (x509.UniformResourceIdentifier("spiffe://leaf-1"),),
            ("*.leaf-1",),
            ("leaf-1\n[forged log line]",),
        ],
    )
    def test_without_a_nodes_name(
        self, keys: Path, names: tuple[str | x509.GeneralName, ...]
    ) -> None:
        forged = forge(read_pair(keys / "ca.crt", keys / "ca.key"), *names)
        self.refuse(
            keys, showing(Identity.load(keys, "leaf-1"), forged), "the certificate names no node"
        )

    @pytest.mark.parametrize(
        ("found", "put", "reason"),
        [
            ("300a06082a8648ce3d040302", "3000", "Certificate could not be parsed"),
            ("a003020102", "a003020103", "Certificate has an unknown version"),
            ("06082a8648ce3d030107", "06082a8648ce3d030109", "unsupported key type"),
            ("0603551d11", "0603551d13", "the certificate names no node"),  # an extension twice
        ],
    )
    def test_with_an_unreadable_certificate(
        self, keys: Path, found: str, put: str, reason: str
    ) -> None:
        leaf = Identity.load(keys, "leaf-1")
        configuration = leaf.client_configuration(server_name="root", alpn=ALPN)
        encoded: bytes = configuration.certificate.public_bytes(Encoding.DER)
        assert bytes.fromhex(found) in encoded

        class Damaged:
            def public_bytes(self, encoding: Encoding) -> bytes:
                return encoded.replace(bytes.fromhex(found), bytes.fromhex(put))

        configuration.certificate = Damaged()
        first, second = asyncio.run(meet(Identity.load(keys, "root"), [configuration, leaf]))
        assert first.ended is not None
        assert first.ended[0] > 0
        assert reason in first.ended[1]
        assert second.at_server == [PeerCertificate("leaf-1", leaf.not_after)]

    def test_whose_second_name_is_on_the_list(self, keys: Path) -> None:
        authority = read_pair(keys / "ca.crt", keys / "ca.key")
        forged = forge(authority, "leaf-9", "leaf-1")
        self.refuse(keys, showing(Identity.load(keys, "leaf-1"), forged), "leaf-9 is not a node")


class TestServersRefused:
    def test_of_another_authority(self, keys: Path, others: Path) -> None:
        seen = one(Identity.load(others, "root"), Identity.load(keys, "leaf-1"))
        assert seen.ended is not None
        code, reason = seen.ended
        assert code == 0x100 + AlertDescription.bad_certificate
        assert reason
        assert not seen.at_client
        assert not seen.at_server  # nor did it learn who the client is

    def test_that_is_another_node(self, keys: Path) -> None:
        leaf = Identity.load(keys, "leaf-1")
        configuration = leaf.client_configuration(server_name="leaf-2", alpn=ALPN)
        seen = one(Identity.load(keys, "root"), configuration)
        assert seen.ended is not None
        assert "leaf-2" in seen.ended[1]

    def test_that_has_the_nodes_name_as_an_address(self, keys: Path, tmp_path: Path) -> None:
        copytree(keys, tmp_path, dirs_exist_ok=True)
        make_node(tmp_path, "leaf-2", addresses=["root"])
        client = Identity.load(keys, "leaf-1").client_configuration(server_name="root", alpn=ALPN)
        impostor = Identity.load(tmp_path, "leaf-2")
        seen = one(impostor, client, expected="root")
        assert seen.at_client == ["leaf-2 is not a node that may connect here"]

    def test_with_a_clients_certificate(self, keys: Path, tmp_path: Path) -> None:
        # aioquic itself lets this one pass.
        forged = forge(read_pair(keys / "ca.crt", keys / "ca.key"), "root", usage=(CLIENT_AUTH,))
        copytree(keys, tmp_path, dirs_exist_ok=True)
        (tmp_path / "root.pem").write_bytes(
            forged.certificate.public_bytes(Encoding.PEM)
            + forged.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        seen = one(Identity.load(tmp_path, "root"), Identity.load(keys, "leaf-1"))
        assert len(seen.at_client) == 1
        assert "not meant for a server" in str(seen.at_client[0])

    def test_that_resumes_a_session(self, keys: Path) -> None:
        root, leaf = Identity.load(keys, "root"), Identity.load(keys, "leaf-1")
        tickets: dict[bytes, SessionTicket] = {}
        kept: list[SessionTicket] = []

        def keep(ticket: SessionTicket) -> None:
            tickets[ticket.ticket] = ticket

        async def resume() -> list[PeerCertificate | str]:
            noted: list[PeerCertificate | str] = []
            server = await serve(
                "127.0.0.1",
                0,
                configuration=root.server_configuration(alpn=ALPN),
                session_ticket_fetcher=tickets.get,
                session_ticket_handler=keep,
            )
            assert server._transport is not None
            for _ in range(2):
                configuration = leaf.client_configuration(server_name="root", alpn=ALPN)
                configuration.session_ticket = kept[0] if kept else None
                async with connect(
                    "127.0.0.1",
                    server._transport.get_extra_info("sockname")[1],
                    configuration=configuration,
                    create_protocol=lambda quic, **rest: Verifying(
                        quic, identity=leaf, allowed=["root"], noted=noted, **rest
                    ),
                    session_ticket_handler=kept.append,
                ) as protocol:
                    if not kept:
                        await protocol.ping()
            server.close()
            return noted

        first, second = asyncio.run(resume())
        assert first == PeerCertificate("root", root.not_after)
        assert second == "a resumed session: it shows no certificate"


class TestRenewal:
    def test_the_next_connection_shows_the_new_certificates(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, LOGGER)
        make_authority(tmp_path)
        for name in ("root", "leaf-1"):
            make_node(tmp_path, name, lifetime=timedelta(days=1))
        root, leaf = Identity.load(tmp_path, "root"), Identity.load(tmp_path, "leaf-1")
        ends = [root.not_after, leaf.not_after]

        def renew() -> None:
            for name in ("root", "leaf-1"):
                make_node(tmp_path, name, lifetime=timedelta(days=2))

        first, second = asyncio.run(meet(root, [leaf, leaf], between=renew))
        assert first.at_client + first.at_server == [
            PeerCertificate("root", ends[0]),
            PeerCertificate("leaf-1", ends[1]),
        ]
        assert first.serial != second.serial
        for before, after in zip(first.at_client + first.at_server, second.at_client, strict=False):
            assert isinstance(before, PeerCertificate)
            assert isinstance(after, PeerCertificate)
            assert after.not_after - before.not_after >= timedelta(days=1)
        assert "root has a new certificate, valid until" in caplog.text

    def test_an_authority_is_replaced_while_both_are_trusted(
        self, tmp_path: Path, keys: Path, others: Path
    ) -> None:
        copytree(keys, tmp_path, dirs_exist_ok=True)
        root = Identity.load(tmp_path, "root")
        newcomer = Identity.load(others, "leaf-1").client_configuration(
            server_name="root", alpn=ALPN
        )
        newcomer.cadata = (keys / "ca.crt").read_bytes()

        def trust_both() -> None:
            both = (keys / "ca.crt").read_bytes() + (others / "ca.crt").read_bytes()
            (tmp_path / "ca.crt").write_bytes(both)

        first, second = asyncio.run(meet(root, [newcomer, newcomer], between=trust_both))
        assert "signature does not match" in str(first.at_server[0])
        assert second.at_server == [
            PeerCertificate("leaf-1", Identity.load(others, "leaf-1").not_after)
        ]

    @pytest.mark.parametrize(
        ("damage", "reason"),
        [
            (lambda file, other: file[: len(file) // 2], "is damaged, incomplete or encrypted"),
            (lambda file, other: b"", "is damaged, incomplete or encrypted"),
            (
                lambda file, other: file[: file.index(b"-----BEGIN PRIVATE")],
                "is damaged, incomplete or encrypted",
            ),
            (
                lambda file, other: (
                    file[: file.index(b"-----BEGIN PRIVATE")]
                    + other[other.index(b"-----BEGIN PRIVATE") :]
                ),
                "the key is not the certificate's",
            ),
            (lambda file, other: other, "is the certificate of leaf-2, not of leaf-1"),
            (lambda file, other: None, "is missing"),
        ],
    )
    def test_unusable_files_leave_the_old_certificate_in_use(
        self,
        tmp_path: Path,
        keys: Path,
        caplog: pytest.LogCaptureFixture,
        damage: Callable[[bytes, bytes], bytes | None],
        reason: str,
    ) -> None:
        copytree(keys, tmp_path, dirs_exist_ok=True)
        file = tmp_path / "leaf-1.pem"
        leaf = Identity.load(tmp_path, "leaf-1")
        before = leaf.client_configuration(server_name="root", alpn=ALPN)
        damaged = damage(file.read_bytes(), (tmp_path / "leaf-2.pem").read_bytes())
        if damaged is None:
            file.unlink()
        else:
            file.write_bytes(damaged)
        for _ in range(3):
            after = leaf.client_configuration(server_name="root", alpn=ALPN)
            assert after.certificate == before.certificate
            assert after.private_key is before.private_key
        assert caplog.text.count("leaf-1 keeps the certificate it has") == 1
        assert reason in caplog.text
        with pytest.raises(CertificateError, match=reason):
            Identity.load(tmp_path, "leaf-1")

        make_node(tmp_path, "leaf-1", addresses=())
        renewed = leaf.client_configuration(server_name="root", alpn=ALPN)
        assert renewed.certificate != before.certificate

    def test_a_certificate_of_another_authority_is_unusable(
        self, tmp_path: Path, keys: Path, others: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        copytree(keys, tmp_path, dirs_exist_ok=True)
        leaf = Identity.load(tmp_path, "leaf-1")
        end = leaf.not_after
        (tmp_path / "leaf-1.pem").write_bytes((others / "leaf-1.pem").read_bytes())
        assert leaf.not_after == end
        assert "leaf-1 keeps the certificate it has" in caplog.text
        assert "no valid path to the cluster's authority" in caplog.text


class TestIdentity:
    def test_equal_if_the_same_node_of_the_same_directory(self, keys: Path, others: Path) -> None:
        root = Identity.load(keys, "root")
        assert root == Identity.load(keys, "root")
        assert hash(root) == hash(Identity.load(keys, "root"))
        assert root != Identity.load(keys, "leaf-1")
        assert root != Identity.load(others, "root")

    def test_stays_where_it_was_when_the_process_moves(
        self, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(keys.parent)
        root = Identity.load(Path(keys.name), "root")
        monkeypatch.chdir(tmp_path)
        assert root == Identity.load(keys, "root")

    def test_files_behind_a_link_that_is_pointed_elsewhere(
        self, keys: Path, tmp_path: Path
    ) -> None:
        # As Kubernetes renews the files of a mounted secret.
        copytree(keys, tmp_path / "new")
        make_node(tmp_path / "new", "root", lifetime=timedelta(days=3))
        (tmp_path / "link").symlink_to(keys)
        root = Identity.load(tmp_path / "link", "root")
        before = root.not_after
        (tmp_path / "link").unlink()
        (tmp_path / "link").symlink_to(tmp_path / "new")
        assert root.not_after < before

    @pytest.mark.parametrize("name", ["../root", "", "Root", "leaf-3"])
    def test_names_without_keys_are_refused(self, keys: Path, name: str) -> None:
        with pytest.raises(CertificateError, match=r"cannot name a node|leaf-3.pem is missing"):
            Identity.load(keys, name)

    def test_keys_are_in_no_representation(self, keys: Path) -> None:
        root = Identity.load(keys, "root")
        number = read_pair(keys / "root.pem", keys / "root.pem").key.private_numbers().private_value
        shown = " ".join(
            [
                repr(root),
                str(root),
                repr(root._material),
                repr(root.server_configuration(alpn=ALPN)),
            ]
        )
        assert "PRIVATE" not in shown
        assert str(number) not in shown
        assert f"{number:x}" not in shown.lower()
        assert repr(root) == f"Identity({str(keys)!r}, 'root')"

    def test_a_damaged_key_is_not_quoted(
        self, tmp_path: Path, keys: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        copytree(keys, tmp_path, dirs_exist_ok=True)
        root = Identity.load(tmp_path, "root")
        secret = b"A" * 64
        file = tmp_path / "root.pem"
        file.write_bytes(file.read_bytes().replace(b"BEGIN PRIVATE KEY-----\n", secret))
        root.server_configuration(alpn=ALPN)
        assert "root keeps the certificate it has" in caplog.text
        assert secret.decode() not in caplog.text


class TestPrivateNamesOfAioquic:
    """What identity.py touches inside aioquic; these fail when it is renamed or means otherwise."""

    def test_a_context_asks_nobody_by_itself(self) -> None:
        context = Context(is_client=False)
        assert context._request_client_certificate is False
        assert context._peer_certificate is None
        assert context._peer_certificate_chain == []
        assert context.session_resumed is False

    def test_a_server_has_no_context_before_the_first_packet(self, keys: Path) -> None:
        client = QuicConnection(
            configuration=Identity.load(keys, "leaf-1").client_configuration(
                server_name="root", alpn=ALPN
            )
        )
        client.connect(("client", 1), now=0.0)
        [(packet, _), *_] = client.datagrams_to_send(now=0.0)
        quic = QuicConnection(
            configuration=Identity.load(keys, "root").server_configuration(alpn=ALPN),
            original_destination_connection_id=client.original_destination_connection_id,
        )
        request_client_certificate(quic)
        assert not hasattr(quic, "tls")
        quic.receive_datagram(packet, ("client", 1), now=0.0)
        assert quic.tls._request_client_certificate is True
        with pytest.raises(ValueError, match="the handshake has begun"):
            request_client_certificate(quic)

    def test_connections_of_a_server_share_its_configuration(self, keys: Path) -> None:
        configuration = Identity.load(keys, "root").server_configuration(alpn=ALPN)
        quic = QuicConnection(
            configuration=configuration, original_destination_connection_id=bytes(8)
        )
        assert quic.configuration is configuration

    def test_a_client_is_not_asked_to_ask(self, keys: Path) -> None:
        configuration = Identity.load(keys, "leaf-1").client_configuration(
            server_name="root", alpn=ALPN
        )
        with pytest.raises(ValueError, match="client's connection"):
            request_client_certificate(QuicConnection(configuration=configuration))
