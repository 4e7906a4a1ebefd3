import pytest

from state.identity import IdentityError, PrivateIdentity, Roster
from state.pbft.authentication import MAC_BYTES, Authenticator, close, open_bundle, sign, valid
from state.pbft.keys import Keys
from state.pbft.messages import Checkpoint, Commit, MessageError, Prepare
from state.pbft.simulated_keys import SimulatedKeys

IDS = [PrivateIdentity.generate(name, bytes([i] * 32)) for i, name in enumerate("abcd")]
CLIENT = PrivateIdentity.generate("client", bytes([9] * 32))
ROSTER = Roster("demo", 1, tuple(each.public for each in IDS))
DIGEST = bytes(32)


def real() -> dict[str, Authenticator]:
    return {each.name: Keys(each, ROSTER, [CLIENT.public]) for each in (*IDS, CLIENT)}


def simulated() -> dict[str, Authenticator]:
    return dict(SimulatedKeys.of(["a", "b", "c", "d", "client"], seed=1))


@pytest.fixture(params=[real, simulated], ids=["real", "simulated"])
def keys(request: pytest.FixtureRequest) -> dict[str, Authenticator]:
    made: dict[str, Authenticator] = request.param()
    return made


def test_signatures_are_bound_to_signer_kind_and_every_field(
    keys: dict[str, Authenticator],
) -> None:
    message = Commit(3, 7, DIGEST)
    signature = sign(keys["a"], message)
    assert len(signature) == 64
    assert valid(keys["b"], "a", Commit(3, 7, DIGEST, signature))
    assert not valid(keys["b"], "c", Commit(3, 7, DIGEST, signature))
    assert not valid(keys["b"], "nobody", Commit(3, 7, DIGEST, signature))
    assert not valid(keys["b"], "a", Commit(4, 7, DIGEST, signature))
    assert not valid(keys["b"], "a", Commit(3, 8, DIGEST, signature))
    assert not valid(keys["b"], "a", Commit(3, 7, bytes([1] * 32), signature))
    assert not valid(keys["b"], "a", Prepare(3, 7, DIGEST, b"", signature))
    assert not valid(keys["b"], "a", Commit(3, 7, DIGEST, signature[:-1]))
    assert not valid(keys["b"], "a", Commit(3, 7, DIGEST))


def test_a_bundle_is_for_one_receiver_from_one_sender(keys: dict[str, Authenticator]) -> None:
    bundle = close(keys["a"], "b", [Checkpoint(4, DIGEST)])
    assert open_bundle(keys["b"], "a", bundle) == [Checkpoint(4, DIGEST)]
    for receiver, sender in (("c", "a"), ("b", "c"), ("a", "b"), ("b", "nobody"), ("client", "a")):
        with pytest.raises(MessageError, match="MAC"):
            open_bundle(keys[receiver], sender, bundle)
    for i in (0, MAC_BYTES, len(bundle) - 1):
        changed = bytearray(bundle)
        changed[i] ^= 1
        with pytest.raises(MessageError, match="MAC"):
            open_bundle(keys["b"], "a", bytes(changed))
    for size in (0, MAC_BYTES - 1, MAC_BYTES, len(bundle) - 1):
        with pytest.raises(MessageError, match="MAC"):
            open_bundle(keys["b"], "a", bundle[:size])
    with pytest.raises(KeyError):
        close(keys["a"], "nobody", [])


def test_nothing_counts_in_another_epoch_or_cluster() -> None:
    here = Keys(IDS[0], ROSTER)
    for roster in (Roster("demo", 2, ROSTER.members), Roster("other", 1, ROSTER.members)):
        there = Keys(IDS[1], roster)
        assert not there.valid("a", b"said", here.sign(b"said"))
        assert not there.mac_valid("a", b"said", here.mac("b", b"said"))


def test_names_that_are_taken() -> None:
    impostor = PrivateIdentity.generate("a", bytes([7] * 32))
    with pytest.raises(IdentityError, match="a is the name of two"):
        Keys(IDS[1], ROSTER, [impostor.public])
    with pytest.raises(IdentityError, match="another key"):
        Keys(impostor, ROSTER)
    Keys(IDS[1], ROSTER, [IDS[0].public])  # a member may be a client
