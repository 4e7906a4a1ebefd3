"""Authorities and node certificates, judged by OpenSSL."""

from __future__ import annotations

import os
import shutil
import ssl
import stat
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from connectors.quic.certificates import (
    CertificateError,
    Issued,
    make_authority,
    make_node,
    node_name,
    node_names,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
OPENSSL = shutil.which("openssl")


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    directory = tmp_path / "deep" / "keys"
    make_authority(directory, now=NOW)
    return directory


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def alternative_names(path: Path) -> list[x509.GeneralName]:
    extensions = certificate(path).extensions
    return list(extensions.get_extension_for_class(x509.SubjectAlternativeName).value)


class TestAuthority:
    def test_may_sign_nodes_and_no_other_authority(self, keys: Path) -> None:
        found = certificate(keys / "ca.crt")
        basic = found.extensions.get_extension_for_class(x509.BasicConstraints)
        assert basic.critical
        assert basic.value == x509.BasicConstraints(ca=True, path_length=0)
        usage = found.extensions.get_extension_for_class(x509.KeyUsage)
        assert usage.critical
        assert usage.value.key_cert_sign
        assert not usage.value.digital_signature

    def test_its_key_is_its_owners(self, keys: Path) -> None:
        assert stat.S_IMODE((keys / "ca.key").stat().st_mode) == 0o600
        assert sorted(path.name for path in keys.iterdir()) == ["ca.crt", "ca.key"]

    def test_lives_as_long_as_asked(self, tmp_path: Path) -> None:
        made = make_authority(tmp_path, lifetime=timedelta(days=3), now=NOW)
        assert made == Issued(
            "ca", tmp_path / "ca.crt", NOW + timedelta(days=3) - timedelta(minutes=5)
        )
        assert certificate(tmp_path / "ca.crt").not_valid_after_utc == made.not_after

    @pytest.mark.parametrize("left", ["ca.crt", "ca.key", "both"])
    def test_is_never_replaced(self, keys: Path, left: str) -> None:
        for name in {"ca.crt", "ca.key"} - {left}:
            if left != "both":
                (keys / name).unlink()
        before = {path.name: path.read_bytes() for path in keys.iterdir()}
        with pytest.raises(CertificateError, match="an authority is never replaced"):
            make_authority(keys)
        assert {path.name: path.read_bytes() for path in keys.iterdir()} == before


class TestNodes:
    def test_one_file_has_certificate_and_key(self, keys: Path) -> None:
        made = make_node(keys, "leaf-1", now=NOW)
        assert made.path == keys / "leaf-1.pem"
        assert stat.S_IMODE(made.path.stat().st_mode) == 0o600
        data = made.path.read_bytes()
        key = load_pem_private_key(data[data.index(b"-----BEGIN PRIVATE KEY") :], None)
        assert key.public_key() == certificate(made.path).public_key()

    def test_the_file_is_one_that_the_standard_library_reads(self, keys: Path) -> None:
        made = make_node(keys, "leaf-1", now=NOW)
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(made.path)

    def test_is_for_clients_and_servers_and_signs_nothing(self, keys: Path) -> None:
        extensions = certificate(make_node(keys, "leaf-1", now=NOW).path).extensions
        assert set(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == {
            ExtendedKeyUsageOID.CLIENT_AUTH,
            ExtendedKeyUsageOID.SERVER_AUTH,
        }
        assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
        assert usage.digital_signature
        assert not usage.key_cert_sign

    @pytest.mark.skipif(OPENSSL is None, reason="no openssl")
    @pytest.mark.parametrize("purpose", ["sslclient", "sslserver"])
    def test_openssl_agrees(self, tmp_path: Path, purpose: str) -> None:
        make_authority(tmp_path)
        make_node(tmp_path, "leaf-1", addresses=["10.0.0.5"])
        assert OPENSSL is not None
        command = [OPENSSL, "verify", "-x509_strict", "-purpose", purpose]
        command += ["-verify_hostname", "leaf-1", "-CAfile", "ca.crt", "leaf-1.pem"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.stdout == "leaf-1.pem: OK\n", done.stderr

    def test_two_weeks_by_default(self, keys: Path) -> None:
        # No more than browsers take for a certificate that is pinned by its hash.
        found = certificate(make_node(keys, "leaf-1", now=NOW).path)
        assert found.not_valid_after_utc - found.not_valid_before_utc == timedelta(days=14)
        assert found.not_valid_before_utc == NOW - timedelta(minutes=5)

    def test_does_not_outlive_the_authority(self, tmp_path: Path) -> None:
        authority = make_authority(tmp_path, lifetime=timedelta(days=3), now=NOW)
        assert make_node(tmp_path, "leaf-1", now=NOW).not_after == authority.not_after
        with pytest.raises(CertificateError, match=r"ca\.crt expired on 2026-03-04 11:55:00 UTC"):
            make_node(tmp_path, "leaf-1", now=NOW + timedelta(days=3))

    def test_the_name_comes_first_and_addresses_once(self, keys: Path) -> None:
        addresses = ["10.0.0.5", "leaf-1", "leaf.example", "::1", "leaf.example"]
        made = make_node(keys, "leaf-1", addresses=addresses, now=NOW)
        assert alternative_names(made.path) == [
            x509.DNSName("leaf-1"),
            x509.IPAddress(ip_address("10.0.0.5")),
            x509.DNSName("leaf.example"),
            x509.IPAddress(ip_address("::1")),
        ]

    @pytest.mark.parametrize("lifetime", [timedelta(0), timedelta(days=-1)])
    def test_lifetimes_are_positive(self, keys: Path, lifetime: timedelta) -> None:
        with pytest.raises(CertificateError, match="too short"):
            make_node(keys, "leaf-1", lifetime=lifetime)
        with pytest.raises(CertificateError, match="too short"):
            make_authority(keys / "other", lifetime=lifetime)

    @pytest.mark.parametrize("address", ["", "*.example", "a b", "10.0.0.256", "https://leaf"])
    def test_malformed_addresses_are_refused(self, keys: Path, address: str) -> None:
        with pytest.raises(CertificateError, match="neither a DNS name nor an IP address"):
            make_node(keys, "leaf-1", addresses=[address])
        assert node_names(keys) == []


class TestNames:
    @pytest.mark.parametrize("name", ["a", "ca", "leaf-1", "eu.region-1", "1a", "x" * 63, "n1.x2"])
    def test_of_nodes(self, keys: Path, name: str) -> None:
        make_node(keys, name)
        assert node_names(keys) == [name]

    @pytest.mark.parametrize(
        "name", ["", "Leaf", "a_b", "-a", "a-", "a..b", ".a", "a.", "../a", "a/b", "a\n", "*", "é"]
    )
    def test_malformed(self, name: str) -> None:
        with pytest.raises(CertificateError, match="cannot name a node"):
            node_name(name)

    @pytest.mark.parametrize("name", ["1", "10.0.0.1", "a.1"])
    def test_like_addresses(self, name: str) -> None:
        with pytest.raises(CertificateError, match="cannot name a node"):
            node_name(name)

    @pytest.mark.parametrize("name", ["x" * 64, ".".join(["x" * 60] * 5)])
    def test_too_long(self, name: str) -> None:
        with pytest.raises(CertificateError, match="cannot name a node"):
            node_name(name)


class TestRenewal:
    def test_has_a_new_key_and_the_old_addresses(self, keys: Path) -> None:
        first = make_node(keys, "leaf-1", addresses=["10.0.0.5"], now=NOW)
        before = certificate(first.path)
        second = make_node(keys, "leaf-1", now=NOW + timedelta(days=7))
        assert second.not_after - first.not_after == timedelta(days=7)
        assert alternative_names(second.path)[1:] == [x509.IPAddress(ip_address("10.0.0.5"))]
        assert certificate(second.path).public_key() != before.public_key()
        assert certificate(second.path).serial_number != before.serial_number
        make_node(keys, "leaf-1", addresses=[], now=NOW)
        assert alternative_names(second.path) == [x509.DNSName("leaf-1")]

    def test_a_reader_never_sees_a_pair_that_does_not_fit(self, keys: Path) -> None:
        path = make_node(keys, "leaf-1", now=NOW).path
        done = threading.Event()

        def renew() -> None:
            for _ in range(50):
                make_node(keys, "leaf-1", now=NOW)
            done.set()

        renewing = threading.Thread(target=renew)
        renewing.start()
        serials = set()
        while not done.is_set():
            data = path.read_bytes()
            found = x509.load_pem_x509_certificate(data)
            key = load_pem_private_key(data[data.index(b"-----BEGIN PRIVATE KEY") :], None)
            assert key.public_key() == found.public_key()
            serials.add(found.serial_number)
        renewing.join()
        assert len(serials) > 1

    def test_a_failed_one_leaves_the_old_file_and_no_other(
        self, keys: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = make_node(keys, "leaf-1", now=NOW).path
        before = path.read_bytes()

        def full(handle: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            make_node(keys, "leaf-1", now=NOW)
        assert path.read_bytes() == before
        assert sorted(found.name for found in keys.iterdir()) == ["ca.crt", "ca.key", "leaf-1.pem"]

    def test_of_a_damaged_file_is_refused(self, keys: Path) -> None:
        path = make_node(keys, "leaf-1", now=NOW).path
        path.write_bytes(path.read_bytes()[:100])
        with pytest.raises(CertificateError, match=r"leaf-1\.pem is damaged"):
            make_node(keys, "leaf-1", now=NOW)


class TestAuthorityFiles:
    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(CertificateError, match=r"ca\.crt is missing"):
            make_node(tmp_path, "leaf-1")

    def test_without_the_key_nothing_is_signed(self, keys: Path) -> None:
        (keys / "ca.key").unlink()
        with pytest.raises(CertificateError, match=r"ca\.key is missing"):
            make_node(keys, "leaf-1")

    def test_of_different_authorities(self, keys: Path, tmp_path: Path) -> None:
        make_authority(tmp_path / "other")
        shutil.copy(tmp_path / "other" / "ca.key", keys / "ca.key")
        with pytest.raises(CertificateError, match=r"ca\.key is not the key of .*ca\.crt"):
            make_node(keys, "leaf-1")

    @pytest.mark.parametrize("name", ["ca.crt", "ca.key"])
    def test_damaged_ones_are_named_and_not_quoted(self, keys: Path, name: str) -> None:
        (keys / name).write_bytes((keys / name).read_bytes()[:-40])
        with pytest.raises(CertificateError, match=f"{name} is damaged or encrypted") as caught:
            make_node(keys, "leaf-1")
        assert "BEGIN" not in str(caught.value)
