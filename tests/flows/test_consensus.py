"""Rows that a replica's flow leaves."""

import pytest

from flows.consensus import committed_row, event_row
from state.pbft import Committed, CommittedRequest, Evidence, Rejected, Stable, ViewEntered
from state.pbft.messages import Accusation, PrePrepare, ViewChange, decode


def test_a_final_batch_as_a_row() -> None:
    requests = [
        CommittedRequest("ann", 7, [b"1", b"2"], [b"one", b"two"]),
        CommittedRequest("bob", 8, [b"3"], None),
    ]
    batch = Committed(12, 3, bytes(31) + b"\x01", 1700, requests)
    assert committed_row(batch, int, bytes.decode) == {
        "seq": 12,
        "view": 3,
        "digest": "00" * 31 + "01",
        "time_ms": 1700,
        "requests": [
            {"client": "ann", "number": 7, "operations": [1, 2], "results": ["one", "two"]},
            {"client": "bob", "number": 8, "operations": [3], "results": None},
        ],
    }


@pytest.mark.parametrize(
    ("event", "row"),
    [
        (ViewEntered(4, "r1"), {"event": "ViewEntered", "view": 4, "primary": "r1"}),
        (Stable(128, b"\xff"), {"event": "Stable", "seq": 128, "digest": "ff"}),
        (Rejected("r2", "why"), {"event": "Rejected", "sender": "r2", "reason": "why"}),
    ],
)
def test_what_happened_as_a_row(event: Stable, row: dict[str, object]) -> None:
    assert event_row(event) == row


def test_evidence_can_be_shown_to_others() -> None:
    first, second = (PrePrepare(2, 5, bytes([i] * 32), bytes(64), b"") for i in (1, 2))
    row = event_row(Evidence(Accusation("r3", first, second)))
    assert (row["accused"], row["kind"], row["view"], row["seq"]) == ("r3", "PrePrepare", 2, 5)
    both = [decode(bytes.fromhex(row[name])) for name in ("first", "second")]
    assert both == [[first], [second]]
    change = ViewChange(3, "r3", 0, [], [], [], bytes(64))
    assert event_row(Evidence(Accusation("r3", change, change)))["seq"] is None
