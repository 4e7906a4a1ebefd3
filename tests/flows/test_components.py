"""Connected components equal SciPy's."""

from datetime import timedelta

import bytewax.operators as op
import numpy as np
import pyarrow as pa
import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, TestingSource, cluster_main, run_main
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from connectors.loop import Loop, Place
from flows.components import LINKS, components


def found(links: np.ndarray, *, workers: int, mode: str, batches: int) -> dict[int, int]:
    out: list[pa.RecordBatch] = []
    flow = Dataflow("graph")
    loop = Loop("labels", place=Place(workers=workers), mode=mode)  # type: ignore[arg-type]
    parts = [
        pa.record_batch([pa.array(part[:, 0]), pa.array(part[:, 1])], schema=LINKS)
        for part in np.array_split(links, batches)
    ]
    source = op.input("links", flow, TestingSource(parts, batch_size=1))
    streams = components(source, loop.input("back", flow), shards=4)
    loop.output("again", streams.again, outside=source)
    op.output("out", streams.labels, TestingSink(out))
    epoch = timedelta(seconds=0 if mode == "superstep" else 0.02)
    if workers == 1:
        run_main(flow, epoch_interval=epoch)
    else:
        cluster_main(flow, [], 0, worker_count_per_proc=workers, epoch_interval=epoch)
    rows = [row for batch in out for row in batch.to_pylist()]
    labels = {row["vertex"]: row["label"] for row in rows}
    assert len(labels) == len(rows)
    return labels


def expected(links: np.ndarray) -> dict[int, int]:
    size = int(links.max()) + 1
    graph = coo_array((np.ones(len(links)), (links[:, 0], links[:, 1])), shape=(size, size))
    _, label = connected_components(graph, directed=False)
    smallest = {label[v]: v for v in reversed(range(size))}
    return {int(v): int(smallest[label[v]]) for v in np.unique(links)}


@pytest.mark.parametrize("mode", ["superstep", "async"])
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_random_graphs(seed: int, workers: int, mode: str) -> None:
    random = np.random.default_rng(seed)
    links = random.integers(0, 300, (220, 2))
    assert found(links, workers=workers, mode=mode, batches=7) == expected(links)


def test_a_long_path_takes_many_supersteps() -> None:
    path = np.stack([np.arange(199), np.arange(1, 200)], axis=1)
    assert set(found(path, workers=1, mode="superstep", batches=3).values()) == {0}
