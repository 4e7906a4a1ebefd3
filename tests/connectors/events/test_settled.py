"""A settled source ends one durable snapshot after its last item."""

from datetime import timedelta

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, TestingSource, run_main

from connectors.events.settled import Settled


def test_it_waits_for_a_snapshot_that_covers_the_last_item() -> None:
    part = Settled(TestingSource([1, 2], batch_size=2)).build_part("s", "iterable", None)
    assert list(part.next_batch()) == [1, 2]
    part.snapshot()
    # The end was not known yet when that snapshot was taken.
    assert list(part.next_batch()) == []
    assert list(part.next_batch()) == []
    assert part.next_awake() is not None
    state = part.snapshot()
    with pytest.raises(StopIteration):
        part.next_batch()
    again = Settled(TestingSource([1, 2], batch_size=2)).build_part("s", "iterable", state)
    assert list(again.next_batch()) == []


def test_a_flow_gets_everything_and_ends() -> None:
    flow, out = Dataflow("settled"), []
    stream = op.input("in", flow, Settled(TestingSource(range(10), batch_size=3)))
    op.output("out", stream, TestingSink(out))
    run_main(flow, epoch_interval=timedelta(milliseconds=10))
    assert out == list(range(10))
