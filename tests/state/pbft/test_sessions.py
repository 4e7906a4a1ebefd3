import random
from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from state.pbft.messages import Request
from state.pbft.sessions import Result, Sessions

HISTORY = bytes(32)


def run(sessions: Sessions, requests: list[Request]) -> list[int]:
    """Execute what is due; return the numbers."""
    done = []
    for request in requests:
        if sessions.due(request):
            sessions.put(request, Result(len(done) + 1, HISTORY, [b"r"]))
            done.append(request.number)
    return done


def test_requests_in_any_order_and_again_are_executed_once() -> None:
    requests = [Request("c", number, 1, [b"x"]) for number in (1, 2, 3)]
    for order in permutations(requests):
        sessions = Sessions(width=8)
        assert sorted(run(sessions, [*order, *order])) == [1, 2, 3]


def test_results_are_kept_until_the_client_has_them() -> None:
    sessions = Sessions(width=8)
    run(sessions, [Request("c", number, 1, [b"x"]) for number in (1, 2)])
    assert sessions.result("c", 1) is not None
    run(sessions, [Request("c", 3, 2, [b"x"])])
    assert sessions.result("c", 1) is None
    assert sessions.over("c", 1)
    assert sessions.result("c", 2) is not None


def test_what_is_below_the_answered_is_never_executed() -> None:
    sessions = Sessions(width=8)
    late = Request("c", 1, 1, [b"x"])
    assert run(sessions, [Request("c", 5, 5, [b"x"]), late]) == [5]
    assert sessions.over("c", 1)
    assert not sessions.over("d", 1)


def test_a_client_has_at_most_width_results() -> None:
    sessions = Sessions(width=4)
    assert run(sessions, [Request("c", n, 1, [b"x"]) for n in range(1, 100)]) == [1, 2, 3, 4]
    # One far ahead is executed once the client says that it has what came before.
    assert run(sessions, [Request("c", 50, 47, [b"x"]), Request("c", 51, 47, [b"x"])]) == [50]
    # What it said before does not keep back what it sent then.
    assert run(sessions, [Request("c", 49, 1, [b"x"]), Request("c", 46, 1, [b"x"])]) == [49]


@given(
    st.lists(st.tuples(st.sampled_from("cd"), st.integers(1, 12), st.integers(1, 12)), max_size=40)
)
def test_never_twice_and_the_same_from_a_copy(steps: list[tuple[str, int, int]]) -> None:
    """At any point another replica may begin with what `rows` gives; it decides all the same."""
    requests = [Request(client, number, low, [b"x"]) for client, number, low in steps]
    sessions, executed = Sessions(width=5), set()
    for i, request in enumerate(requests):
        copy = Sessions(width=5)
        copy.restore(sessions.rows())
        assert copy.due(request) == sessions.due(request)
        assert copy.rows() == sessions.rows()
        assert copy.over(request.client, request.number) == sessions.over(
            request.client, request.number
        )
        if sessions.due(request):
            key = (request.client, request.number)
            assert key not in executed
            executed.add(key)
            sessions.put(request, Result(i + 1, HISTORY, [b"r"]))
        assert all(len(row.results) <= 5 for row in sessions.rows())


def test_rows_do_not_tell_in_which_order_clients_came() -> None:
    requests = [Request(client, number, 1, [b"x"]) for client in "abc" for number in (1, 2)]
    rng = random.Random(3)
    results = {(each.client, each.number): Result(1, HISTORY, [b"r"]) for each in requests}
    seen = []
    for _ in range(5):
        rng.shuffle(requests)
        sessions = Sessions(width=4)
        for request in requests:
            sessions.put(request, results[request.client, request.number])
        seen.append(sessions.rows())
    assert all(rows == seen[0] for rows in seen)
