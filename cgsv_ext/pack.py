"""What an agent uploads, in many tensors, as the one row that the reward step reads."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from . import _checks
from ._ops import ops, written


def pack_row_(row: Tensor, parts: Tensor | Sequence[Tensor]) -> Tensor:
    """Write the parts one after the other into `row`, and return its norm: ‖Δw_i‖ as written.

    The parts are read once and the row is written once; the norm comes along. It has the bits that
    :func:`cgsv_ext.norms` gives for this row, alone or in any matrix, and may be handed to
    :func:`cgsv_ext.reward_step` as ``norms=``.

    Parameters
    ----------
    row : Tensor
        (D,) contiguous; float64, float32, bfloat16 or float16. May be a row of a matrix. Written in place;
        shares no memory with any part.
    parts : Tensor or sequence of Tensor
        Contiguous tensors of any shape, of any of the four dtypes each, empty ones too, with D elements in
        all; none for D = 0. Each element is rounded once, to nearest even, also from float64 to a half type,
        for which PyTorch's ``copy_`` rounds to float32 in between.

    Returns
    -------
    Tensor
        () float64; NaN or infinite where the row is not finite, 0 for D = 0.

    Raises
    ------
    TypeError, ValueError
        Before anything is written.

    Examples
    --------
    >>> model = torch.nn.Linear(3, 2)
    >>> row = torch.empty(8)
    >>> norm = cgsv_ext.pack_row_(row, list(model.parameters()))
    >>> torch.equal(norm, cgsv_ext.norms(row[None])[0])
    True
    """
    row = _checks.output("pack_row_", "row", row)
    norm: Tensor = ops.pack_row_(row, _checks.parts("pack_row_", "parts", parts, row))
    written(row)
    return norm
