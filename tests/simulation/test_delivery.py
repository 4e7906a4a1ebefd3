"""A link under a seeded schedule of deaths, lost connections and slow ends: nothing is lost or
doubled. Time, threads and sockets are not in it; `tests/connectors/quic` has those."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping

import pytest

from state.delivery import Arrival, Inbox, LinkError, Outbox, Position, Session
from state.frames import Ack, Data, End, Ended, Frame, Hello, Kind, Schema, Welcome

ITEMS = 40


class Disk:
    """What a spool promises: frames survive the death of the sender."""

    def __init__(self) -> None:
        self.incarnation = 1
        self.first = 0
        self.frames: list[Data] = []
        self.schemas = {1: b"schema"}
        self.at = 0

    @property
    def next(self) -> int:
        return len(self.frames)

    def read(self, sequence: int, limit: int) -> list[Data]:
        assert sequence >= self.first, "a pruned frame was read"
        return self.frames[sequence : sequence + max(1, limit // 40)]

    def prune(self, sequence: int) -> None:
        assert sequence <= self.next
        self.first = max(self.first, sequence)

    def append(self, body: bytes) -> None:
        if self.at < len(self.frames):
            assert self.frames[self.at].body == body, "the flow was not repeatable"
        else:
            self.frames.append(Data(self.at, Kind.BATCH, 1, body))
        self.at += 1


class Sender:
    """A flow that numbers its items, with snapshots; `salt` makes each life's items differ."""

    def __init__(self, disk: Disk, durable: int, released: int, *, hold: bool, salt: int) -> None:
        self.disk, self.hold, self.salt = disk, hold, salt
        self.finished = False
        self.durable = self.snapshotted = durable
        if hold:
            del disk.frames[max(durable, released) :]
        self.outbox = Outbox(disk, "c")
        disk.at = durable
        self.outbox.release(max(durable, released) if hold else 1 << 60)

    def produce(self) -> None:
        if self.disk.at < ITEMS:
            kept = self.hold and self.disk.at < len(self.disk.frames)
            body = b"%d" % self.disk.at
            if self.hold and not kept:
                body += b" in life %d" % self.salt
            elif kept:
                body = self.disk.frames[self.disk.at].body
            self.disk.append(body)
        if self.disk.at == ITEMS and not self.finished:
            self.finished = True
            self.outbox.release(ITEMS)
            self.outbox.finish(ITEMS)

    def snapshot(self) -> None:
        self.commit()
        self.snapshotted = self.disk.at

    def commit(self) -> None:
        self.durable = self.snapshotted
        self.outbox.release(self.durable)


class Receiver:
    def __init__(self, positions: dict[str, Position], items: list[bytes]) -> None:
        self.durable = self.snapshotted = (positions, items)
        self.items = list(items)
        self.inbox = Inbox(positions, window=300)
        self.queue: deque[tuple[object, bytes | None]] = deque()
        self.session: Session | None = None

    def take(self) -> None:
        if self.queue:
            arrival, body = self.queue.popleft()
            self.inbox.taken(arrival)  # type: ignore[arg-type]
            if body is not None:
                self.items.append(body)

    def snapshot(self) -> None:
        self.commit()
        self.snapshotted = (self.inbox.snapshot(), list(self.items))

    def commit(self) -> None:
        self.durable = self.snapshotted
        self.inbox.committed()


class World:
    def __init__(self, seed: int, *, hold: bool) -> None:
        self.random = random.Random(seed)
        self.hold = hold
        self.lives = 0
        self.disk = Disk()
        self.sender = Sender(self.disk, 0, 0, hold=hold, salt=0)
        self.receiver = Receiver({}, [])
        self.up = False
        self.schemas: set[int] = set()
        self.there: deque[Frame] = deque()
        self.back: deque[Frame] = deque()

    def hang_up(self) -> None:
        self.up = False
        self.there.clear()
        self.back.clear()
        self.sender.outbox.disconnect()
        self.receiver.session = None
        self.schemas.clear()

    def connect(self) -> None:
        if not self.up:
            self.up = True
            self.there.append(self.sender.outbox.connect())

    def deliver(self) -> None:
        if self.there:
            frame = self.there.popleft()
            receiver = self.receiver
            if isinstance(frame, Hello):
                receiver.session = receiver.inbox.admit("s", frame)
                self.back.extend(receiver.session.welcome())
                return
            assert receiver.session is not None
            if isinstance(frame, Schema):
                assert frame.id not in self.schemas, "a schema came twice in one stream"
                self.schemas.add(frame.id)
            elif isinstance(frame, Data):
                assert frame.schema in self.schemas, "a batch came before its schema"
            arrival = receiver.session.receive(frame)
            if arrival is not None:
                body = frame.body if isinstance(frame, Data) else None
                receiver.queue.append((arrival, body))
            if isinstance(frame, End):
                self.back.extend(receiver.session.replies())

    def answer(self) -> None:
        if self.back:
            self.sender.outbox.receive(self.back.popleft())
        if self.up and self.receiver.session is not None:
            self.back.extend(self.receiver.session.replies())

    def send(self) -> None:
        self.there.extend(self.sender.outbox.to_send())

    def kill_sender(self) -> None:
        self.lives += 1
        old = self.sender
        self.hang_up()
        released = min(old.outbox.released, len(self.disk.frames))
        self.sender = Sender(self.disk, old.durable, released, hold=self.hold, salt=self.lives)

    def kill_receiver(self) -> None:
        self.hang_up()
        self.receiver = Receiver(*self.receiver.durable)

    def run(self, steps: int) -> None:
        s, r = (lambda: self.sender), (lambda: self.receiver)
        moves = [
            (self.connect, 4), (self.send, 20), (self.deliver, 30), (self.answer, 20),
            (lambda: s().produce(), 10), (lambda: s().snapshot(), 2), (lambda: s().commit(), 2),
            (lambda: r().take(), 20), (lambda: r().snapshot(), 3), (lambda: r().commit(), 3),
            (self.hang_up, 1), (self.kill_sender, 1), (self.kill_receiver, 1),
        ]  # fmt: skip
        chosen = self.random.choices([m for m, _ in moves], [w for _, w in moves], k=steps)
        for move in chosen:
            move()

    def settle(self) -> None:
        """Let everything happen that can, with no more deaths."""
        for _ in range(2000):
            if self.sender.outbox.ended:
                return
            for move in (self.connect, self.send, self.deliver, self.answer, self.sender.produce):
                move()
            self.sender.snapshot()
            self.receiver.take()
            self.receiver.snapshot()
        raise AssertionError("the link did not come to its end")


@pytest.mark.parametrize("hold", [False, True])
@pytest.mark.parametrize("block", range(10))
def test_every_item_arrives_once_whoever_dies(block: int, hold: bool) -> None:
    for seed in range(block * 100, block * 100 + 100):
        world = World(seed, hold=hold)
        world.run(world.random.randrange(50, 3000))
        world.settle()
        _, items = world.receiver.durable
        sent = [frame.body for frame in world.disk.frames]
        assert items == sent, f"seed {seed}"
        assert [int(item.split()[0]) for item in items] == list(range(ITEMS)), f"seed {seed}"


def test_a_receiver_that_lost_its_state_is_found_out() -> None:
    world = World(0, hold=False)
    while world.disk.first == 0:
        world.run(100)
    world.hang_up()
    world.receiver = Receiver({}, [])
    with pytest.raises(LinkError, match="the receiver lost its state"):
        world.settle()


def test_a_sender_that_lost_its_spool_is_found_out() -> None:
    world = World(0, hold=False)
    while len(world.receiver.items) < 10:
        world.run(100)
    world.hang_up()
    world.disk = Disk()
    world.sender = Sender(world.disk, 0, 0, hold=False, salt=0)
    with pytest.raises(LinkError, match="spool was lost"):
        world.settle()


def test_a_stale_sender_is_refused() -> None:
    inbox = Inbox({"s": Position(7, 3)}, window=100)
    with pytest.raises(LinkError, match="newer incarnation"):
        inbox.admit("s", Hello(1, "c", "", 6, 0, 0))


def test_a_new_incarnation_begins_at_zero() -> None:
    inbox = Inbox({"s": Position(7, 3)}, window=100)
    welcome = inbox.admit("s", Hello(1, "c", "", 8, 0, 5)).welcome()[0]
    assert isinstance(welcome, Welcome)
    assert welcome.next == 0


def test_unread_bytes_stay_within_the_window() -> None:
    inbox = Inbox({}, window=300)
    session = inbox.admit("s", Hello(1, "c", "", 1, 0, 0))
    session.welcome()
    sequence = 0
    while session.unread < 300:
        session.receive(Data(sequence, Kind.BYTES, 0, bytes(10)))
        sequence += 1
    with pytest.raises(LinkError, match="credit"):
        session.receive(Data(sequence, Kind.BYTES, 0, bytes(10)))


def test_unread_bytes_stay_within_the_window_however_often_the_link_breaks() -> None:
    inbox = Inbox({}, window=300)
    waiting: list[Arrival] = []
    sequence = 0
    for turn in range(50):
        session = inbox.admit("s", Hello(1, "c", "", 1, 0, 10**6))
        (welcome, *_) = session.welcome()
        assert isinstance(welcome, Welcome)
        got, credit = 0, welcome.credit
        for _ in range(turn % 4):  # and then it breaks
            if got >= credit:
                with pytest.raises(LinkError, match="credit"):
                    session.receive(Data(sequence, Kind.BYTES, 0, bytes(10)))
                break
            arrival = session.receive(Data(sequence, Kind.BYTES, 0, bytes(10)))
            assert arrival is not None
            waiting.append(arrival)
            got += 42
            sequence += 1
        assert session.unread == 42 * len(waiting) <= 300 + 42
        if turn == 30:  # the flow wakes up for a while
            for arrival in waiting[:5]:
                inbox.taken(arrival)
            del waiting[:5]
    for arrival in waiting:
        inbox.taken(arrival)
    assert session.unread == 0
    (ack,) = session.replies()
    assert isinstance(ack, Ack)
    assert ack.credit - session.consumed == 300


@pytest.mark.parametrize("breaks", [False, True])
def test_a_sender_that_goes_on_after_its_end_hears_of_the_new_one(breaks: bool) -> None:
    inbox = Inbox({}, window=300)
    log = Kept(0, 3)
    told: list[bool] = []
    outbox = Outbox(log, "c")
    for count in (3, 4, 5):
        if told and breaks:
            outbox = Outbox(log, "c")  # its process was started again
        if breaks or not told:
            session = inbox.admit("s", outbox.connect())
            for frame in session.welcome():
                outbox.receive(frame)
        log.next = count
        outbox.release(count)
        outbox.finish(count)
        for frame in outbox.to_send():
            arrival = session.receive(frame)
            if arrival is not None:
                inbox.taken(arrival)
        told.append(outbox.ended)
        inbox.snapshot()
        inbox.committed()
        for frame in session.replies():
            outbox.receive(frame)
        told.append(outbox.ended)
        assert session.replies() == []
    assert told == [False, True] * 3


@pytest.mark.parametrize("frame", [Data(1, Kind.BYTES, 0, b""), End(1), Hello(1, "c", "", 1, 0, 0)])
def test_frames_that_are_not_due_are_refused(frame: Frame) -> None:
    session = Inbox({}, window=300).admit("s", Hello(1, "c", "", 1, 0, 0))
    with pytest.raises(LinkError):
        session.receive(frame)


class Kept:
    """A log of which only the numbers matter."""

    incarnation = 1
    schemas: Mapping[int, bytes] = {}

    def __init__(self, first: int, next: int) -> None:  # noqa: A002
        self.first, self.next = first, next

    def read(self, sequence: int, limit: int) -> list[Data]:
        return [Data(sequence, Kind.BYTES, 0, b"")]

    def prune(self, sequence: int) -> None:
        self.first = max(self.first, sequence)


def restarted(durable: int) -> Outbox:
    """A sender whose receiver told it, before its flow was back at its end, that all is there."""
    outbox = Outbox(Kept(0, 5), "c")
    outbox.connect()
    for frame in (Welcome(5, 100), Ack(durable, 100), Ended()):
        outbox.receive(frame)
    outbox.disconnect()
    return outbox


def test_a_sender_that_heard_of_its_end_too_early_remembers() -> None:
    outbox = restarted(5)
    assert not outbox.ended
    outbox.finish(5)
    assert outbox.ended


def test_an_end_before_later_items_is_not_the_end() -> None:
    outbox = restarted(5)
    outbox.finish(6)
    assert not outbox.ended
    outbox.connect()
    outbox.receive(Welcome(5, 100))
    outbox.receive(Ended())
    assert not outbox.ended
