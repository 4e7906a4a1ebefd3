from collections.abc import Sequence

import pytest

from state.pbft import MachineError, Operation, Settings
from state.pbft.execution import Execution
from state.pbft.hash_chain import HashChain
from state.pbft.messages import Batch, Request
from tests.state.pbft.lone_replica import LoneReplica

DIGEST = bytes([5] * 32)


class Recorder(HashChain):
    """A machine that remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Operation] = []

    def apply(self, batch: Sequence[Operation]) -> list[bytes]:
        self.seen += batch
        return super().apply(batch)


def request(number: int, *operations: bytes, client: str = "c", low: int = 1) -> Request:
    return Request(client, number, low, list(operations))


def test_operations_carry_who_when_and_where() -> None:
    machine = Recorder()
    execution = Execution(machine, Settings())
    execution.execute(
        1, DIGEST, Batch(1000, [request(1, b"a", b"b"), request(1, b"c", client="d")])
    )
    assert machine.seen == [
        Operation("c", b"a", 1000, 1),
        Operation("c", b"b", 1000, 1),
        Operation("d", b"c", 1000, 1),
    ]
    results = execution.execute(2, DIGEST, Batch(900, [request(2, b"d")]))
    assert machine.seen[-1] == Operation("c", b"d", 1000, 2)  # time does not run backwards
    kept = execution.sessions.result("c", 2)
    assert kept is not None
    assert [kept.results] == results


def test_a_request_is_executed_once_in_one_batch_or_in_several() -> None:
    machine = Recorder()
    execution = Execution(machine, Settings())
    first, other = request(1, b"a"), request(1, b"another")
    results = execution.execute(1, DIGEST, Batch(0, [first, request(1, b"a"), other]))
    assert [each is None for each in results] == [False, True, True]
    assert execution.execute(2, DIGEST, Batch(0, [first])) == [None]
    assert [each.data for each in machine.seen] == [b"a"]


def test_one_batch_says_that_another_of_it_is_answered() -> None:
    execution = Execution(HashChain(), Settings())
    batch = Batch(0, [request(1, b"a"), request(2, b"b", low=2)])
    assert None not in execution.execute(1, DIGEST, batch)
    assert execution.sessions.result("c", 1) is None
    assert execution.execute(2, DIGEST, Batch(0, [request(1, b"a")])) == [None]


def test_the_same_history_gives_the_same_snapshot_and_another_does_not() -> None:
    batches = [Batch(i, [request(i, b"x", client=c) for c in "dc"]) for i in range(1, 5)]

    def run(count: int, digest: bytes = DIGEST) -> Execution:
        execution = Execution(HashChain(), Settings())
        for seq, batch in enumerate(batches[:count], 1):
            execution.execute(seq, digest, batch)
        return execution

    whole = run(4)
    assert whole.snapshot() == run(4).snapshot()
    assert whole.snapshot() not in (run(3).snapshot(), run(4, bytes(32)).snapshot())
    for count in range(4):
        copy = run(4)
        copy.restore(count, run(count).snapshot())  # back to where it was, and on
        assert copy.snapshot() == run(count).snapshot()
        for seq in range(count + 1, 5):
            copy.execute(seq, DIGEST, batches[seq - 1])
        assert copy.snapshot() == whole.snapshot()
        assert (copy.seq, copy.history, copy.time_ms) == (4, whole.history, 4)


def test_a_malformed_state_changes_nothing() -> None:
    execution = Execution(HashChain(), Settings())
    execution.execute(1, DIGEST, Batch(7, [request(1, b"x")]))
    before = execution.snapshot()
    for wrong in (b"", b"\xc1", before[:-1], before + b"\0", b"\x94" + before[1:-1]):
        with pytest.raises(ValueError, match=r"malformed|hash chain"):
            execution.restore(9, wrong)
        assert (execution.seq, execution.snapshot()) == (1, before)


class Raising(HashChain):
    def apply(self, batch: Sequence[Operation]) -> list[bytes]:
        raise ZeroDivisionError


class Forgetful(HashChain):
    def apply(self, batch: Sequence[Operation]) -> list[bytes]:
        return super().apply(batch)[1:]


class Vague(HashChain):
    def apply(self, batch: Sequence[Operation]) -> list[bytes]:
        return [None for _ in batch]  # type: ignore[misc]


@pytest.mark.parametrize(
    ("machine", "error"),
    [
        (Raising, r"Raising\.apply in slot 1 raised ZeroDivisionError"),
        (Forgetful, r"Forgetful\.apply in slot 1 returned 0 results for 1 operations"),
        (Vague, r"Vague\.apply in slot 1 returned 1 results for 1 operations: .* bytes"),
    ],
)
def test_a_machine_that_breaks_its_promise_is_named(machine: type[HashChain], error: str) -> None:
    lone = LoneReplica("r0", n=1, machine=machine())
    with pytest.raises(MachineError, match=error):
        lone.hear("c", lone.request(1))
