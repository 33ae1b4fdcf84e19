"""What a call sends, computed: the cost model of docs/scale.md."""

from __future__ import annotations

from .ranks import Collective
from .selection import DIGITS
from .terms import BYTES


def exchanges(
    agents: int,
    *,
    bits: int = 32,
    segments: int | None = None,
    tensors: int = 1,
    weights: bool = False,
    columns: int | None = None,
    most: int | None = None,
) -> list[Collective]:
    """The collectives of one ``reward_step`` on each rank, in their order.

    Parameters
    ----------
    agents : int
        N.
    bits : int
        Of an element of the aggregate: 64 for float64 updates, 32 for all others.
    segments : int, optional
        S, where there are segments.
    tensors : int
        Parameters an agent, where updates are DTensors a parameter.
    weights : bool
        Whether weights are given.
    columns : int, optional
        D, for ``dim="agents"``: the one size that depends on it.
    most : int, optional
        For ``dim="agents"``, the most agents that a rank holds.
    """
    vectors = 3 if weights else 2
    start = Collective("terms", "gather", BYTES)
    if columns is not None:
        own = agents if most is None else most
        return [
            start,
            Collective("norms", "gather", 8 * (own + (vectors - 1) * agents)),
            Collective("aggregate", "sum", columns * bits // 8),
            Collective("products", "gather", 8 * (own + 1)),
        ]
    first, *others = next(digits for dtype, digits in DIGITS.items() if dtype.itemsize * 8 == bits)
    s = segments or 1
    return [
        start,
        Collective("norms", "gather", 8 * (vectors * agents + (segments or 0))),
        Collective("products", "gather", 8 * (agents + 1)),
        Collective("digit", "sum", 8 * s << first),
        *(Collective("digit", "sum", 8 * agents * s << digit) for digit in others),
        Collective("ties", "gather", 8 * agents * max(s, tensors)),
    ]
