from state.pbft import Persist, Rejected, Rewrite, Send, Settings
from state.pbft.group import Group
from state.pbft.messages import Checkpoint, decode
from state.pbft.port import Port
from state.pbft.records import Final, Prepared, encode_record
from state.pbft.simulated_keys import SimulatedKeys

D = bytes(32)
KEYS = SimulatedKeys.of(["r0", "r1", "r2", "r3"], seed=1)


def port() -> Port:
    made = Port(Group("demo", ["r0", "r1", "r2", "r3"]), KEYS["r0"], Settings(checkpoint=8))
    made.time(1.0, 2.0)
    return made


def test_records_come_before_what_is_sent_and_each_peer_gets_one_bundle() -> None:
    here = port()
    here.send("r1", Checkpoint(1, D))
    here.emit(Rejected("r9", "why"))
    here.persist(Prepared(0, 1, D))
    here.broadcast(Checkpoint(2, D))
    effects = here.take(list)
    assert effects[0] == Persist([encode_record(Prepared(0, 1, D))])
    sends = [each for each in effects if isinstance(each, Send)]
    assert [(each.to, decode(each.data[16:])) for each in sends] == [
        ("r1", [Checkpoint(1, D), Checkpoint(2, D)]),
        ("r2", [Checkpoint(2, D)]),
        ("r3", [Checkpoint(2, D)]),
    ]
    assert effects[-1] == Rejected("r9", "why")
    assert here.take(list) == []


def test_a_log_written_anew_takes_the_place_of_records() -> None:
    here = port()
    here.persist(Prepared(0, 1, D))
    here.rewrite = True
    assert here.take(lambda: [Final(0, 1, D)]) == [Rewrite([encode_record(Final(0, 1, D))])]
    assert here.take(list) == []


def test_what_may_wait_travels_with_the_next_message_or_in_time() -> None:
    here = port()
    here.broadcast_lazily(Checkpoint(1, D), 0.5)
    here.broadcast_lazily(Checkpoint(2, D), 0.1)
    assert here.take(list) == []
    assert here.lazy_at == 1.1
    here.time(1.05, 2.0)
    here.tick()
    assert here.take(list) == []
    here.time(1.1, 2.0)
    here.tick()
    assert len(here.take(list)) == 3
    here.broadcast_lazily(Checkpoint(3, D), 0.1)
    here.broadcast(Checkpoint(4, D))
    (first, *_) = here.take(list)
    assert isinstance(first, Send)
    assert decode(first.data[16:]) == [Checkpoint(3, D), Checkpoint(4, D)]
    for seq in range(4):  # half as many as slots between two checkpoints
        here.broadcast_lazily(Checkpoint(seq, D), 0.1)
    assert len(here.take(list)) == 3


def test_time_does_not_run_backwards_and_who_is_unknown_gets_nothing() -> None:
    here = port()
    here.time(0.5, 1.0)
    assert (here.now, here.wall) == (1.0, 1.0)
    here.send("stranger", Checkpoint(1, D))
    assert here.take(list) == [
        Rejected("stranger", "there is no key for it here: it is not answered")
    ]
