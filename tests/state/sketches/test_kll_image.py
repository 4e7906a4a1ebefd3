import math

import numpy as np
import pytest
from datasketches import kll_doubles_sketch

from state.sketches import Kll
from state.sketches.kll_image import capacities, read_image

Q = np.linspace(0, 1, 51)[1:-1]  # the library gives no exact ends


@pytest.mark.parametrize("k", [8, 200, 777])
@pytest.mark.parametrize("rows", [0, 1, 2, 7, 200, 601, 70_000])
def test_datasketches_reads_our_image(rows: int, k: int) -> None:
    sketch = Kll(k=k)
    sketch.add(np.random.default_rng(rows).normal(size=rows))
    image = sketch.to_datasketches()
    theirs = kll_doubles_sketch.deserialize(image)
    assert (theirs.k, theirs.n) == (k, rows)
    assert theirs.serialize() == image
    assert Kll.from_datasketches(image).to_datasketches() == image
    if rows:
        assert (theirs.get_min_value(), theirs.get_max_value()) == (sketch.minimum, sketch.maximum)
        assert theirs.get_quantiles(Q, inclusive=True) == sketch.estimate(Q).tolist()
        theirs.merge(kll_doubles_sketch.deserialize(image))
        assert theirs.n == 2 * rows


@pytest.mark.parametrize("k", [8, 200, 777])
@pytest.mark.parametrize("rows", [0, 1, 2, 7, 200, 601, 70_000])
def test_we_read_the_image_of_datasketches(rows: int, k: int) -> None:
    values = np.random.default_rng(rows).normal(size=rows)
    theirs = kll_doubles_sketch(k)
    theirs.update(values)
    sketch = Kll.from_datasketches(theirs.serialize(), column="x")
    assert (sketch.column, sketch.k, sketch.count) == ("x", k, rows)
    published = theirs.normalized_rank_error(False) if theirs.is_estimation_mode() else 0.0
    assert published * 0.9999 <= sketch.rank_error(0.99) <= published * 1.0001 + 1 / max(rows, 1)
    if rows:
        assert sketch.estimate(Q).tolist() == theirs.get_quantiles(Q, inclusive=True)
        assert Kll.from_bytes(sketch.to_bytes()).to_bytes() == sketch.to_bytes()


def test_a_sketch_of_the_library_merges_with_ours() -> None:
    values = np.random.default_rng(1).permutation(100_000).astype(np.float64)
    theirs, ours = kll_doubles_sketch(200), Kll()
    theirs.update(values[:50_000])
    ours.add(values[50_000:])
    ours.merge(Kll.from_datasketches(theirs.serialize()))
    assert ours.count == 100_000
    assert ours.lower_bound(0.5, 0.999) <= 50_000 <= ours.upper_bound(0.5, 0.999)


def test_the_capacities_are_those_of_the_library() -> None:
    # The library compacts once the capacity of its levels is reached.
    for k in (8, 50, 200, 1000):
        theirs = kll_doubles_sketch(k)
        while theirs.num_retained == theirs.n:
            theirs.update(float(theirs.n))
        assert theirs.n - 1 == sum(capacities(k, 1)) == k


@pytest.mark.parametrize("rows", [0, 1, 5, 300])
def test_any_flipped_byte_is_refused_or_harmless(rows: int) -> None:
    sketch = Kll(k=16)
    sketch.add(np.random.default_rng(2).normal(size=rows))
    image = sketch.to_datasketches()
    for at in range(len(image)):
        for flip in (1, 0x80, 0xFF):
            bad = image[:at] + bytes([image[at] ^ flip]) + image[at + 1 :]
            try:
                again = Kll.from_datasketches(bad)
            except ValueError:
                continue
            again.estimate(Q)
            Kll.from_bytes(again.to_bytes())
    for cut in range(len(image)):
        with pytest.raises(ValueError):
            read_image(image[:cut])


def test_nan_is_refused() -> None:
    theirs = kll_doubles_sketch(16)
    theirs.update(np.array([1.0, 2.0, 3.0]))
    image = bytearray(theirs.serialize())
    image[-8:] = np.array([math.nan]).tobytes()
    with pytest.raises(ValueError, match="sorted"):
        read_image(bytes(image))
