"""`python -m jobs keys`: the files that it leaves, and what it says."""

from __future__ import annotations

import re
import socket
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509

from connectors.quic.certificates import AUTHORITY_LIFETIME, NODE_LIFETIME
from connectors.quic.identity import Identity
from jobs.__main__ import main
from jobs.identities import identity_file, read_identity, read_roster
from state.identity import PrivateIdentity

Capture = pytest.CaptureFixture[str]


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_an_authority_and_the_nodes_named(tmp_path: Path, capsys: Capture) -> None:
    assert main(["keys", str(tmp_path / "keys"), "root", "leaf-1", "root"]) == 0
    assert files(tmp_path / "keys") == ["ca.crt", "ca.key", "leaf-1.pem", "root.pem"]
    said = capsys.readouterr().out.splitlines()
    assert [re.split(r" +", line, maxsplit=1)[0] for line in said] == [
        str(tmp_path / "keys" / name) for name in ("ca.crt", "root.pem", "leaf-1.pem")
    ]
    for name, line in zip(("root", "leaf-1"), said[1:], strict=True):
        end = Identity.load(tmp_path / "keys", name).not_after
        assert line.endswith(f"valid until {end:%Y-%m-%d %H:%M} UTC")


def test_a_later_call_adds_nodes_to_the_same_authority(tmp_path: Path, capsys: Capture) -> None:
    assert main(["keys", str(tmp_path), "root"]) == 0
    before = (tmp_path / "ca.crt").read_bytes()
    capsys.readouterr()
    assert main(["keys", str(tmp_path), "leaf-1"]) == 0
    assert (tmp_path / "ca.crt").read_bytes() == before
    assert capsys.readouterr().out.count("\n") == 1
    Identity.load(tmp_path, "leaf-1")


def test_without_names_all_nodes_are_renewed(tmp_path: Path) -> None:
    assert main(["keys", str(tmp_path), "root", "leaf-1", "--days", "1"]) == 0
    assert main(["keys", str(tmp_path)]) == 0
    assert files(tmp_path) == ["ca.crt", "ca.key", "leaf-1.pem", "root.pem"]
    for name in ("root", "leaf-1"):
        left = Identity.load(tmp_path, name).not_after - datetime.now(UTC)
        assert left > timedelta(days=13)


def test_without_names_or_nodes_one_is_called_like_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "Edge-7.example.net")
    assert main(["keys", str(tmp_path)]) == 0
    assert files(tmp_path) == ["ca.crt", "ca.key", "edge-7.pem"]


def test_lifetimes_and_addresses(tmp_path: Path) -> None:
    arguments = ["--days", "0.5", "--ca-days", "10", "--address", "10.0.0.5", "--address", "r.net"]
    assert main(["keys", str(tmp_path), "root", *arguments]) == 0
    node = x509.load_pem_x509_certificate((tmp_path / "root.pem").read_bytes())
    assert node.not_valid_after_utc - node.not_valid_before_utc == timedelta(days=0.5)
    names = node.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names)[1:] == [x509.IPAddress(ip_address("10.0.0.5")), x509.DNSName("r.net")]
    authority = x509.load_pem_x509_certificate((tmp_path / "ca.crt").read_bytes())
    assert authority.not_valid_after_utc - authority.not_valid_before_utc == timedelta(days=10)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["Root"], "'Root' cannot name a node"),
        (["root", "a/b"], "'a/b' cannot name a node"),
        (["root", "--days", "0"], "0.0 days: more than 0, at most 36500"),
        (["root", "--days", "nan"], "nan days"),
        (["root", "--ca-days", "inf"], "inf days"),
        (["root", "leaf-1", "--address", "10.0.0.5"], "addresses belong to one node"),
        (["--address", "10.0.0.5"], "addresses belong to one node"),
    ],
)
def test_errors_are_one_line_and_nothing_is_written(
    tmp_path: Path, capsys: Capture, arguments: list[str], reason: str
) -> None:
    assert main(["keys", str(tmp_path), *arguments]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("keys: ")
    assert reason in said.err
    assert said.err.count("\n") == 1
    assert not said.out
    assert not files(tmp_path)


def test_a_host_without_a_usable_name_must_name_its_nodes(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "my_host")
    assert main(["keys", str(tmp_path)]) == 2
    assert "name the nodes: this host's name will not do: 'my_host'" in capsys.readouterr().err


def test_a_directory_that_is_a_file(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "keys").write_text("")
    assert main(["keys", str(tmp_path / "keys"), "root"]) == 2
    said = capsys.readouterr().err
    assert str(tmp_path / "keys") in said
    assert said.count("\n") == 1


def test_an_authority_is_not_given_another_lifetime(tmp_path: Path, capsys: Capture) -> None:
    assert main(["keys", str(tmp_path), "root"]) == 0
    assert main(["keys", str(tmp_path), "root", "--ca-days", "3"]) == 2
    assert "an authority is never replaced" in capsys.readouterr().err


def test_the_help_names_the_defaults(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["keys", "--help"])
    assert caught.value.code == 0
    said = capsys.readouterr().out
    assert f"(default {NODE_LIFETIME.days})" in said
    assert f"(default {AUTHORITY_LIFETIME.days})" in said


MEMBERS = ["n1", "n2", "n3", "n4"]


def test_identities_and_a_roster_beside_the_certificates(tmp_path: Path, capsys: Capture) -> None:
    assert main(["keys", str(tmp_path), *MEMBERS, "--roster", "--cluster", "demo"]) == 0
    roster = read_roster(tmp_path / "roster.json")
    assert (roster.cluster, roster.epoch, roster.names) == ("demo", 1, tuple(MEMBERS))
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 10
    assert said[-1].split(None, 1)[1] == "epoch 1 of demo, members: 4"
    for member in roster.members:
        path = identity_file(tmp_path, member.name)
        assert path.stat().st_mode & 0o777 == 0o600
        identity = read_identity(path)
        assert identity.public == member
        assert roster.verify(member.name, b"d", b"m", identity.sign(b"d", b"m"))
        assert identity.signing_key.to_bytes().hex() not in "".join(said)
        Identity.load(tmp_path, member.name)


def test_identities_stay_when_certificates_are_renewed(tmp_path: Path, capsys: Capture) -> None:
    assert main(["keys", str(tmp_path), *MEMBERS, "--roster"]) == 0
    kept = {p: p.read_bytes() for p in tmp_path.glob("*.json")}
    assert len(kept) == 5
    assert main(["keys", str(tmp_path), *MEMBERS, "--roster"]) == 0
    assert main(["keys", str(tmp_path), "--roster"]) == 0
    assert main(["keys", str(tmp_path)]) == 0
    assert {p: p.read_bytes() for p in tmp_path.glob("*.json")} == kept
    assert "private" not in capsys.readouterr().out.split("members: 4")[1]


def test_a_roster_is_made_of_identities_that_are_there(tmp_path: Path) -> None:
    """As when the files were not all written, or the members bring their own."""
    assert main(["keys", str(tmp_path), "n1", "--roster"]) == 0
    kept = identity_file(tmp_path, "n1").read_bytes()
    (tmp_path / "roster.json").unlink()
    assert main(["keys", str(tmp_path), *MEMBERS, "--roster"]) == 0
    assert identity_file(tmp_path, "n1").read_bytes() == kept
    assert len(read_roster(tmp_path / "roster.json")) == 4


def test_rosters_and_identities_are_never_replaced(tmp_path: Path, capsys: Capture) -> None:
    assert main(["keys", str(tmp_path), *MEMBERS, "--roster"]) == 0
    kept = {p: p.read_bytes() for p in tmp_path.iterdir()}
    capsys.readouterr()

    def refused(reason: str, *arguments: str) -> None:
        assert main(["keys", str(tmp_path), *arguments, "--roster"]) == 2
        said = capsys.readouterr()
        assert not said.out
        assert said.err.startswith("keys: ")
        assert said.err.count("\n") == 1
        assert reason in said.err

    names = "roster.json is of braidflow: n1, n2, n3, n4; a roster is never replaced"
    refused(names, "n1", "n2", "n3")
    refused(names, "n2", "n1", "n3", "n4")
    refused(names, *MEMBERS, "--cluster", "other")
    refused("days", *MEMBERS, "--days", "0")
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == kept

    one = identity_file(tmp_path, "n1")
    two = identity_file(tmp_path, "n2")
    one.chmod(0o644)
    refused("n1.identity.json has mode 644: a private identity has 600", *MEMBERS)
    one.chmod(0o600)
    one.write_bytes(two.read_bytes())
    refused("n1.identity.json is the identity of n2", *MEMBERS)
    one.write_text("{}")
    refused("n1.identity.json is not a private identity", *MEMBERS)
    one.unlink()
    refused("n1.identity.json is missing", *MEMBERS)
    one.write_text(PrivateIdentity.generate("n1", bytes(32)).to_json())
    one.chmod(0o600)
    refused("roster.json has other keys", *MEMBERS)
    (tmp_path / "roster.json").write_text("{}")
    refused("roster.json is not a roster", *MEMBERS)


def test_a_bad_cluster_writes_nothing(tmp_path: Path, capsys: Capture) -> None:
    assert main(["keys", str(tmp_path), "n1", "--roster", "--cluster", ""]) == 2
    assert "cannot name a cluster" in capsys.readouterr().err
    assert not files(tmp_path)
