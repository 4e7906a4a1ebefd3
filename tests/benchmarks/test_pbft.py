"""The consensus benchmark measures, and replicas and transports agree."""

import json
import shutil
from pathlib import Path

import pytest

from benchmarks.json_process import ProcessFailed
from benchmarks.pbft import QUICK, main
from benchmarks.pbft_group import Pool, Running
from benchmarks.pbft_load import Load, Results
from connectors.quic import Limits
from state.pbft import Operation, Settings
from state.pbft.machines.store import Store, Written, result


def test_a_short_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--quick", "--logs", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    line = json.loads(lines[-1])
    assert line["equal"]
    assert set(line["sides"]) == {side.name for side in QUICK}
    for side in QUICK:
        found = line["sides"][side.name]
        assert found["p50"][0] > 0
        assert found["cpu"][0] > 0
        assert set(found["rates"]) == {str(batch) for batch in side.batches}
        assert bool(found["lost"]) == bool(side.loss)
    assert not list(tmp_path.iterdir()), "nothing is left"


def test_rivals_are_measured_where_the_kernel_loses_packets(
    capsys: pytest.CaptureFixture[str],
) -> None:
    try:
        main(["--quick", "--loss", "0.02", "--only", "TCP"])
    except SystemExit:
        pytest.skip(f"`make nftables` as root lets it run: {capsys.readouterr().err}")
    lines = capsys.readouterr().out.splitlines()
    line = json.loads(lines[-1])
    assert line["equal"]
    [found] = line["sides"].values()
    assert found["p50"][0] > 0
    assert any(text.startswith("the kernel dropped") for text in lines)


def test_a_flow_that_fails_ends_the_measurement_and_says_why(tmp_path: Path) -> None:
    settings = Settings(checkpoint=4)
    with (
        Pool(tmp_path, 4) as pool,
        Running(pool, 4, "dataflow", settings, limits=Limits()) as running,
    ):
        running.ask(Load(1, 1, 1, "a"))
        shutil.rmtree(tmp_path / "logs" / "r2")  # where its vote log is to be written anew
        with pytest.raises(ProcessFailed, match=r"r2 failed: FileNotFoundError.*logs/r2"):
            running.ask(Load(10_000, 1, 1, "b"))


@pytest.mark.parametrize("numbers", [[0, 1, 2, 3, 4, 5], [1, 0, 3, 2, 5, 4], [1, 3, 5, 0, 2, 4]])
def test_a_load_ends_in_one_state_however_its_lanes_overtake_each_other(
    numbers: list[int],
) -> None:
    load = Load(6, 3, 2, "k")
    store, results = Store(), Results(load)
    for number in numbers:
        answered = store.apply([Operation("c", data) for data in load.request(number)])
        assert [result(each) for each in answered] == [Written(True)] * 3
        results.add(number, answered)
    straight, same = Store(), Results(load)
    for number in range(6):
        same.add(number, straight.apply([Operation("c", data) for data in load.request(number)]))
    assert store.snapshot() == straight.snapshot()
    assert results.digest() == same.digest()


@pytest.mark.parametrize("numbers", [[0, 0], [2, 0]])
def test_a_request_that_comes_twice_or_too_soon_shows(numbers: list[int]) -> None:
    load = Load(6, 3, 2, "k")
    store = Store()
    found = [
        result(store.apply([Operation("c", data) for data in load.request(number)])[0])
        for number in numbers
    ]
    assert any(not each.done for each in found if isinstance(each, Written))
