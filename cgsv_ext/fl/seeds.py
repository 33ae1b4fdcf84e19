"""One stream of random numbers per purpose, all from one seed."""

from __future__ import annotations

import zlib

import torch


def generator(seed: int, purpose: str) -> torch.Generator:
    """Return a fresh generator that depends on the seed and on what it is for, and on nothing else.

    Streams of their own keep runs comparable: two mechanisms see the same partition, noise, initial
    model and batches, and a longer run begins with the very rounds of a shorter one.

    Parameters
    ----------
    seed : int
        The run's seed.
    purpose : str
        Any word, such as ``"batches"``.
    """
    # The CPU generator keeps 32 bits of its seed, so the pair is hashed to 32 bits.
    return torch.Generator().manual_seed(zlib.crc32(f"{seed} {purpose}".encode()))
