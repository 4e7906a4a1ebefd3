"""Keys of members: each has its own and no more, and nobody else may connect."""

from pathlib import Path

import pytest

from jobs.__main__ import main
from jobs.membership import Membership, make_members


def test_each_member_has_what_it_needs_and_no_more(tmp_path: Path) -> None:
    made = make_members(tmp_path, ["r1", "r2", "r3", "r4"], ["c1"], cluster="demo")
    assert set(made) == {"r1", "r2", "r3", "r4", "c1"}
    for name, keys in made.items():
        files = {path.name: path.stat().st_mode & 0o777 for path in keys.iterdir()}
        private = {f"{name}.pem", f"{name}.identity.json"}
        assert set(files) == {"ca.crt", "roster.json", "clients.json", *private}
        assert {files[path] for path in private} == {0o600}
    one, two = (Membership.load(made[name], name) for name in ("r1", "c1"))
    assert one.group.replicas == ("r1", "r2", "r3", "r4")
    assert (one.group.f, one.group.cluster, one.clients) == (1, "demo", ("c1",))
    assert two.keys.mac_valid("r1", b"said", one.keys.mac("c1", b"said"))
    with pytest.raises(FileExistsError):
        make_members(tmp_path, ["r1", "r2", "r3", "r4"], ["c1"], cluster="demo")


def test_replicas_hear_replicas_and_clients_and_clients_hear_replicas(tmp_path: Path) -> None:
    made = make_members(tmp_path, ["r1", "r2", "r3", "r4"], ["c1", "c2"], cluster="demo")
    peers = ["r1@127.0.0.1:1", "r2@127.0.0.1:2"]
    replica, client = (Membership.load(made[name], name) for name in ("r1", "c1"))
    mesh = replica.mesh("127.0.0.1:0", None, peers, datagram=1200)
    assert mesh.allowed == ["r2", "r3", "r4", "c1", "c2"]
    assert mesh.address_of("r2") == "127.0.0.1:2"
    assert client.mesh("127.0.0.1:0", None, peers, datagram=1200).allowed == [
        *("r1", "r2", "r3", "r4")
    ]
    with pytest.raises(ValueError, match="the roster has no replica 'r9'"):
        replica.mesh("127.0.0.1:0", None, ["r9@127.0.0.1:9"], datagram=1200)


def test_keys_that_the_command_line_makes(tmp_path: Path) -> None:
    for names, what in ((["a", "b", "c", "d"], "--roster"), (["me"], "--clients")):
        assert main(["keys", str(tmp_path), *names, what, "--cluster", "demo"]) == 0
    member = Membership.load(tmp_path, "b")
    assert (member.group.replicas, member.clients) == (("a", "b", "c", "d"), ("me",))
    assert Membership.load(tmp_path, "me").name == "me"


def test_an_identity_of_another(tmp_path: Path) -> None:
    made = make_members(tmp_path, ["r1", "r2", "r3", "r4"], ["c1"], cluster="demo")
    keys = made["r1"]
    (made["r2"] / "r2.identity.json").rename(keys / "r1.identity.json")
    with pytest.raises(ValueError, match=r"r1\.identity\.json: the identity of r2, not of r1"):
        Membership.load(keys, "r1")
