"""Bad input: a TypeError or a ValueError that says what was expected and what came, and nothing touched."""

from __future__ import annotations

import contextlib
import itertools
import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import assert_same_bits
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import cgsv_ext
from cgsv_ext import Selection

N, D = 3, 8
ops = torch.ops.cgsv_ext
Arguments = dict[str, Any]


def good(op: str, device: torch.device) -> Arguments:
    """Arguments that the op accepts."""
    x = oracle.normal(N, D).to(device)
    r = torch.tensor([0.5, 0.3, 0.2], device=device)
    u = oracle.normal(D, seed=1).to(device)
    selection = Selection(
        torch.tensor([0.5, 0.1, math.inf], device=device), torch.tensor([3, 5, -1], device=device)
    )
    matrix = torch.full((N, D), 7.0, device=device)
    return {
        "norms": {"updates": x},
        "gram": {"updates": x},
        "pack_row_": {"row": matrix[0], "parts": [u[:5], u[5:]]},
        "aggregate": {"updates": x, "weights": r, "gamma": 0.5, "norms": r + 1},
        "update_importance": {"importance": r, "cosines": r - 0.25, "alpha": 0.95, "floor": 1e-3},
        "quotas": {"importance": r, "sizes": [5, 3], "beta": 1.0},
        "select": {"aggregate": u, "quotas": torch.tensor([8, 4, 0], device=device), "segments": None},
        "download": {"aggregate": u, "selection": selection, "segments": None, "dtype": None, "out": matrix},
        "download_": {
            "parameters": matrix,
            "aggregate": u,
            "selection": selection,
            "segments": None,
            "scale": 1.0,
        },
        "reward_step": {
            "updates": x,
            "importance": r,
            "gamma": 0.5,
            "alpha": 0.95,
            "beta": 1.0,
            "floor": 1e-3,
            "weights": r + 1,
            "norms": r + 2,
            "segments": [5, 0, 3],
            "out": matrix,
            "dense": True,
        },
    }[op]


OPS = [
    "norms",
    "pack_row_",
    "aggregate",
    "update_importance",
    "quotas",
    "select",
    "download",
    "download_",
    "reward_step",
    "gram",
]


def tensors_in(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return list(itertools.chain.from_iterable(map(tensors_in, value)))
    return []


def assert_refused(
    op: str,
    arguments: Arguments,
    error: type[Exception] = ValueError,
    match: str = "",
    touched: tuple[Tensor, ...] = (),
) -> None:
    """The op raises in its own name and leaves all tensors as they were, bits and versions."""
    tensors = [*tensors_in(list(arguments.values())), *touched]
    tensors = [t for t in tensors if t.layout is torch.strided and t.device.type != "meta"]
    copies = [t.detach().clone() for t in tensors]
    versions = [t._version for t in tensors]
    with pytest.raises(error, match=rf"^{op}\(\): expected {match}.*, got .*"):
        getattr(cgsv_ext, op)(**arguments)
    for t, copy, version in zip(tensors, copies, versions, strict=True):
        assert t._version == version
        if t.is_complex():
            assert torch.equal(t, copy)
        else:
            assert_same_bits(t, copy)


@pytest.mark.parametrize("op", OPS)
def test_the_arguments_that_the_cases_start_from_are_good(device: torch.device, op: str) -> None:
    getattr(cgsv_ext, op)(**good(op, device))


# Each of these replaces one argument by what f(the good one) gives.

Change = Callable[[Any], Any]

VECTORS: dict[str, Change] = {
    "one too few": lambda v: v[:-1],
    "one too many": lambda v: torch.cat([v, v[:1]]),
    "a column": lambda v: v[:, None],
    "a scalar": lambda v: v[0],
    "empty": lambda v: v[:0],
    "integers": lambda v: v.long(),
    "booleans": lambda v: v.bool(),
    "complex": lambda v: v.to(torch.complex64),
    "float8": lambda v: v.to(torch.float8_e5m2),
    "meta": lambda v: v.to("meta"),
    "sparse": lambda v: v.to_sparse(),
}
ROWS: dict[str, Change] = {
    "one dimension": lambda x: x[0],
    "three dimensions": lambda x: x[None],
    "no agent": lambda x: x[:0],
    "no column": lambda x: x[:, :0],
    "no tensor": lambda x: [],
    "strided along D": lambda x: x.repeat_interleave(2, dim=1)[:, ::2],
    "transposed": lambda x: x.T.contiguous().T,
    "expanded along D": lambda x: x[:, :1].expand(N, D),
    "integers": lambda x: x.long(),
    "complex": lambda x: x.to(torch.complex64),
    "booleans": lambda x: x.bool(),
    "float8": lambda x: x.to(torch.float8_e4m3fn),
    "sparse": lambda x: x.to_sparse(),
    "sparse rows": lambda x: [row.to_sparse() for row in x],
    "rows of different length": lambda x: [x[0], x[1, :-1].clone(), x[2]],
    "rows of different dtype": lambda x: [x[0], x[1].double(), x[2]],
    "rows of another device": lambda x: [x[0], x[1].to("meta"), x[2]],
    "a strided row": lambda x: [x[0], x[1].repeat_interleave(2)[::2], x[2]],
    "a strided row alone": lambda x: [x[0].repeat_interleave(2)[::2]],
    "a transposed row": lambda x: [x[0].view(2, 4), x[1].view(2, 4).T.contiguous().T, x[2].view(2, 4)],
    "empty rows": lambda x: [x[0, :0], x[1, :0], x[2, :0]],
    "an empty row alone": lambda x: [x[0, :0]],
    "matrices in a list": lambda x: [x, x[:2].clone(), x],
}
AGGREGATES: dict[str, Change] = {
    "half": lambda u: u.half(),
    "integers": lambda u: u.long(),
    "a matrix": lambda u: u[None],
    "empty": lambda u: u[:0],
    "a scalar": lambda u: u[0],
    "strided": lambda u: u.repeat_interleave(2)[::2],
    "expanded": lambda u: u[:1].expand(D),
    "complex": lambda u: u.to(torch.complex64),
    "sparse": lambda u: u.to_sparse(),
}
OUTS: dict[str, Change] = {
    "one row too few": lambda out: out[:-1],
    "one column too few": lambda out: out[:, :-1].contiguous(),
    "one dimension": lambda out: out.flatten(),
    "strided": lambda out: torch.cat([out, out], dim=1)[:, :D],
    "transposed": lambda out: out.T.contiguous().T,
    "overlapping itself": lambda out: out[:1].expand(N, D),
    "integers": lambda out: out.long(),
    "meta": lambda out: out.to("meta"),
    "sparse": lambda out: out.to_sparse(),
    "complex": lambda out: out.to(torch.complex64),
    "requires grad": lambda out: out.clone().requires_grad_(),
}
SEGMENTS: dict[str, Change] = {
    "too short": lambda _: [5, 2],
    "too long": lambda _: [5, 4],
    "none": lambda _: [],
    "negative": lambda _: [9, -1],
    "overflowing": lambda _: [2**62, 2**62, 2**62, 2**62 + 8],
    "the largest": lambda _: [2**63 - 1, 9],
    "beyond 64 bits": lambda _: [2**63, 4],
}
SELECTIONS: dict[str, Change] = {
    "magnitude of another dtype": lambda s: s._replace(magnitude=s.magnitude.double()),
    "magnitude with segments": lambda s: s._replace(magnitude=s.magnitude[:, None]),
    "magnitude one too few": lambda s: s._replace(magnitude=s.magnitude[:-1]),
    "magnitude scalar": lambda s: s._replace(magnitude=s.magnitude[0]),
    "magnitude empty": lambda s: s._replace(magnitude=s.magnitude[:0]),
    "magnitude meta": lambda s: s._replace(magnitude=s.magnitude.to("meta")),
    "magnitude integers": lambda s: s._replace(magnitude=s.magnitude.nan_to_num(0, 0, 0).long()),
    "index one too many": lambda s: s._replace(last_index=torch.cat([s.last_index, s.last_index])),
    "index of int32": lambda s: s._replace(last_index=s.last_index.int()),
    "index of floats": lambda s: s._replace(last_index=s.last_index.float()),
    "index meta": lambda s: s._replace(last_index=s.last_index.to("meta")),
    "both empty": lambda s: Selection(s.magnitude[:0], s.last_index[:0]),
    "both one too few": lambda s: Selection(s.magnitude[1:], s.last_index[1:]),
}
QUOTAS: dict[str, Change] = {
    "int32": lambda q: q.int(),
    "floats": lambda q: q.float(),
    "a matrix": lambda q: q[:, None],
    "a scalar": lambda q: q[0],
    "empty": lambda q: q[:0],
    "meta": lambda q: q.to("meta"),
}


def numbers(*values: float) -> dict[str, Change]:
    return {str(value): lambda _, value=value: value for value in values}


NOT_POSITIVE = numbers(0.0, -1.0, math.nan, -math.inf, 0, -3)
CASES: list[tuple[str, str, dict[str, Change]]] = [
    ("norms", "updates", ROWS),
    ("gram", "updates", ROWS),
    (
        "pack_row_",
        "row",
        {k: v for k, v in VECTORS.items() if k != "a scalar"}
        | {
            "a scalar": lambda row: row[0].clone(),
            "strided": lambda row: row.repeat_interleave(2)[::2],
            "expanded": lambda row: row[:1].expand(D),
            "requires grad": lambda row: row.clone().requires_grad_(),
        },
    ),
    (
        "pack_row_",
        "parts",
        {k: lambda parts, change=v: [change(torch.cat(parts))] for k, v in VECTORS.items() if k != "a column"}
        | {
            "none": lambda parts: [],
            "strided": lambda parts: [parts[0], parts[1].repeat_interleave(2)[::2]],
            "one too few": lambda parts: parts[:1],
            "the same twice": lambda parts: [*parts, parts[0]],
        },
    ),
    ("aggregate", "updates", ROWS),
    ("aggregate", "weights", VECTORS),
    ("aggregate", "norms", VECTORS),
    ("aggregate", "gamma", NOT_POSITIVE | numbers(math.inf)),
    ("update_importance", "importance", VECTORS),
    ("update_importance", "cosines", VECTORS),
    ("update_importance", "alpha", numbers(-1e-9, 1.0000001, math.nan, math.inf, -math.inf)),
    ("update_importance", "floor", numbers(-1e-9, math.nan, math.inf, -math.inf)),
    (
        "quotas",
        "importance",
        {k: v for k, v in VECTORS.items() if k not in ("one too few", "one too many", "meta")},
    ),
    ("quotas", "sizes", {"none": lambda _: [], "negative": lambda _: [5, -1], "a negative": lambda _: -5}),
    ("quotas", "beta", NOT_POSITIVE),
    ("select", "aggregate", AGGREGATES),
    ("select", "quotas", QUOTAS),
    ("select", "segments", SEGMENTS | {"quotas without": lambda _: [5, 3]}),
    (
        "download",
        "aggregate",
        AGGREGATES | {"one too many": lambda u: torch.cat([u, u[:1]]), "double": lambda u: u.double()},
    ),
    ("download", "selection", SELECTIONS),
    ("download", "segments", SEGMENTS | {"selection without": lambda _: [5, 3]}),
    ("download", "out", OUTS),
    ("download", "dtype", {"not out's": lambda _: torch.float64}),
    (
        "download_",
        "parameters",
        {k: v for k, v in ROWS.items() if k != "matrices in a list"}
        | {
            "one too few": lambda w: w[:-1],
            "a column too few": lambda w: w[:, :-1],
            "overlapping": lambda w: w.flatten()[: 2 * D].unfold(0, D, D // 2),
            "expanded": lambda w: w[:1].expand(N, D),
            "the same twice": lambda w: [w[0], w[1], w[1]],
        },
    ),
    ("download_", "aggregate", AGGREGATES | {"one too many": lambda u: torch.cat([u, u[:1]])}),
    ("download_", "selection", SELECTIONS),
    ("download_", "segments", SEGMENTS),
    ("download_", "scale", numbers(math.nan, math.inf, -math.inf)),
    ("reward_step", "updates", ROWS),
    ("reward_step", "importance", VECTORS),
    ("reward_step", "weights", VECTORS),
    ("reward_step", "norms", VECTORS),
    ("reward_step", "gamma", NOT_POSITIVE | numbers(math.inf)),
    ("reward_step", "alpha", numbers(-1e-9, 1.0000001, math.nan, math.inf, -math.inf)),
    ("reward_step", "beta", NOT_POSITIVE),
    ("reward_step", "floor", numbers(-1e-9, math.nan, math.inf, -math.inf)),
    ("reward_step", "segments", SEGMENTS),
    (
        "reward_step",
        "out",
        OUTS | {"another dtype": lambda out: out.double(), "half": lambda out: out.half()},
    ),
    ("reward_step", "dense", {"not with out": lambda _: False}),
]
FLAT = [
    pytest.param(op, argument, change, id=f"{op}-{argument}-{name}")
    for op, argument, changes in CASES
    for name, change in changes.items()
]


@pytest.mark.parametrize(("op", "argument", "change"), FLAT)
def test_a_bad_argument_is_refused_and_nothing_touched(
    device: torch.device, op: str, argument: str, change: Change
) -> None:
    arguments = good(op, device)
    arguments[argument] = change(arguments[argument])
    assert_refused(op, arguments)


@pytest.mark.skipif(cgsv_ext.build_info()["cuda"], reason="needs a build without CUDA")
def test_a_build_without_cuda_says_so() -> None:
    with FakeTensorMode():  # as far as a CUDA tensor goes without CUDA
        x, r = torch.empty(N, D, device="cuda"), torch.empty(N, device="cuda")
        with pytest.raises(ValueError, match=r"on cpu or meta, got one on cuda:0 \(this build has no CUDA"):
            cgsv_ext.reward_step(x, r)


def test_messages_name_the_argument_and_both_sides(device: torch.device) -> None:
    x, r = oracle.normal(N, D).to(device), torch.zeros(N, device=device)
    for arguments, text in [
        (
            {"importance": r[:2]},
            "reward_step(): expected importance of shape (3,), one entry per agent, got (2,)",
        ),
        ({"alpha": 1.5}, "reward_step(): expected alpha to be in [0, 1], got 1.5"),
        ({"beta": math.nan}, "reward_step(): expected beta to be > 0 (inf is allowed), got nan"),
        (
            {"segments": [4, 5]},
            "reward_step(): expected segments that are not negative and sum to D = 8, got [4, 5]",
        ),
    ]:
        with pytest.raises(ValueError, match=re.escape(text)):
            cgsv_ext.reward_step(**({"updates": x, "importance": r} | arguments))


def test_messages_say_what_to_do(device: torch.device) -> None:
    model = torch.nn.Linear(4, 2)
    r = torch.zeros(2, device=device)
    for states in ([model.state_dict()] * 2, [list(model.parameters())] * 2):
        with pytest.raises(TypeError, match=r"updates\[0\] to be a tensor, got .*parameters_to_vector"):
            cgsv_ext.reward_step(states, r)
    step = cgsv_ext.reward_step(oracle.normal(2, 8).to(device), r, segments=[3, 5], dense=False)
    for call in (cgsv_ext.download, partial(cgsv_ext.download_, torch.zeros(2, 8, device=device))):
        with pytest.raises(ValueError, match=r"of shape \(N,\) without segments=, got \(2, 2\)"):
            call(step.aggregate, step.selection)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_quantized_updates_are_refused() -> None:
    x = torch.quantize_per_tensor(torch.ones(2, 8), 0.1, 0, torch.qint8)
    with pytest.raises(ValueError, match=r"updates to be dense, got torch\.qint8"):
        cgsv_ext.norms(x)


# Wrong Python types

WRONG_TYPES: list[tuple[str, str, list[Any]]] = [
    ("norms", "updates", [None, 3, "abc", 1.5, [1, 2], [None], {1, 2}, iter([])]),
    ("pack_row_", "row", [None, 3, [1.0], "abc"]),
    ("pack_row_", "parts", [None, 3, "abc", [1, 2], [None], {1, 2}, iter([]), {"a": 1}]),
    ("aggregate", "updates", [None, "abc", [[1.0]]]),
    ("aggregate", "weights", [None, [0.5, 0.3, 0.2], 1.0]),
    ("aggregate", "norms", [[1.0, 1.0, 1.0], 2]),
    ("aggregate", "gamma", [None, "0.5", torch.tensor(0.5), 1j, True]),
    ("update_importance", "importance", [None, [0.5, 0.3, 0.2]]),
    ("update_importance", "cosines", [None, [0.5, 0.3, 0.2]]),
    ("update_importance", "alpha", [None, "1"]),
    ("update_importance", "floor", ["0", [0.0]]),
    ("quotas", "importance", [None, [0.5]]),
    ("quotas", "sizes", [None, 8.0, [8.0], "8", [None], torch.tensor([8])]),
    ("quotas", "beta", [None, "1"]),
    ("select", "aggregate", [None, [1.0]]),
    ("select", "quotas", [None, [1, 2, 3], 3]),
    ("select", "segments", [8, [8.0], "8", torch.tensor([8])]),
    ("download", "aggregate", [None]),
    ("download", "selection", [None, 3, (torch.zeros(3),), (1, 2)]),
    ("download", "segments", [8, [4.0, 4.0]]),
    ("download", "out", [3, "out", [1.0]]),
    ("download_", "parameters", [None, 3, "abc", [1, 2]]),
    ("download_", "selection", [None]),
    ("download_", "scale", [None, "1", torch.tensor(1.0)]),
    ("reward_step", "updates", [None, 3, "abc", [1, 2], {1, 2}]),
    ("reward_step", "importance", [None, [0.5, 0.3, 0.2], 1.0]),
    ("reward_step", "weights", [[0.5, 0.3, 0.2], 1.0]),
    ("reward_step", "norms", [[0.5, 0.3, 0.2], 1.0]),
    ("reward_step", "gamma", [None, "0.5", torch.tensor(0.5), True]),
    ("reward_step", "alpha", [None, "0.5"]),
    ("reward_step", "beta", [None, "1"]),
    ("reward_step", "floor", ["0", True]),
    ("reward_step", "segments", [8, [8.0], [[8]], "8"]),
    ("reward_step", "out", [3, [1.0], "out"]),
]


@pytest.mark.parametrize(
    ("op", "argument", "value"),
    # Without addresses, or each worker of pytest-xdist would collect other tests.
    [
        pytest.param(op, a, v, id=re.sub(" at 0x.*>", ">", f"{op}-{a}-{v!r}"))
        for op, a, values in WRONG_TYPES
        for v in values
    ],
)
def test_a_wrong_python_type_is_a_type_error(
    device: torch.device, op: str, argument: str, value: Any
) -> None:
    assert_refused(op, good(op, device) | {argument: value}, TypeError)


@pytest.mark.parametrize(
    ("ratio", "importance", "error"),
    [
        (0.0, 0.5, ValueError),
        (1.0, 0.5, ValueError),
        (-0.1, 0.5, ValueError),
        (math.nan, 0.5, ValueError),
        (0.5, 0.0, ValueError),
        (0.5, -1.0, ValueError),
        (0.5, math.inf, ValueError),
        (0.5, math.nan, ValueError),
        ("0.5", 0.5, TypeError),
        (0.5, None, TypeError),
    ],
)
def test_minimum_beta_refuses_what_has_no_answer(ratio: Any, importance: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^minimum_beta\(\): expected .*, got .*"):
        cgsv_ext.minimum_beta(ratio, importance)


def test_numbers_may_be_integers_and_numpys(device: torch.device) -> None:
    np = pytest.importorskip("numpy")
    x, r = oracle.normal(N, D).to(device), torch.zeros(N, device=device)
    expected = cgsv_ext.reward_step(x, r, gamma=1.0, alpha=0.0, beta=2.0, floor=0.0, segments=[5, 3])
    got = cgsv_ext.reward_step(
        x, r, gamma=1, alpha=np.float32(0), beta=np.int64(2), floor=0, segments=(np.int64(5), 3)
    )
    assert_same_bits(got, expected)


# Overlaps


def test_out_shares_no_memory_with_any_input(device: torch.device) -> None:
    memory = oracle.normal(200).abs().to(device)
    out = memory[50 : 50 + N * D].view(N, D)
    x = oracle.normal(N, D).to(device)
    r = torch.tensor([0.5, 0.3, 0.2], device=device)
    inputs = {
        "updates, the same": {"updates": out},
        "updates, ending in out": {"updates": memory[30:54].view(N, D)},
        "updates, beginning in out": {"updates": memory[73:97].view(N, D)},
        "updates, one row of a list": {"updates": [x[0], memory[45:53], x[2]]},
        "updates, one row of a strided matrix": {"updates": memory.as_strided((N, D), (33, 1), 0)},
        "importance": {"importance": memory[72:75]},
        "importance, strided": {"importance": memory.as_strided((3,), (25,), 30)},
        "weights": {"weights": memory[49:52]},
        "norms": {"norms": memory[60:63]},
    }
    for changed in inputs.values():
        arguments: Arguments = {"updates": x, "importance": r, "out": out} | changed
        assert_refused("reward_step", arguments, match="out to share no memory with", touched=(memory,))
    next_to_it = {"updates": memory[26:50].view(N, D), "importance": memory[74:77], "norms": memory[77:80]}
    cgsv_ext.reward_step(**next_to_it, out=out)


def test_downloads_share_no_memory_with_any_input(device: torch.device) -> None:
    memory = oracle.normal(100).to(device)
    out = memory[10 : 10 + N * D].view(N, D)
    u = oracle.normal(D, seed=1).to(device)
    selection = cgsv_ext.select(u, torch.tensor([8, 4, 0], device=device))
    for aggregate in (memory[9 : 9 + D], memory[33 : 33 + D]):
        assert_refused(
            "download", {"aggregate": aggregate, "selection": selection, "out": out}, touched=(memory,)
        )
        assert_refused(
            "download_",
            {"aggregate": aggregate, "selection": selection, "parameters": out},
            touched=(memory,),
        )
    overlapping = selection._replace(magnitude=memory[32:35])
    assert_refused("download", {"aggregate": u, "selection": overlapping, "out": out}, touched=(memory,))
    assert_refused(
        "download_", {"aggregate": u, "selection": overlapping, "parameters": out}, touched=(memory,)
    )


def test_rows_between_each_others_rows_do_not_overlap(device: torch.device) -> None:
    """Interleaved matrices: each lies within the other's extent, and no byte is shared."""
    memory = oracle.normal(2 * N * D).to(device)
    w, x = memory.as_strided((N, D), (2 * D, 1), 0), memory.as_strided((N, D), (2 * D, 1), D)
    before = x.clone()
    step = cgsv_ext.reward_step(x, torch.zeros(N, device=device))
    expected = w + step.rewards
    cgsv_ext.download_(w, step.aggregate, step.selection)
    assert_same_bits(w.contiguous(), expected)
    assert_same_bits(x.contiguous(), before)


# The ops themselves, called with nonsense: an exception or a result, never a crash.


def pool() -> list[Any]:
    x = oracle.normal(N, D)
    return [
        x,
        x[0],
        x[0, 0],
        x[:0],
        x[:, :0],
        x.T,
        x[:, ::2],
        x[None],
        x.expand(2, N, D),
        x[:1].expand(N, D),
        x.double(),
        x.bfloat16(),
        x.half(),
        x.long(),
        x.bool(),
        x.to(torch.complex64),
        x.to("meta"),
        x[0].to("meta"),
        torch.tensor([0.5, 0.3, 0.2]),
        torch.tensor([0.5, 0.3, 0.2]).double(),
        torch.tensor([8, 4, 0]),
        torch.tensor([[8], [4], [0]]),
        torch.tensor([2**62, -(2**62), 0]),
        torch.tensor([math.nan, math.inf, -1.0]),
        torch.zeros(N, D),
        torch.empty(0),
        torch.empty(0, 0),
        x.to_sparse(),
        torch.zeros(N, 1).double(),
    ]


NUMBERS = [0.5, 0.0, -1.0, math.nan, math.inf, -math.inf, 1e308, 1]
LISTS: list[Any] = [None, [], [D], [5, 3], [-1, 9], [0] * 9, [2**62, 2**62, D], [2**63 - 1], [1] * D]
SCHEMAS = {
    "norms": "L",
    "partial_norms": "L",
    "partial_aggregate": "LTnT",
    "partial_dots": "LT",
    "histogram": "TTiiI?",
    "pack_row_": "TL",
    "aggregate": "LTnT?",
    "update_importance": "TTnn?",
    "quotas": "TIn",
    "select": "TTI?",
    "download": "TTTI?T",
    "download_": "LTTTI?n",
    "reward_step": "LTnnnn?T?T?I?T?",
}


@settings(max_examples=600)
@given(data=st.data())
def test_the_ops_survive_nonsense(data: st.DataObject) -> None:
    tensors = pool()
    tensor = st.sampled_from(range(len(tensors)))
    kinds = {
        "T": tensor.map(lambda i: tensors[i]),
        "L": st.lists(tensor, max_size=3).map(lambda drawn: [tensors[i] for i in drawn]),
        "n": st.sampled_from(NUMBERS),
        "i": st.sampled_from([0, 1, 8, 10, 20, 52, 63, 64, -1, 2**62, -(2**63)]),
        "I": st.sampled_from(LISTS),
    }
    op = data.draw(st.sampled_from(list(SCHEMAS)))
    arguments = []
    for kind, optional in re.findall(r"(\w)(\??)", SCHEMAS[op]):
        strategy = kinds[kind]
        arguments.append(data.draw(st.one_of(st.none(), strategy) if optional else strategy))
    with contextlib.suppress(Exception):
        getattr(ops, op)(*arguments)


def test_selections_of_any_content_are_data_not_errors(device: torch.device) -> None:
    u = oracle.normal(100).to(device)
    magnitude = torch.tensor([math.nan, math.inf, -math.inf, 0.0, -0.0, 1e30, 0.5], device=device)
    for index in (-(2**63), -1, 0, 57, 99, 100, 2**63 - 1):
        selection = Selection(magnitude, torch.full((7,), index, device=device))
        v = cgsv_ext.download(u, selection)
        assert ((v == 0) | (v == u)).all()
        w = torch.zeros(7, 100, device=device)
        cgsv_ext.download_(w, u, selection)
        assert torch.equal(w, v)
