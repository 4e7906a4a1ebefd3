import numpy as np
import pyarrow as pa
import pytest

from state import sketches
from state.mergeable import Algebra, seal, unseal
from state.product import Product
from state.sketches import Histogram, Kll, Moments, Reservoir


def fresh(stream: int = 0) -> Product:
    return Product(
        {
            "sample": Reservoir(["x"], size=8, stream=stream),
            "exact": Moments("x"),
            "bins": Histogram("x"),
            "quantiles": Kll("x", k=16),
        }
    )


def rows(seed: int) -> pa.RecordBatch:
    return pa.record_batch({"x": np.random.default_rng(seed).normal(size=500)})


def test_parts_are_those_folded_alone() -> None:
    products, moments, kll = [fresh(0), fresh(1)], Moments("x"), Kll("x", k=16)
    for seed, product in enumerate(products):
        product.update(rows(seed))
        alone = Kll("x", k=16)
        alone.update(rows(seed))
        kll.merge(alone)
        moments.update(rows(seed))
    products[0].merge(Product.from_bytes(products[1].to_bytes()))
    total = Product.from_bytes(products[0].to_bytes())
    assert total.to_bytes() == products[0].to_bytes()
    assert total.names == ("bins", "exact", "quantiles", "sample")
    assert total["exact"].to_bytes() == moments.to_bytes()
    assert total["quantiles"].to_bytes() == kll.to_bytes()


def test_a_part_that_comes_twice_changes_nothing() -> None:
    total, part = fresh(0), fresh(1)
    part.update(rows(1))
    total.merge(part)
    before = total.to_bytes()
    with pytest.raises(ValueError, match="random stream"):
        total.merge(part)
    assert total.to_bytes() == before


def test_products_of_other_parts_do_not_merge() -> None:
    one = Product({"a": Moments("x")})
    for other in (
        Product({"b": Moments("x")}),
        Product({"a": Kll("x")}),
        Product({"a": Moments("x"), "b": Moments("x")}),
        Product({"a": Moments("y")}),
    ):
        with pytest.raises(ValueError, match="merge"):
            one.merge(other)


class Ordered(Moments):
    algebra = Algebra.ORDERED_MONOID


def test_parts_that_have_no_place() -> None:
    with pytest.raises(ValueError, match="order"):
        Product({"a": Ordered()})
    with pytest.raises(ValueError, match="parts"):
        Product({})
    with pytest.raises(ValueError, match="name"):
        Product({"n" * 70_000: Moments()})


@pytest.mark.parametrize("name", sketches.__all__)
def test_every_sketch_can_be_a_part(name: str) -> None:
    kind = getattr(sketches, name)
    part = kind(["x"], stream=1) if kind is Reservoir else kind("x")
    product = Product({"a": part, "b": Moments("x")})
    product.update(rows(3))
    again = Product.from_bytes(product.to_bytes())
    assert type(again["a"]) is kind
    assert again.to_bytes() == product.to_bytes()


def test_only_sketches_are_read() -> None:
    nested = Product({"a": Product({"b": Moments()})})
    with pytest.raises(ValueError, match=r"no sketch but b'product'"):
        Product.from_bytes(nested.to_bytes())


def test_damage_within_the_envelope_is_refused_or_harmless() -> None:
    product = Product({"a": Moments("x"), "b": Kll("x")})
    product.update(pa.record_batch({"x": [1.0, 2.0]}))
    _, payload = unseal("product", product.to_bytes(), versions={1})
    for at in range(len(payload)):
        bad = payload[:at] + bytes([payload[at] ^ 0xFF]) + payload[at + 1 :]
        try:
            again = Product.from_bytes(seal("product", 1, bad))
        except ValueError:
            continue
        assert again.to_bytes() == seal("product", 1, bad)
    for cut in range(len(payload)):
        with pytest.raises(ValueError):
            Product.from_bytes(seal("product", 1, payload[:cut]))
