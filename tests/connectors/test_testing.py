"""Each clause of the contract is caught when it is broken, and sound connectors pass."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from bytewax.connectors.files import DirSink, FileSource
from bytewax.inputs import (
    DynamicSource,
    FixedPartitionedSource,
    StatefulSourcePartition,
    StatelessSourcePartition,
)
from bytewax.outputs import (
    DynamicSink,
    FixedPartitionedSink,
    StatefulSinkPartition,
    StatelessSinkPartition,
)
from bytewax.testing import TestingSink, TestingSource

from connectors.market import ReplaySource
from connectors.schedule import CronSource
from connectors.testing import check_sink, check_source
from state.schemas import TICKS

ROWS = [[1, 2], [3], [], [4, 5, 6], [7]]


class SoundPart(StatefulSourcePartition):
    def __init__(self, state):
        self.next = state or 0

    def next_batch(self) -> Iterable:
        if self.next >= len(ROWS):
            raise StopIteration
        self.next += 1
        return ROWS[self.next - 1]

    def snapshot(self):
        return self.next


class SoundSource(FixedPartitionedSource):
    part = SoundPart

    def list_parts(self):
        return ["a", "b"]

    def build_part(self, step_id, for_part, resume_state):
        return self.part(resume_state)


def source_with(part):
    return type("Source", (SoundSource,), {"part": part})


def batch(times, prices):
    schema = pa.schema([pa.field("time", pa.timestamp("us", "UTC")), ("price", pa.float64())])
    return pa.record_batch([pa.array(times, schema.field("time").type), prices], schema=schema)


NOW = datetime(2025, 1, 1, tzinfo=UTC)
GOOD = batch([NOW, NOW], [1.0, float("nan")])


def test_sound_sources_pass(tmp_path):
    check_source(SoundSource)
    check_source(lambda: TestingSource(range(7), batch_size=2))
    check_source(lambda: TestingSource([GOOD, GOOD.slice(1)]), schema=GOOD.schema)
    check_source(lambda: ReplaySource(["VIX"], batch_rows=100), schema=TICKS)
    lines = tmp_path / "lines"
    lines.write_text("a\nb\nc\nd\ne\n")
    check_source(lambda: FileSource(lines, batch_size=2))
    end = NOW + timedelta(hours=3)
    check_source(lambda: CronSource("*/20 * * * *", start=NOW, until=end, missed="all"))


def test_an_endless_source_is_checked_up_to_the_limit():
    class Endless(SoundPart):
        def next_batch(self):
            self.next += 1
            return [self.next]

    check_source(source_with(Endless), limit=20)

    class Skips(Endless):
        def __init__(self, state):
            self.next = state + 1 if state else 0

    with pytest.raises(AssertionError, match=r"^resume: .* after 1 of 20 rows"):
        check_source(source_with(Skips), limit=20)


class Naive(SoundPart):
    def next_awake(self):
        return datetime(2025, 1, 1)


class Text(SoundPart):
    def next_awake(self):
        return "soon"


class Later(SoundPart):
    def next_awake(self):
        return datetime.now(UTC) + timedelta(days=1)


class Nothing(SoundPart):
    def next_batch(self):
        return []


class NoBatch(SoundPart):
    def next_batch(self):
        super().next_batch()


class ComesBack(SoundPart):
    ended = False

    def next_batch(self):
        if self.ended:
            return []
        try:
            return super().next_batch()
        except StopIteration:
            self.ended = True
            raise


class Unpicklable(SoundPart):
    def snapshot(self):
        return lambda: self.next


class Aliased(SoundPart):
    def __init__(self, state):
        self.state = state or {"next": 0}

    next = property(
        lambda self: self.state["next"], lambda self, value: self.state.update(next=value)
    )

    def snapshot(self):
        return self.state


class Doubles(SoundPart):
    def snapshot(self):
        return max(0, self.next - 1)


class Loses(SoundPart):
    def __init__(self, state):
        self.next = state + 1 if state and state < 3 else state or 0


class ForgetsTheEnd(SoundPart):
    def __init__(self, state):
        self.next = 0 if state == len(ROWS) else state or 0


class SnapshotReads(SoundPart):
    def snapshot(self):
        self.next += self.next == 1
        return self.next


class ClosesOnce(SoundPart):
    closed = False

    def close(self):
        if self.closed:
            raise RuntimeError("closed already")
        self.closed = True


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (Naive, "^awake: .*2025, 1, 1.* not a datetime with a time zone"),
        (Text, "^awake: .*'soon'"),
        (Later, "^awake: .*clock of its own"),
        (Nothing, "^awake: .* has nothing for 0.1 s"),
        (NoBatch, "^batch: .*returned None"),
        (ComesBack, "^end: "),
        (Unpicklable, "^snapshot: .*cannot be pickled"),
        (Aliased, "^snapshot: .*changed later"),
        (Doubles, r"^resume: partition 'a', resumed after 2 of 7 rows, emits 1 as row 0, not 3"),
        (Loses, r"^resume: partition 'a', resumed after 2 of 7 rows, emits 4 as row 0, not 3"),
        (ForgetsTheEnd, r"^resume: .* after 7 of 7 rows, emits 7 rows, not 0"),
        (SnapshotReads, "^repeat: "),
        (ClosesOnce, "^close: .*closed already"),
    ],
)
def test_broken_partitions_are_caught(part, message):
    with pytest.raises(AssertionError, match=message):
        check_source(source_with(part), patience=0.1)


def test_a_source_that_differs_each_time_is_caught_unless_it_may():
    made = []

    class Fresh(SoundPart):
        def __init__(self, state):
            super().__init__(state)
            made.append(self)
            self.number = len(made)

        def next_batch(self):
            return [(self.number, row) for row in super().next_batch()]

    with pytest.raises(
        AssertionError, match=r"^repeat: partition 'a', built again, emits \(2, 1\)"
    ):
        check_source(source_with(Fresh))
    check_source(source_with(Fresh), repeatable=False)


@pytest.mark.parametrize("names", [["a", "a"], [1, 2], [b"a"]])
def test_bad_partition_names_are_caught(names):
    broken = type("Broken", (SoundSource,), {"list_parts": lambda self: names})
    with pytest.raises(AssertionError, match=r"^parts: .*not unique strings"):
        check_source(broken)


def test_changing_partition_names_are_caught():
    class Changing(SoundSource):
        count = 0

        def list_parts(self):
            Changing.count += 1
            return [str(Changing.count)]

    with pytest.raises(AssertionError, match=r"^parts: .*not the same each time"):
        check_source(Changing)


NOT_NULL = pa.schema(
    [pa.field("time", pa.timestamp("us", "UTC")), pa.field("price", pa.float64(), nullable=False)]
)


@pytest.mark.parametrize(
    ("item", "schema", "message"),
    [
        ("text", GOOD.schema, "emitted 'text'"),
        (GOOD.select(["price"]), GOOD.schema, "price: double, not time"),
        (batch([None], [1.0]), GOOD.schema, "a null in 'time'"),
        (
            pa.RecordBatch.from_arrays(batch([NOW], [None]).columns, schema=NOT_NULL),
            NOT_NULL,
            "a null in 'price'",
        ),
    ],
)
def test_items_off_the_schema_are_caught(item, schema, message):
    with pytest.raises(AssertionError, match=f"^schema: .*{message}"):
        check_source(lambda: TestingSource([item]), schema=schema)


class Worker(StatelessSourcePartition):
    def __init__(self, items):
        self.items = list(items)

    def next_batch(self):
        if not self.items:
            raise StopIteration
        return [self.items.pop()]


class Spread(DynamicSource):
    def build(self, step_id, worker_index, worker_count):
        return Worker(range(worker_index, 10, worker_count))


class Everywhere(DynamicSource):
    def build(self, step_id, worker_index, worker_count):
        return Worker(range(10))


def test_workers_of_a_dynamic_source_share_its_items():
    check_source(Spread)
    with pytest.raises(AssertionError, match=r"^workers: 2 of them emitted 20 rows"):
        check_source(Everywhere)
    check_source(Everywhere, repeatable=False)


def test_what_is_no_connector_is_refused(tmp_path):
    with pytest.raises(TypeError, match="neither"):
        check_source(lambda: [1])
    with pytest.raises(TypeError, match="neither"):
        check_sink(lambda d: [1], ITEMS, lambda d: None)


ITEMS = [("k", "a"), ("k", "b"), ("q", "c"), ("k", "d")]


class LinePart(StatefulSinkPartition):
    """A sound sink: appends lines to a file, cut back on resume."""

    def __init__(self, path, state):
        self.path = path
        self.start(state or 0)

    def start(self, size):
        with self.path.open("ab") as file:
            file.truncate(size)
        self.size = size

    def write_batch(self, values):
        with self.path.open("ab") as file:
            file.write("".join(f"{v}\n" for v in values).encode())
            self.size = file.tell()

    def snapshot(self):
        return self.size


class LineSink(FixedPartitionedSink):
    part = LinePart

    def __init__(self, directory):
        self.directory = directory

    def list_parts(self):
        return ["0", "1"]

    def build_part(self, step_id, for_part, resume_state):
        return self.part(self.directory / for_part, resume_state)


def read_files(directory):
    return {path.name: path.read_text() for path in directory.iterdir()}


def sink_with(part):
    return type("Sink", (LineSink,), {"part": part})


def test_sound_sinks_pass():
    check_sink(LineSink, ITEMS, read_files)


def test_the_directory_sink_of_bytewax_passes():
    check_sink(lambda d: DirSink(d, 2), ITEMS, read_files)


class Appends(LinePart):
    def start(self, size):
        self.size = size


class FreshAppends(LinePart):
    def start(self, size):
        if size:
            super().start(size)


class LosesBuffer(LinePart):
    """Writes when it is closed, but says that it had written."""

    def __init__(self, path, state):
        super().__init__(path, state and state[0])
        self.held = []

    def write_batch(self, values):
        self.held += values

    def snapshot(self):
        return self.size, len(self.held)

    def close(self):
        held, self.held = self.held, []
        super().write_batch(held)


class FinishesOnClose(LinePart):
    """Takes every close for the end of input."""

    def __init__(self, path, state):
        if path.with_suffix(".done").exists():
            raise RuntimeError("was finished already")
        super().__init__(path, state)

    def close(self):
        self.path.with_suffix(".done").touch()


class NewLinePerBatch(LinePart):
    def write_batch(self, values):
        super().write_batch([" ".join(values)])


class EmptyLine(LinePart):
    def write_batch(self, values):
        super().write_batch(values or [""])


class AliasedSink(LinePart):
    def snapshot(self):
        self.__dict__.setdefault("state", []).append(self.size)
        return self.state

    def start(self, size):
        super().start(size[-1] if size else 0)


class UnpicklableSink(LinePart):
    def snapshot(self):
        return lambda: self.size


class ClosesOnceSink(LinePart):
    def close(self):
        self.path = self.path / "closed"
        assert self.path.name != self.path.parent.name, "closed already"


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (Appends, "^(resume|restart): .*the sink left"),
        (FreshAppends, "^restart: after a crash .*from the start"),
        (LosesBuffer, "^(resume|restart): "),
        (FinishesOnClose, "^resume: after a finished run.*was finished already"),
        (NewLinePerBatch, "^batch: items in one batch left"),
        (EmptyLine, "^batch: items with empty batches between"),
        (AliasedSink, "^snapshot: .*changed later"),
        (UnpicklableSink, "^snapshot: .*cannot be pickled"),
        (ClosesOnceSink, "^close: .*closed already"),
    ],
)
def test_broken_sinks_are_caught(part, message):
    with pytest.raises(AssertionError, match=message):
        check_sink(sink_with(part), ITEMS, read_files)


def test_a_route_that_changes_is_caught():
    class Wanders(LineSink):
        count = 0

        def part_fn(self, item_key):
            Wanders.count += 1
            return Wanders.count

    with pytest.raises(AssertionError, match=r"^parts: part_fn\('.'\) returned"):
        check_sink(Wanders, ITEMS, read_files)


class JsonWorker(StatelessSinkPartition):
    def __init__(self, path):
        self.path = path

    def write_batch(self, items):
        with self.path.open("a") as file:
            file.writelines(json.dumps(item) + "\n" for item in items)


class BatchWorker(JsonWorker):
    def write_batch(self, items):
        super().write_batch([items])


def dynamic(worker):
    class Sink(DynamicSink):
        def __init__(self, directory):
            self.directory = directory

        def build(self, step_id, worker_index, worker_count):
            return worker(self.directory / "out")

    return Sink


def test_dynamic_sinks():
    check_sink(dynamic(JsonWorker), [1, 2, 3], read_files)
    with pytest.raises(AssertionError, match=r"^batch: items one by one left"):
        check_sink(dynamic(BatchWorker), [1, 2, 3], read_files)
    seen = []
    check_sink(lambda d: TestingSink(seen), [1, 2, 3], lambda d: seen[-3:])
