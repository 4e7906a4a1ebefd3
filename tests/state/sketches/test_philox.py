import numpy as np
import pytest

from state.sketches.philox import words

LARGEST = 2**64 - 1


@pytest.mark.parametrize("key", [(0, 0), (7, 9), (LARGEST, LARGEST - 1)])
@pytest.mark.parametrize("first", [0, 1, 6, 10**12 + 3, LARGEST - 20])
@pytest.mark.parametrize("count", [0, 1, 4, 11])
def test_words_are_those_of_numpy(key: tuple[int, int], first: int, count: int) -> None:
    generator = np.random.Philox(key=np.array(key, dtype=np.uint64), counter=first // 4)
    generator.random_raw(first % 4)
    assert words(*key, first, count).tolist() == generator.random_raw(count).tolist()
