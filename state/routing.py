"""Which worker Bytewax gives a key to."""

from __future__ import annotations


def worker_of(key: str, workers: int) -> int:
    """Return the worker that Bytewax 0.21 routes `key` to: SipHash-1-3 of the string, modulo.

    The hash is Rust's `DefaultHasher` with zero keys over the UTF-8 bytes and a 0xff.

    >>> [worker_of(key, 2) for key in ("0", "1", "2", "3")]
    [1, 1, 1, 1]
    """
    return _siphash13(key.encode() + b"\xff") % workers


def _siphash13(data: bytes) -> int:
    """SipHash-1-3 with zero keys (Aumasson and Bernstein 2012)."""
    mask = (1 << 64) - 1
    v = [0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573]

    def rotl(x: int, bits: int) -> int:
        return ((x << bits) | (x >> (64 - bits))) & mask

    def rounds(count: int) -> None:
        for _ in range(count):
            v[0] = (v[0] + v[1]) & mask
            v[1] = rotl(v[1], 13) ^ v[0]
            v[0] = rotl(v[0], 32)
            v[2] = (v[2] + v[3]) & mask
            v[3] = rotl(v[3], 16) ^ v[2]
            v[0] = (v[0] + v[3]) & mask
            v[3] = rotl(v[3], 21) ^ v[0]
            v[2] = (v[2] + v[1]) & mask
            v[1] = rotl(v[1], 17) ^ v[2]
            v[2] = rotl(v[2], 32)

    padded = data + bytes((-len(data) - 1) % 8) + bytes([len(data) & 0xFF])
    for at in range(0, len(padded), 8):
        word = int.from_bytes(padded[at : at + 8], "little")
        v[3] ^= word
        rounds(1)
        v[0] ^= word
    v[2] ^= 0xFF
    rounds(3)
    return v[0] ^ v[1] ^ v[2] ^ v[3]
