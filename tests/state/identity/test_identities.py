"""Identities: what they check, show and share."""

from __future__ import annotations

import json

import pytest

from state.identity import IdentityError, PrivateIdentity, PublicIdentity, Roster

alice = PrivateIdentity.generate("alice", bytes(32))
bob = PrivateIdentity.generate("bob", bytes([1] * 32))


def test_a_private_identity_comes_back_from_its_file() -> None:
    again = PrivateIdentity.from_json(alice.to_json())
    assert again == alice
    assert again.sign(b"d", b"m") == alice.sign(b"d", b"m")
    assert again.shared_key(bob.public, b"c") == alice.shared_key(bob.public, b"c")


def test_secrets_do_not_show() -> None:
    for secret in (alice.signing_key.to_bytes(), alice.agreement_key.to_bytes()):
        assert secret.hex() in alice.to_json()
        assert secret.hex() not in repr(alice)
    assert repr(alice) == "PrivateIdentity(name='alice')"


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "roster"},
        {"version": 2},
        {"signing_key": "00"},
        {"agreement_key": "zz" * 32},
        {"more": 1},
        {"name": 3},
    ],
)
def test_a_damaged_file_is_refused_and_not_quoted(change: dict[str, object]) -> None:
    text = json.dumps(json.loads(alice.to_json()) | change)
    with pytest.raises(IdentityError, match=r"^keys/a\.json is not a private identity") as error:
        PrivateIdentity.from_json(text, "keys/a.json")
    assert alice.signing_key.to_bytes().hex() not in str(error.value)
    for bad in (text[:-20], "", b"\xff", "[]"):
        with pytest.raises(IdentityError, match="is not a private identity"):
            PrivateIdentity.from_json(bad)


@pytest.mark.parametrize(
    "name", ["", "Alice", "a b", "-a", "a-", "a/b", "..", "a" * 254, "é", "a\n", "a\0"]
)
def test_names(name: str) -> None:
    with pytest.raises(IdentityError, match="cannot name a member"):
        PrivateIdentity.generate(name, bytes(32))
    text = json.dumps(json.loads(alice.to_json()) | {"name": name})
    with pytest.raises(IdentityError, match=r"^f\.json: .* cannot name a member"):
        PrivateIdentity.from_json(text, "f.json")


@pytest.mark.parametrize("name", ["a", "n1", "region-1.example.net", "a_b", "a" * 253])
def test_names_that_will_do(name: str) -> None:
    assert PrivateIdentity.generate(name, bytes(32)).public.name == name


def test_keys_that_are_none() -> None:
    good = alice.public
    with pytest.raises(IdentityError, match=r"alice: 0100.* is no Ed25519 key of prime order"):
        PublicIdentity("alice", b"\1" + bytes(31), good.agreement_key)
    with pytest.raises(IdentityError, match=r"alice: 0000.* is no X25519 key"):
        PublicIdentity("alice", good.verify_key, bytes(32))


def test_shared_keys_differ_by_pair_and_context() -> None:
    carol = PrivateIdentity.generate("carol", bytes([2] * 32))
    one = Roster("demo", 1, (alice.public, bob.public, carol.public))
    two = Roster("demo", 2, one.members)
    others = Roster("other", 1, one.members)
    pairs = [(alice, bob), (alice, carol), (bob, carol)]
    contexts = [r.context(p) for r in (one, two, others) for p in (b"pbft", b"votes")]
    keys = {x.shared_key(y.public, c) for x, y in pairs for c in contexts}
    assert len(keys) == len(pairs) * len(contexts)
    assert keys == {y.shared_key(x.public, c) for x, y in pairs for c in contexts}


def test_a_shared_key_is_of_these_names() -> None:
    """The same keys under another name make another code: nobody is taken for a namesake."""
    renamed = PublicIdentity("bobby", bob.public.verify_key, bob.public.agreement_key)
    assert alice.shared_key(renamed, b"c") != alice.shared_key(bob.public, b"c")
