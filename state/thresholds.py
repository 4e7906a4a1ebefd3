"""How many of a group must agree when some of it may lie.

Of ``n`` members at most ``f`` are *faulty*: they may stay silent, or say different things to
different peers. Two sets of ``q`` members share at least ``2q - n`` of them; when that is more
than ``f`` there is an honest member in both, and it does not contradict itself. So
``q = ceil((n + f + 1) / 2)``. Since a member that never answers cannot be waited for, ``q`` must
also be at most ``n - f``, which holds if and only if ``n >= 3f + 1``.

For ``n = 3f + 1`` the quorum is the well-known ``2f + 1``; for any other ``n`` it is not: with
``n = 5`` and ``f = 1``, two sets of three may share one liar only.

Source: Castro and Liskov, Practical Byzantine Fault Tolerance (OSDI 1999), section 4; Malkhi and
Reiter, Byzantine Quorum Systems (1998), for general n.
"""

from __future__ import annotations


def max_faults(n: int) -> int:
    """Return the greatest number of faulty members that a group of ``n`` can bear.

    >>> [max_faults(n) for n in (1, 3, 4, 6, 7, 10)]
    [0, 0, 1, 1, 2, 3]

    Raises:
        ValueError: ``n`` is less than 1.
    """
    if n < 1:
        raise ValueError(f"a group of {n}: it needs at least one member")
    return (n - 1) // 3


def quorum_size(n: int, f: int) -> int:
    """Return how many of ``n`` members decide when at most ``f`` of them are faulty.

    >>> [quorum_size(n, f) for n, f in ((4, 1), (5, 1), (6, 1), (7, 2), (10, 3), (1, 0))]
    [3, 4, 4, 5, 7, 1]

    Raises:
        ValueError: ``f`` is negative, or ``n`` is less than ``3f + 1``.
    """
    if f < 0:
        raise ValueError(f"f is {f}: the number of faulty members is at least 0")
    if f > max_faults(n):
        raise ValueError(f"{n} members cannot bear {f} faulty ones: at least {3 * f + 1} can")
    return (n + f + 2) // 2
