"""How the tensors of models and updates lie in one flat row."""

from __future__ import annotations

import itertools
import re
from typing import Any

import oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import DTYPES, assert_same_bits
from torch import Tensor, nn

from cgsv_ext.server import RewardServer, Template

SHAPES = st.lists(st.lists(st.integers(0, 4), max_size=3).map(tuple), min_size=1, max_size=5)


class Tied(nn.Module):
    """Two layers with the same weights, one of their own, buffers of both kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(3, 3)
        self.decode = nn.Linear(3, 3)
        self.decode.weight = self.encode.weight
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("scratch", torch.ones(2), persistent=False)


def tensors(shapes: list[tuple[int, ...]], seed: int = 0, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [
        torch.randn(shape, generator=oracle.generator(seed + i)).to(dtype) for i, shape in enumerate(shapes)
    ]


def has_elements(shapes: list[tuple[int, ...]]) -> bool:
    return any(0 not in shape for shape in shapes)


def as_structure(kind: str, parts: list[Tensor]) -> Any:
    return (
        parts
        if kind == "list"
        else tuple(parts)
        if kind == "tuple"
        else {f"p{i}": p for i, p in enumerate(parts)}
    )


def in_order(structured: Any) -> list[Tensor]:
    if isinstance(structured, Tensor):
        return [structured]
    return list(structured.values()) if isinstance(structured, dict) else list(structured)


@pytest.mark.parametrize("kind", ["list", "tuple", "dict"])
@settings(max_examples=40)
@given(shapes=SHAPES.filter(has_elements), seed=st.integers(0, 99))
def test_what_is_shaped_has_the_parts_it_was_made_of(
    kind: str, shapes: list[tuple[int, ...]], seed: int
) -> None:
    like, update = (as_structure(kind, tensors(shapes, seed + k)) for k in (0, 50))
    template = Template(like)
    parts = template.parts(update)
    in_their_order = template.parts(in_order(update))
    assert [part.data_ptr() for part in in_their_order] == [part.data_ptr() for part in parts]
    assert [tuple(part.shape) for part in parts] == shapes == [tuple(shape) for shape in template.shapes]
    assert template.sizes == [part.numel() for part in parts]
    assert template.size == sum(template.sizes)
    flat = torch.cat([part.flatten() for part in parts])
    shaped = template.shaped(flat)
    assert isinstance(shaped, dict if kind == "dict" else list)
    assert not isinstance(shaped, dict) or list(shaped) == list(update)
    for given_part, part, view in zip(in_order(update), parts, in_order(shaped), strict=True):
        assert part.data_ptr() == given_part.data_ptr()
        assert_same_bits(view, given_part)
    flat.zero_()
    assert all(not view.any() for view in in_order(shaped))
    assert_same_bits(torch.cat([p.flatten() for p in template.parts(shaped)]), flat)


@pytest.mark.parametrize("kind", ["list", "dict", "flat"])
@settings(max_examples=40)
@given(shapes=SHAPES.filter(has_elements), dtype=st.sampled_from(DTYPES), seed=st.integers(0, 99))
def test_adding_is_adding_tensor_by_tensor(
    kind: str, shapes: list[tuple[int, ...]], dtype: torch.dtype, seed: int
) -> None:
    like = tensors(shapes, seed, dtype)
    template = Template(as_structure("dict" if kind == "dict" else "list", like))
    flat = oracle.normal(template.size, seed=seed + 50)
    # The model at hand may keep its parameters in another dtype, and strided.
    into = [torch.stack([p, p], dim=-1)[..., 1] for p in like]
    target = torch.cat([p.flatten() for p in like]) if kind == "flat" else as_structure(kind, into)
    template.add_(target, flat)
    at = 0
    for i, p in enumerate(like):
        expected = p + flat[at : at + p.numel()].view(p.shape)
        at += p.numel()
        got = target[at - p.numel() : at].view(p.shape) if kind == "flat" else into[i]
        assert_same_bits(got, expected.to(dtype))


def test_a_module_stands_for_its_parameters_and_its_state_dict_is_an_update() -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    template = Template(module)
    assert template.names == tuple(name for name, _ in module.named_parameters())
    assert template.size == sum(p.numel() for p in module.parameters())
    for update in (module.state_dict(), dict(module.named_parameters()), module.state_dict(keep_vars=True)):
        parts = template.parts(update)
        assert all(torch.equal(a, b) for a, b in zip(parts, module.parameters(), strict=True))
        assert not any(part.requires_grad for part in parts)


def test_tied_parameters_are_one() -> None:
    module = Tied()
    template = Template(module)
    assert template.names == ("encode.weight", "encode.bias", "decode.bias", "norm.weight", "norm.bias")
    assert template.size == 9 + 4 * 3
    assert len(template.parts(module.state_dict())) == 5
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    template.add_(module, torch.ones(template.size))
    for name, p in module.named_parameters():
        assert torch.equal(p, before[name] + 1)
    assert module.decode.weight is module.encode.weight
    assert module.norm.num_batches_tracked == 0
    assert not module.norm.running_mean.any()


def test_a_state_dict_stands_for_its_floating_point_entries() -> None:
    state = nn.BatchNorm1d(3).state_dict()
    template = Template(state)
    assert template.names == ("weight", "bias", "running_mean", "running_var")
    assert template.dtype == torch.float32
    assert len(template.parts(state)) == 4  # the counter is passed over
    shaped = template.shaped(torch.arange(12.0))
    assert isinstance(shaped, dict)
    assert shaped["running_var"].tolist() == [9.0, 10.0, 11.0]
    del state["num_batches_tracked"]
    assert len(template.parts(state)) == 4


def test_a_module_takes_what_its_state_dict_says() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    template = Template(module.state_dict())
    before = {name: value.clone() for name, value in module.state_dict().items()}
    template.add_(module, torch.ones(template.size))
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name] + (1 if name in template.names else 0)), name


def test_nothing_is_added_twice_to_memory_that_has_two_names() -> None:
    module = Tied()
    template = Template(module.state_dict())
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(
        ValueError, match=r"^expected tensors that share no memory, got '.*' and '.*', which do"
    ):
        template.add_(module, torch.ones(template.size))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    part = torch.zeros(3)
    with pytest.raises(ValueError, match=r"^expected tensors that share no memory, got \[0\] and \[1\]"):
        Template([part, part.clone()]).add_([part, part], torch.ones(6))
    assert not part.any()


def test_nothing_is_added_where_some_elements_share_memory() -> None:
    base = torch.zeros(9)
    template = Template([torch.zeros(3), torch.zeros(3)])
    for into, text in [
        ([base[:3], base[2:5]], "expected tensors that share no memory, got [0] and [1]"),
        ([base[4:7], base[2:5]], "expected tensors that share no memory, got [1] and [0]"),
        ([base[:3], base[5:6].expand(3)], "expected memory for each element, got [1], which is expanded"),
        ([base[0:9:4], base[2:5]], "expected tensors that share no memory, got [0] and [1]"),
    ]:
        with pytest.raises(ValueError, match=f"^{re.escape(text)}"):
            template.add_(into, torch.ones(6))
        assert not base.any()
    template.add_([base[:3], base[3:9:2]], torch.ones(6))
    assert base.tolist() == [1, 1, 1, 1, 0, 1, 0, 1, 0]


def test_a_module_takes_what_a_list_of_its_parameters_says() -> None:
    module = nn.Linear(3, 2)
    template = Template(list(module.parameters()))
    before = [p.detach().clone() for p in module.parameters()]
    template.add_(module, torch.ones(8))
    for p, was in zip(module.parameters(), before, strict=True):
        assert torch.equal(p, was + 1)
        assert p.grad is None


def test_a_tensor_and_a_size() -> None:
    template = Template(torch.zeros(3, 4, dtype=torch.float64))
    assert (template.names, template.sizes, template.dtype) == (None, [12], torch.float64)
    assert [tuple(part.shape) for part in template.parts(torch.ones(3, 4))] == [(3, 4)]
    assert [tuple(part.shape) for part in template.parts(torch.ones(12))] == [(12,)]
    shaped = template.shaped(torch.arange(12.0))
    assert isinstance(shaped, Tensor)
    assert shaped.shape == (3, 4)
    into = torch.zeros(3, 4)
    template.add_(into, torch.arange(12.0))
    assert torch.equal(into, torch.arange(12.0).view(3, 4))
    size = Template(12)
    assert (size.sizes, size.dtype, size.device) == ([12], torch.float32, torch.device("cpu"))
    assert size.description() == Template(torch.zeros(12)).description()
    assert size != template
    scalar = Template(torch.tensor(2.0))
    assert scalar.parts(torch.tensor(1.0))[0].shape == ()
    assert scalar.shaped(torch.ones(1)).shape == ()


def test_every_structure_takes_a_flat_update() -> None:
    flat = torch.arange(6.0)
    for like in (
        [torch.zeros(2), torch.zeros(4)],
        {"a": torch.zeros(6)},
        nn.Linear(2, 2),
        torch.zeros(2, 3),
        6,
    ):
        (part,) = Template(like).parts(flat)
        assert part.data_ptr() == flat.data_ptr()
        assert part.shape == (6,)


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        ([torch.float64, torch.float64], torch.float64),
        ([torch.bfloat16, torch.bfloat16], torch.bfloat16),
        ([torch.float64, torch.float32], torch.float32),
        ([torch.float16, torch.bfloat16], torch.float32),
    ],
)
def test_the_dtype_is_the_tensors_own_where_they_agree(
    dtypes: list[torch.dtype], expected: torch.dtype
) -> None:
    template = Template([torch.zeros(2, dtype=dtype) for dtype in dtypes])
    assert template.dtype == expected
    assert RewardServer(template).dtype == expected


def test_the_device_is_that_of_the_tensors(device: torch.device) -> None:
    assert Template([torch.zeros(2, device="meta"), torch.zeros(1, device=device)]).device.type == device.type
    assert Template(nn.Linear(2, 2, device="meta")).device.type == "cpu"
    flat = torch.ones(6, device=device)
    module = nn.Linear(2, 2)
    before = module.weight.detach().clone()
    Template(module).add_(module, flat)
    assert torch.equal(module.weight, before + 1)


def test_templates_are_equal_where_their_updates_are_interchangeable() -> None:
    module = nn.Linear(3, 2)
    own = Template(module).description()
    assert own == Template(dict(module.named_parameters())).description()
    assert own == Template(nn.Linear(3, 2).double()).description()
    different = [module, nn.Linear(2, 3), list(module.parameters()), 8, torch.zeros(2, 4), [torch.zeros(8)]]
    for i, a in enumerate(different):
        for j, b in enumerate(different):
            assert (Template(a).description() == Template(b).description()) == (i == j)
    assert Template(8) != 8


# Refusals. Each says what was expected and what came.

MODULE = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
GOOD = {name: p.detach().clone() for name, p in MODULE.named_parameters()}
FLAT = "or a flat one of 12 elements"


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in GOOD.items() if key != name}


BY_NAME: dict[str, tuple[Any, str]] = {
    "missing": (without("0.bias"), "expected the template's 4 tensors, got no '0.bias'"),
    "unknown": (GOOD | {"x": torch.ones(1)}, "expected the template's 4 tensors, got an unknown 'x'"),
    "all": (
        {"x": 1},
        "expected the template's 4 tensors, got no '0.weight', no '0.bias', no '1.weight' and 2 more",
    ),
    "shape": (GOOD | {"0.bias": torch.ones(3)}, "expected '0.bias' of shape (2,), got (3,)"),
    "transposed": (
        GOOD | {"0.weight": torch.ones(3, 2)},
        "expected '0.weight' of shape (2, 3), got (3, 2)",
    ),
    "integers": (
        GOOD | {"0.bias": torch.ones(2, dtype=torch.int64)},
        "expected '0.bias' to be one of float64, float32, bfloat16, float16, got torch.int64",
    ),
    "complex": (
        GOOD | {"0.bias": torch.ones(2, dtype=torch.complex64)},
        "expected '0.bias' to be one of float64, float32, bfloat16, float16, got torch.complex64",
    ),
    "float8": (
        GOOD | {"0.bias": torch.ones(2).to(torch.float8_e4m3fn)},
        "expected '0.bias' to be one of float64, float32, bfloat16, float16, got torch.float8_e4m3fn",
    ),
    "no tensor": (GOOD | {"0.bias": [1.0, 2.0]}, "expected '0.bias' to be a tensor, got list"),
    "sparse": (
        GOOD | {"0.bias": torch.ones(2).to_sparse()},
        "expected '0.bias' to be dense, got torch.sparse_coo",
    ),
    "nested": (
        GOOD | {"0.bias": torch.nested.nested_tensor([torch.ones(2)], layout=torch.jagged)},
        "expected '0.bias' to be dense, got nested",
    ),
    "meta": (
        GOOD | {"0.bias": torch.ones(2, device="meta")},
        "expected '0.bias' to hold data, got a tensor on the meta device",
    ),
    "few": (list(GOOD.values())[:-1], f"expected {len(GOOD)} tensors, got {len(GOOD) - 1}"),
    "flat size": (
        torch.ones(13),
        f"expected {len(GOOD)} tensors by name or in order, {FLAT}, got a tensor of shape (13,)",
    ),
    "flat shape": (
        torch.ones(12, 1),
        f"expected {len(GOOD)} tensors by name or in order, {FLAT}, got a tensor of shape (12, 1)",
    ),
    "flat dtype": (
        torch.ones(12, dtype=torch.bool),
        "expected the update to be one of float64, float32, bfloat16, float16, got torch.bool",
    ),
    "None": (None, f"expected {len(GOOD)} tensors by name or in order, {FLAT}, got NoneType"),
    "text": ("weights", f"expected {len(GOOD)} tensors by name or in order, {FLAT}, got str"),
}

IN_ORDER: dict[str, tuple[Any, str]] = {
    "few": ([torch.ones(2)], "expected 2 tensors, got 1"),
    "many": ([torch.ones(2)] * 3, "expected 2 tensors, got 3"),
    "shape": ([torch.ones(2), torch.ones(2)], "expected [1] of shape (3,), got (2,)"),
    "no tensor": ([torch.ones(2), None], "expected [1] to be a tensor, got NoneType"),
    "dict": ({"a": torch.ones(2)}, "expected 2 tensors in order, or a flat one of 5 elements, got dict"),
    "text": ("ab", "expected 2 tensors in order, or a flat one of 5 elements, got str"),
    "iterator": (iter([]), "expected 2 tensors in order, or a flat one of 5 elements, got list_iterator"),
    "tensor": (
        torch.ones(2, 3),
        "expected 2 tensors in order, or a flat one of 5 elements, got a tensor of shape (2, 3)",
    ),
}


@pytest.mark.parametrize(("update", "text"), BY_NAME.values(), ids=BY_NAME)
def test_an_update_by_name_that_does_not_fit_is_refused(update: Any, text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        Template(MODULE).parts(update)


@pytest.mark.parametrize(("update", "text"), IN_ORDER.values(), ids=IN_ORDER)
def test_an_update_in_order_that_does_not_fit_is_refused(update: Any, text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        Template([torch.zeros(2), torch.zeros(3)]).parts(update)


@pytest.mark.parametrize(
    ("update", "text"),
    [
        (torch.ones(4, 3), "expected the update of shape (3, 4), got (4, 3)"),
        (torch.ones(11), "expected the update of shape (3, 4), got (11,)"),
        ([torch.ones(3, 4)], "expected the update to be a tensor, got list"),
    ],
    ids=str,
)
def test_a_tensor_that_does_not_fit_is_refused(update: Any, text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        Template(torch.zeros(3, 4)).parts(update)


@pytest.mark.parametrize("into", [value for value, _ in BY_NAME.values()], ids=BY_NAME)
def test_nothing_is_added_where_the_structure_differs(into: Any) -> None:
    before = {name: value.clone() for name, value in GOOD.items()}
    with pytest.raises(ValueError, match=r"expected .*, got "):
        Template(MODULE).add_(into, torch.ones(12))
    for name, value in GOOD.items():
        assert torch.equal(value, before[name])


def test_nothing_is_added_of_a_flat_tensor_of_another_size() -> None:
    into = {name: value.clone() for name, value in GOOD.items()}
    for flat in (torch.ones(11), torch.ones(13), torch.ones(12, 1), torch.ones(())):
        with pytest.raises(ValueError, match=r"^add_\(\): expected a tensor of 12 elements, got \("):
            Template(MODULE).add_(into, flat)
        with pytest.raises(ValueError, match=r"^shaped\(\): expected a tensor of 12 elements, got \("):
            Template(MODULE).shaped(flat)
    assert all(torch.equal(into[name], value) for name, value in GOOD.items())
    with pytest.raises(
        ValueError, match=r"^expected the template's 4 tensors, got no '0.weight', no '0.bias'"
    ):
        Template(MODULE).add_(MODULE[0], torch.ones(12))


@pytest.mark.parametrize(
    ("like", "error", "text"),
    [
        (0, ValueError, "expected at least one element, got 0"),
        (-3, ValueError, "expected at least one element, got -3"),
        ([], ValueError, "expected at least one element, got []"),
        ({}, ValueError, "expected at least one element, got {}"),
        (nn.ReLU(), ValueError, "expected at least one element, got ReLU()"),
        ([torch.zeros(0, 3)], ValueError, "expected at least one element, got [tensor("),
        ({"n": torch.tensor(3)}, ValueError, "expected at least one element, got {"),
        (True, TypeError, "expected a module, a state dict, floating-point tensors or a size, got bool"),
        (None, TypeError, "expected a module, a state dict, floating-point tensors or a size, got NoneType"),
        ("model", TypeError, "expected a module, a state dict, floating-point tensors or a size, got str"),
        (1.5, TypeError, "expected a module, a state dict, floating-point tensors or a size, got float"),
        (
            [1, 2],
            TypeError,
            "expected a module, a state dict, floating-point tensors or a size, got int at [0]",
        ),
        ({"a": None}, TypeError, "got NoneType at 'a'"),
        (torch.ones(2, dtype=torch.int32), TypeError, "got torch.int32 at [0]"),
        ([torch.ones(1), torch.ones(1, dtype=torch.complex64)], TypeError, "got torch.complex64 at [1]"),
        (
            nn.ParameterDict({"a": nn.Parameter(torch.ones(2, dtype=torch.cfloat))}),
            TypeError,
            "got torch.complex64 at 'a'",
        ),
    ],
    ids=itertools.count(),
)
def test_what_is_no_template(like: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=rf"^Template\(\): (expected .*, )?{re.escape(text)}"):
        Template(like)
