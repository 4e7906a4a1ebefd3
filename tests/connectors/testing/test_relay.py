"""The relay between plain UDP sockets."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from connectors.testing import Counts, UdpRelay


def udp(family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
    made = socket.socket(family, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    made.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
    made.settimeout(10)
    return made


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with udp() as made:
        yield made


@pytest.fixture
def client() -> Iterator[socket.socket]:
    with udp() as made:
        yield made


def until(condition: Callable[[], bool]) -> None:
    """Wait for what the relay's thread is about to do."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def received(at: socket.socket) -> list[int]:
    """Return the numbers in the datagrams that came before an empty one."""
    numbers = []
    while data := at.recv(65_536):
        numbers.append(int.from_bytes(data, "big"))
    return numbers


def send_numbers(relay: UdpRelay, client: socket.socket, count: int) -> None:
    for number in range(count):
        client.sendto(number.to_bytes(4, "big"), relay.address)
        if number % 50 == 0:  # no faster than the relay takes them
            until_taken(relay, number + 1)


def taken(counts: Counts) -> int:
    return counts.forwarded - counts.duplicated + counts.lost


def until_taken(relay: UdpRelay, count: int) -> None:
    until(lambda: taken(relay.up) >= count)


def fates(server: socket.socket, seed: int, loss: float, count: int) -> list[int]:
    """Return the numbers of the datagrams that pass."""
    with UdpRelay(server.getsockname(), loss=loss, seed=seed) as relay, udp() as client:
        send_numbers(relay, client, count)
        until(lambda: taken(relay.up) == count)
        passed = [server.recv(100) for _ in range(relay.up.forwarded)]
        assert relay.up == Counts(len(passed), count - len(passed), 0, 0)
        assert relay.down == Counts()
        return [int.from_bytes(data, "big") for data in passed]


class TestPassing:
    def test_any_number_of_clients_both_ways(self, server: socket.socket) -> None:
        clients = [udp() for _ in range(20)]
        with UdpRelay(server.getsockname()) as relay:
            for number, client in enumerate(clients):
                client.sendto(b"%d" % number, relay.address)
            places = {}
            for _ in clients:
                data, place = server.recvfrom(100)
                places[place] = data
            assert len(places) == relay.clients == 20
            for place, data in places.items():
                server.sendto(b"to " + data, place)
            for number, client in enumerate(clients):
                assert client.recvfrom(100) == (b"to %d" % number, relay.address)
            until(lambda: relay.counts.forwarded == 40)
            assert relay.counts == Counts(40, 0, 0, 0)
            assert relay.up == relay.down == Counts(20, 0, 0, 0)
        for client in clients:
            client.close()

    @pytest.mark.parametrize("size", [0, 1, 1200, 16_000, 65_507])
    def test_any_size_unchanged(
        self, server: socket.socket, client: socket.socket, size: int
    ) -> None:
        data = random.Random(size).randbytes(size)
        with UdpRelay(server.getsockname()) as relay:
            client.sendto(data, relay.address)
            found, place = server.recvfrom(65_536)
            server.sendto(found, place)
            assert client.recv(65_536) == data

    def test_over_ipv6(self) -> None:
        try:
            server, client = udp(socket.AF_INET6), udp(socket.AF_INET6)
        except OSError:
            pytest.skip("no IPv6 here")
        with server, client, UdpRelay(server.getsockname()[:2]) as relay:
            client.sendto(b"six", relay.address)
            data, place = server.recvfrom(100)
            server.sendto(data, place)
            assert client.recv(100) == b"six"

    def test_a_target_that_starts_later(
        self, client: socket.socket, caplog: pytest.LogCaptureFixture
    ) -> None:
        with udp() as reserved:
            place = reserved.getsockname()
        with UdpRelay(place) as relay:
            for _ in range(3):
                client.sendto(b"early", relay.address)
            until(lambda: taken(relay.up) == 3)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
                server.bind(place)
                server.settimeout(10)
                # The first may bear the refusal of an earlier one.
                for _ in range(2):
                    client.sendto(b"late", relay.address)
                assert server.recv(100) == b"late"
        assert not caplog.records  # the refusals did not reach the event loop


class TestChance:
    def test_loss_is_drawn_from_the_seed(self, server: socket.socket) -> None:
        first = fates(server, 7, 0.3, 1000)
        assert 600 < len(first) < 800
        assert fates(server, 7, 0.3, 1000) == first
        assert fates(server, 8, 0.3, 1000) != first

    @pytest.mark.parametrize(("loss", "count"), [(0.0, 300), (1.0, 0)])
    def test_none_and_all(self, server: socket.socket, loss: float, count: int) -> None:
        assert len(fates(server, 1, loss, 300)) == count

    def test_directions_are_drawn_apart(self, server: socket.socket, client: socket.socket) -> None:
        # The fate of a datagram does not depend on how many came the other way.
        alone = fates(server, 7, 0.3, 400)
        with UdpRelay(server.getsockname(), loss=0.3, seed=7) as relay:
            passed: list[int] = []
            for number in range(400):
                before = relay.up.forwarded
                client.sendto(number.to_bytes(4, "big"), relay.address)
                until_taken(relay, number + 1)
                if relay.up.forwarded > before:
                    data, place = server.recvfrom(100)
                    passed.append(int.from_bytes(data, "big"))
                    server.sendto((len(passed) - 1).to_bytes(4, "big"), place)
            until(lambda: taken(relay.down) == len(passed))
            back = [int.from_bytes(client.recv(100), "big") for _ in range(relay.down.forwarded)]
        assert passed == alone
        assert 0 < len(back) < len(passed)
        assert back != [number for number in alone if number < len(passed)]

    def test_duplicates(self, server: socket.socket, client: socket.socket) -> None:
        with UdpRelay(server.getsockname(), duplicate=0.2, seed=3) as relay:
            send_numbers(relay, client, 500)
            until(lambda: taken(relay.up) == 500)
            seen = Counter(server.recv(100) for _ in range(relay.up.forwarded))
        assert len(seen) == 500
        assert Counter(seen.values())[2] == relay.up.duplicated
        assert 60 < relay.up.duplicated < 140
        assert set(seen.values()) == {1, 2}

    def test_reordered_ones_are_overtaken_by_the_next(
        self, server: socket.socket, client: socket.socket
    ) -> None:
        with UdpRelay(server.getsockname(), reorder=0.2, seed=3) as relay:
            send_numbers(relay, client, 500)
            until(lambda: taken(relay.up) == 500)
            numbers = [int.from_bytes(server.recv(100), "big") for _ in range(500)]
        assert sorted(numbers) == list(range(500))
        overtaken = sum(a > b for a, b in pairwise(numbers))
        assert overtaken == relay.up.reordered
        assert 50 < overtaken < 130
        assert all(abs(place - number) <= 1 for place, number in enumerate(numbers))

    def test_one_that_nothing_follows_arrives_all_the_same(
        self, server: socket.socket, client: socket.socket
    ) -> None:
        with UdpRelay(server.getsockname(), reorder=1.0) as relay:
            client.sendto(b"last", relay.address)
            assert server.recv(100) == b"last"
            until(lambda: relay.up.forwarded == 1)
            assert relay.up == Counts(1, 0, 0, 0)

    def test_delay_in_order(self, server: socket.socket, client: socket.socket) -> None:
        with UdpRelay(server.getsockname(), delay=0.05) as relay:
            start = time.monotonic()
            for number in range(100):
                client.sendto(number.to_bytes(4, "big"), relay.address)
            client.sendto(b"", relay.address)
            assert received(server) == list(range(100))
            assert time.monotonic() - start >= 0.05

    @pytest.mark.parametrize(
        ("setting", "value"), [("loss", -0.1), ("duplicate", 1.1), ("reorder", 2.0), ("delay", -1)]
    )
    def test_settings_out_of_range(self, setting: str, value: float) -> None:
        with pytest.raises(ValueError, match=f"{setting}={value}"):
            UdpRelay(("127.0.0.1", 9), **{setting: value})  # type: ignore[arg-type]


class TestEvents:
    def test_nothing_passes_a_partition(self, server: socket.socket, client: socket.socket) -> None:
        with UdpRelay(server.getsockname()) as relay:
            client.sendto(b"before", relay.address)
            _, place = server.recvfrom(100)
            relay.partition()
            for _ in range(10):
                client.sendto(b"lost", relay.address)
                server.sendto(b"lost", place)
            until(lambda: relay.up.lost == relay.down.lost == 10)
            relay.heal()
            client.sendto(b"after", relay.address)
            server.sendto(b"after", place)
            assert server.recv(100) == client.recv(100) == b"after"

    def test_what_is_delayed_is_lost_too(
        self, server: socket.socket, client: socket.socket
    ) -> None:
        with UdpRelay(server.getsockname(), delay=0.2) as relay:
            client.sendto(b"under way", relay.address)
            until(lambda: relay.clients == 1)
            relay.partition()
            until(lambda: relay.up.lost == 1)

    def test_what_comes_in_a_partition_does_not_outlast_it(
        self, server: socket.socket, client: socket.socket
    ) -> None:
        with UdpRelay(server.getsockname(), delay=0.05) as relay:
            relay.partition()
            client.sendto(b"lost", relay.address)
            until(lambda: relay.clients == 1)
            relay.heal()
            client.sendto(b"after", relay.address)
            assert server.recv(100) == b"after"

    def test_clients_move_to_other_ports(self, server: socket.socket) -> None:
        clients = [udp(), udp()]
        with UdpRelay(server.getsockname()) as relay:
            old = []
            for client in clients:
                client.sendto(b"first", relay.address)
                old.append(server.recvfrom(100)[1])
            relay.change_addresses()
            new = []
            for client in clients:
                client.sendto(b"second", relay.address)
                new.append(server.recvfrom(100)[1])
            assert len({*old, *new}) == 4
            for client, before, after in zip(clients, old, new, strict=True):
                server.sendto(b"to the old place", before)
                server.sendto(b"to the new place", after)
                assert client.recv(100) == b"to the new place"
        for client in clients:
            client.close()

    def test_it_leaves_neither_thread_nor_port(
        self, server: socket.socket, client: socket.socket
    ) -> None:
        before = threading.active_count()
        with UdpRelay(server.getsockname(), delay=60.0, reorder=0.5) as relay:
            client.sendto(b"held or delayed", relay.address)
            until(lambda: relay.clients == 1)
            place = relay.address
            assert threading.active_count() == before + 1
        assert threading.active_count() == before
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
            again.bind(place)
