import random
from itertools import pairwise

import pytest

from state.pbft.chunks import cuts

DATA = random.Random(1).randbytes(700_000)


def slowly(data: bytes, most: int) -> list[int]:
    """Say the same by looking at one place after the other."""
    least = max(1, most // 4)
    zeros = least.bit_length() - 1
    found, start = [], 0
    for end in range(1, len(data) + 1):
        window = int.from_bytes(data[max(0, end - 8) : end], "little")
        marked = end >= 8 and (window * 0x9E3779B97F4A7C15 % 2**64) >> (64 - zeros) == 0
        if end - start == most or (end - start >= least and marked):
            found.append(end)
            start = end
    return found + [len(data)] * (start < len(data))


@pytest.mark.parametrize("most", [1, 2, 7, 64, 1000, 1 << 16])
@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 63, 64, 65, 5000, 20_001])
def test_cuts_are_where_they_are_said_to_be(
    most: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("state.pbft.chunks._BLOCK", 1009)
    for data in (DATA[:size], bytes(size), b"key1" * (size // 4), DATA[:90] * (size // 90)):
        assert cuts(data, most) == slowly(data, most)


def test_chunks_have_their_sizes() -> None:
    for most in (1, 10, 64, 4096):
        ends = cuts(DATA, most)
        sizes = [b - a for a, b in pairwise([0, *ends])]
        assert ends[-1] == len(DATA)
        assert max(sizes) <= most
        assert min(sizes[:-1]) >= most // 4
        assert len(sizes) <= len(DATA) // max(1, most // 4) + 1


@pytest.mark.parametrize("seed", range(20))
def test_a_small_change_changes_few_chunks(seed: int) -> None:
    rng = random.Random(seed)
    at, size = rng.randrange(len(DATA)), rng.choice([0, 1, 5, 100])
    changed = DATA[:at] + rng.randbytes(size) + DATA[at + rng.choice([0, 1, 5, 100]) :]

    def chunks(data: bytes) -> set[bytes]:
        return {data[a:b] for a, b in pairwise([0, *cuts(data, 4096)])}

    before, after = chunks(DATA), chunks(changed)
    assert len(before) > 200
    assert len(after - before) <= 20
