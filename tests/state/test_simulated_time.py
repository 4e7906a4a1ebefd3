import math

from state.simulated_time import SimulatedTime


def test_what_is_due_happens_in_order_and_at_its_time() -> None:
    time, seen = SimulatedTime(), list[tuple[str, float]]()

    def note(name: str, at: float) -> None:
        time.schedule(at, lambda: seen.append((name, time.now)))

    note("late", 2.5)
    note("a", 1.0)
    note("b", 1.0)
    note("never", math.inf)
    time.run(2.0)
    assert seen == [("a", 1.0), ("b", 1.0)]
    assert time.now == 2.0
    note("over", 0.5)
    time.run(1.0)
    assert seen[2:] == [("over", 2.0), ("late", 2.5)]
    assert time.now == 3.0


def test_it_runs_until_something_holds_or_the_limit_is_reached() -> None:
    time, seen = SimulatedTime(), list[int]()
    time.schedule(1.0, lambda: seen.append(1))
    assert not time.run_until(lambda: bool(seen), limit=0.5)
    assert time.now < 1.0
    assert time.run_until(lambda: bool(seen), limit=5.0)
    assert 1.0 <= time.now < 1.1
