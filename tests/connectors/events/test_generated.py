"""The generated workload: the same for the same seed, whoever makes which part."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from connectors.events import GeneratedSource, Workload
from connectors.testing import check_source
from state.schemas import EVENTS

SMALL = Workload(agents=20_000, hosts=7, users=5_000, endpoints=50, seed=3)


def table(workload: Workload) -> pa.Table:
    return pa.Table.from_batches(list(workload.batches()))


def test_every_agent_has_one_event_on_one_host() -> None:
    rows = table(SMALL)
    assert rows.schema.equals(EVENTS)
    assert sorted(rows["agent"].to_pylist()) == [f"agent-{i:08d}" for i in range(20_000)]
    sizes = {SMALL.host(i).num_rows for i in range(7)}
    assert sizes == {2857, 2858}


def test_the_seed_decides_and_hosts_differ() -> None:
    assert table(SMALL).equals(table(replace(SMALL)))
    assert not table(SMALL).equals(table(replace(SMALL, seed=4)))
    assert not SMALL.host(0).column("user").equals(SMALL.host(1).column("user"))


def test_hosts_share_the_same_events() -> None:
    for hosts in (1, 3, 9):
        rows = table(replace(SMALL, hosts=hosts)).sort_by("agent")
        assert rows.equals(table(SMALL).sort_by("agent"))


def test_the_laws_are_those_it_claims() -> None:
    rows = table(SMALL)
    logs = np.log(rows["latency_ms"].to_numpy())
    assert abs(np.median(logs) - np.log(80)) < 0.03
    assert abs(logs.std() - 1) < 0.02
    counts = {r["values"]: r["counts"] for r in pc.value_counts(rows["endpoint"]).to_pylist()}
    weights = np.arange(1, 51) ** -1.1
    expected = 20_000 * weights / weights.sum()
    for rank in (0, 1, 5):
        name = f"/service-{rank:02d}/call-00"
        assert abs(counts[name] - expected[rank]) < 5 * np.sqrt(expected[rank])


def test_times_of_a_host_ascend_within_the_period() -> None:
    times = SMALL.host(2)["time"].to_pylist()
    start = datetime(2026, 1, 1, tzinfo=UTC)
    assert times == sorted(times)
    assert start <= times[0]
    assert times[-1] < start + timedelta(hours=1)


def test_more_hosts_than_agents() -> None:
    assert [Workload(agents=2, hosts=3).host(i).num_rows for i in range(3)] == [0, 1, 1]


@pytest.mark.parametrize(
    "wrong", [{"agents": 0}, {"hosts": -1}, {"median_ms": 0}, {"seed": -1}, {"period": timedelta()}]
)
def test_a_wrong_number_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"positive|negative"):
        Workload(**wrong)


def test_the_source_keeps_the_contract() -> None:
    keys = tuple("abcdefg")
    check_source(lambda: GeneratedSource(SMALL, keys, batch_rows=1000))
    source = GeneratedSource(SMALL, keys, only=[5, 2], batch_rows=1000)
    check_source(lambda: source)
    assert source.list_parts() == ["2", "5"]
    assert source.total_rows == SMALL.host(2).num_rows + SMALL.host(5).num_rows


def test_rows_come_under_the_key_of_their_host() -> None:
    part = GeneratedSource(SMALL, tuple("abcdefg")).build_part("s", "3", None)
    ((key, rows),) = part.next_batch()
    assert key == "d"
    assert rows.equals(SMALL.host(3))


def test_a_rate_spreads_a_host_over_time() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    source = GeneratedSource(SMALL, tuple("abcdefg"), rate=100.0, clock=lambda: now)
    part = source.build_part("s", "3", 143)
    assert part.next_awake() == now
    ((_, rows),) = part.next_batch()
    assert rows.num_rows == 143
    assert part.next_awake() == now + timedelta(seconds=1.43)


def test_wrong_hosts_are_refused() -> None:
    with pytest.raises(ValueError, match="2 keys for 7 hosts"):
        GeneratedSource(SMALL, ("a", "b"))
    with pytest.raises(ValueError, match="not all below 7"):
        GeneratedSource(SMALL, tuple("abcdefg"), only=[7])
    with pytest.raises(ValueError, match="host 7"):
        SMALL.host(7)
