"""Rewards as bytes: exact both ways, as small as the format allows, and nothing malformed gets in."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import cgsv_ext
from cgsv_ext import Reward, Selection, reference
from cgsv_ext.wire import decode, encode, encode_all

DTYPES = [torch.float32, torch.bfloat16]


def reward(flat: Tensor, round: int = 1, since: int = 0) -> Reward:
    return Reward(round, since, flat, flat)


def bits(x: Tensor) -> list[int]:
    """Of float32, so that zeros and NaNs differ."""
    return x.float().view(torch.int32).tolist()


def but_for_nans(x: Tensor) -> Tensor:
    """With one NaN for all: their payloads in bfloat16 are not those of a GPU."""
    return torch.where(x.isnan(), torch.nan, x.float())


# --- the format, from docs/wire.md alone


def open_message(message: bytes) -> tuple[dict[str, int], list[tuple[int, int, int]], np.ndarray]:
    """Header fields; blocks as (kind, count, bytes); elements as the bits of float32."""
    magic, version, dtype, zero, blocks, size, round, since, length, crc = struct.unpack(
        "<4sBBHIQqqQI", message[:48]
    )
    body = message[48:]
    assert (magic, version, zero) == (b"CGSV", 1, 0)
    assert length == len(body)
    assert crc == zlib.crc32(message[:44] + body)
    elements = np.zeros(size, np.uint32)
    is_open = np.ones(size, bool)
    found = []
    at = 0
    for _ in range(blocks):
        kind, count = struct.unpack_from("<B7xQ", body, at)
        assert body[at + 1 : at + 8] == bytes(7)
        start, at = at, at + 16
        left = np.flatnonzero(is_open)
        if kind == 1:
            places = np.frombuffer(body, "<u4", count, at)
            at += 4 * count
        elif kind == 2:
            words = -(-len(left) // 64) * 8
            mask = np.unpackbits(np.frombuffer(body, np.uint8, words, at), bitorder="little")
            assert not mask[len(left) :].any()
            places = left[mask[: len(left)] == 1]
            at += words
        else:
            assert kind == 3
            places = left
        assert len(places) == count
        assert is_open[places].all()
        is_open[places] = False
        if dtype == 1:
            elements[places] = np.frombuffer(body, "<u2", count, at).astype(np.uint32) << 16
        else:
            elements[places] = np.frombuffer(body, "<u4", count, at)
        at += count * (2 if dtype == 1 else 4)
        assert not any(body[at : at + -at % 8])
        at += -at % 8
        found.append((kind, count, at - start))
    assert at == len(body)
    return {"dtype": dtype, "round": round, "since": since}, found, elements


def smallest(n: int, size: int, zeros_follow: bool, b: int) -> tuple[int, int]:
    """Bytes and kind of a block of n of `size` open entries, where the rest is all +0 or not."""
    sizes = [(4 * n + b * n, 1), (-(-size // 64) * 8 + b * n, 2)]
    if zeros_follow:
        sizes.append((b * size, 3))
    padded = [(16 + -(-bytes // 8) * 8, -kind) for bytes, kind in sizes]
    least, kind = min(padded)
    return least, -kind


def zip_agents(messages: list[bytes], rewards: Tensor) -> Any:
    return zip(messages, rewards, strict=True)


SPECIAL = [
    0.0,
    -0.0,
    float("nan"),
    float("inf"),
    -float("inf"),
    1e-45,
    -1e-45,
    1e-39,
    3.4e38,
    1.0,
    -1.0,
    1 + 2**-8,
]


@st.composite
def vectors(draw: st.DrawFn) -> Tensor:
    """Up to some hundred entries, many of them zero or tied."""
    d = draw(st.integers(0, 300))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    x = torch.randn(d, generator=generator)
    x = torch.where(
        torch.rand(d, generator=generator) < draw(st.sampled_from([0.0, 0.1, 0.5, 0.97, 1.0])), 0.0, x
    )
    if draw(st.booleans()):
        x = (x * 2).round()  # ties, and zeros of both signs
    for j in draw(st.lists(st.integers(0, max(d - 1, 0)), max_size=5 if d else 0)):
        x[j] = draw(st.sampled_from(SPECIAL))
    return x


# --- encode


@given(vectors(), st.sampled_from(DTYPES))
def test_a_reward_comes_back_to_the_bit_in_the_fewest_bytes(x: Tensor, dtype: torch.dtype) -> None:
    message = encode(reward(x, 9, 4), dtype=dtype)
    got = decode(message, size=len(x))
    sent = x.to(dtype).float()
    nan = sent.isnan()
    assert got.flat.dtype == torch.float32
    assert (got.round, got.since) == (9, 4)
    assert got.values is got.flat
    assert bits(got.flat[~nan]) == bits(sent[~nan])
    assert got.flat[nan].isnan().all()
    if dtype == torch.float32:
        assert bits(got.flat) == bits(x)

    header, blocks, elements = open_message(message)
    assert header == {"dtype": int(dtype == torch.bfloat16), "round": 9, "since": 4}
    assert elements.astype(np.int32).tolist() == bits(got.flat)
    n = sum(b != 0 for b in bits(got.flat))
    if n == 0:
        assert len(message) == 48
    else:
        least, kind = smallest(n, len(x), True, dtype.itemsize)
        assert [(kind, least)] == [(kind, bytes) for kind, _, bytes in blocks]


def test_the_smallest_kind_changes_where_the_formula_says() -> None:
    d = 6400
    for dtype, last_index, last_bitmap in ((torch.float32, 199, 6198), (torch.bfloat16, 198, 5996)):
        found = {}
        for n in (1, last_index, last_index + 1, last_bitmap, last_bitmap + 1, d):
            x = torch.zeros(d)
            x[:n] = 1
            found[n] = open_message(encode(reward(x), dtype=dtype))[1][0][0]
        assert list(found.values()) == [1, 1, 2, 2, 3, 3]


@pytest.mark.cpu_kernels  # a GPU gives every bfloat16 NaN the same payload
def test_payloads_of_nans_stay() -> None:
    x = torch.tensor([0x7FC12345, 0x7F812345, -0x3EDCBB], dtype=torch.int32).view(torch.float32)
    assert bits(decode(encode(reward(x))).flat) == [0x7FC12345, 0x7F812345, -0x3EDCBB]
    short = decode(encode(reward(x), dtype=torch.bfloat16)).flat
    assert bits(short) == bits(
        cgsv_ext.download(x, Selection(-torch.ones(1), -torch.ones(1).long()), dtype=torch.bfloat16)[0]
    )
    assert short.isnan().all()


@pytest.mark.parametrize("given_dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes_are_rounded_as_torch_does(given_dtype: torch.dtype) -> None:
    x = torch.randn(1000, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x[:4] = torch.tensor([1e-60, -1e-60, 1 + 2**-9 + 2**-40, 0.0])  # +0 once rounded, −0, a double rounding
    x = x.to(given_dtype)
    for dtype in DTYPES:
        assert bits(decode(encode(reward(x), dtype=dtype)).flat) == bits(x.float().to(dtype))


def test_views_and_tensors_that_require_grad_are_encoded_as_they_are() -> None:
    x = torch.randn(2, 50)
    assert encode(reward(x[0].clone().requires_grad_())) == encode(reward(x[0]))
    assert encode(reward(x.T[0])) == encode(reward(x.T[0].contiguous()))


# --- encode_all


@given(st.data(), vectors(), st.sampled_from(DTYPES), st.booleans())
def test_messages_of_a_round_are_prefixes_that_decode_to_the_downloads(
    data: st.DataObject, u: Tensor, dtype: torch.dtype, double: bool
) -> None:
    u = u.double() if double else u
    d = len(u)
    ratios = data.draw(
        st.lists(st.sampled_from([0.0, 0.003, 0.05, 0.3, 0.5, 0.77, 0.99, 1.0]), min_size=1, max_size=9)
    )
    segments = None
    if d > 3 and data.draw(st.booleans()):
        cuts = sorted(data.draw(st.lists(st.integers(0, d), max_size=5)))
        segments = [b - a for a, b in zip([0, *cuts], [*cuts, d], strict=True)]
    if d == 0:
        quotas = torch.zeros(len(ratios), dtype=torch.int64)
        selection = Selection(u.new_full((len(ratios),), torch.inf), quotas - 1)
    else:
        q = torch.tensor([[int(size * ratio) for size in segments or [d]] for ratio in ratios])
        selection = cgsv_ext.select(u, q if segments else q[:, 0], segments=segments)
    since = [i % 3 for i in range(len(ratios))]
    messages = encode_all(u, selection, segments=segments, round=5, since=since, dtype=dtype)
    rewards = (
        cgsv_ext.download(u, selection, segments=segments, dtype=dtype) if d else u.new_zeros(len(ratios), 0)
    )

    for i, (message, row) in enumerate(zip_agents(messages, rewards)):
        got = decode(message)
        assert (got.round, got.since) == (5, since[i])
        assert bits(but_for_nans(got.flat)) == bits(but_for_nans(row))
        assert open_message(message)[2].astype(np.int32).tolist() == bits(got.flat)
    plain = reference.download(u, selection, segments=segments, dtype=dtype)
    for row, same in zip_agents(list(rewards), plain):
        assert torch.equal(row, same) or row.isnan().any()

    bodies = sorted((message[48:] for message in messages), key=len)
    assert all(bodies[-1].startswith(body) for body in bodies)
    # Every block is the smallest of its kinds, and there is one for each that adds anything.
    left = [b for b in (u.float() if double else u).to(dtype).float().view(torch.int32).tolist() if b]
    size, nonzero = d, len(left)
    _, blocks, _ = open_message(max(messages, key=len))
    for kind, count, bytes in blocks:
        if kind != 3:
            nonzero -= count
            assert (bytes, kind) == smallest(count, size, False, dtype.itemsize) or nonzero == 0
        if kind == 3:
            assert count == size
            assert bytes <= smallest(nonzero, size, True, dtype.itemsize)[0]
        size -= count


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 10, 64])
def test_many_agents_and_several_chunks(n: int, dtype: torch.dtype) -> None:
    d = 150_000
    u = torch.randn(d, generator=torch.Generator().manual_seed(n))
    u[::7] = 0
    quotas = (torch.linspace(0.01, 1, n, dtype=torch.float64) * d).long()
    selection = cgsv_ext.select(u, quotas)
    messages = encode_all(u, selection, dtype=dtype)
    rewards = cgsv_ext.download(u, selection, dtype=dtype)
    for message, row in zip_agents(messages, rewards):
        assert torch.equal(decode(message, size=d).flat.view(torch.int32), row.float().view(torch.int32))
    # Alone, a reward takes no more than as a part of the stream, and decodes to the same.
    for message, row in zip_agents(messages, rewards):
        assert len(encode(reward(row.float()), dtype=dtype)) <= len(message)


def test_agents_with_the_same_share_and_rounds_have_one_message() -> None:
    u = torch.randn(100)
    selection = cgsv_ext.select(u, torch.tensor([50, 20, 50, 50]))
    a, b, c, other = encode_all(u, selection, round=3, since=[1, 1, 1, 2])
    assert a is c
    assert a != other
    assert a[48:] == other[48:]
    assert len(b) < len(a)


@pytest.mark.parametrize("d", [1, 1000, 300_000])
def test_the_bytes_do_not_depend_on_the_number_of_threads(d: int) -> None:
    u = torch.randn(d, generator=torch.Generator().manual_seed(d))
    u[::3] = 0
    selection = cgsv_ext.select(u, torch.tensor([d // 50, d, d // 3]))
    found = []
    for threads in (1, 2, 7):
        torch.set_num_threads(threads)
        messages = encode_all(u, selection)
        found.append((messages, encode(reward(u)), [bits(decode(message).flat) for message in messages]))
    assert found[0] == found[1] == found[2]


def test_selections_that_are_not_nested_are_refused() -> None:
    u = torch.tensor([5.0, -4, 3, -2])
    crossed = Selection(torch.tensor([[4.0, 3], [5, 2]]), torch.tensor([[1, 2], [0, 3]]))
    with pytest.raises(ValueError, match=r"^encode_all\(\): expected nested selections, .*, got two that"):
        encode_all(u, crossed, segments=[2, 2])
    assert len(encode_all(u, Selection(*(x[:1] for x in crossed)), segments=[2, 2])) == 1


# --- decode


def repaired(message: bytes) -> bytes:
    """With the length and checksum that belong to it."""
    head = message[:36] + struct.pack("<Q", len(message) - 48)
    return head + struct.pack("<I", zlib.crc32(head + message[48:])) + message[48:]


def changed(message: bytes, at: int, format: str, value: int) -> bytes:
    packed = struct.pack("<" + format, value)
    return repaired(message[:at] + packed + message[at + len(packed) :])


def example(d: int = 1000) -> bytes:
    x = torch.zeros(d)
    x[::100] = 1
    return encode(reward(x, 2, 1))


def test_every_truncation_and_every_changed_bit_is_refused() -> None:
    message = example(300)
    decode(message)
    for length in range(len(message)):
        with pytest.raises(ValueError, match=r"^decode\(\): expected .*, got "):
            decode(message[:length])
    for at in range(len(message)):
        for bit in range(8):
            bad = bytearray(message)
            bad[at] ^= 1 << bit
            with pytest.raises(ValueError, match=r"^decode\(\): expected .*, got "):
                decode(bad)


@pytest.mark.parametrize(
    ("at", "format", "value", "text"),
    [
        (0, "B", 0x63, "a message that begins with CGSV, got another one"),
        (4, "B", 2, "version 1, got 2"),
        (5, "B", 7, r"values of dtype 0 \(float32\) or 1 \(bfloat16\), got 7"),
        (6, "H", 1, "reserved bytes 0, got 1"),
        (8, "I", 2, "16 more bytes in block 1, got 0"),
        (8, "I", 2**32 - 1, "at most 6 blocks in a body of 96 bytes, got 4294967295"),
        (8, "I", 0, "no bytes after the last block, got 96"),
        (12, "Q", 2**63, "at most 268435456 elements, got 9223372036854775808"),
        (12, "Q", 9, "1 to 9 entries in block 0, got 10"),
        (28, "q", 3, "rounds 0 ≤ since ≤ round, got since 3 and round 2"),
        (28, "q", -1, "rounds 0 ≤ since ≤ round, got since -1 and round 2"),
        (48, "B", 0, "kind 1, 2 or 3 in block 0, got 0"),
        (48, "B", 3, "the values of all 1000 open positions in block 0, got 10"),
        (49, "B", 1, "reserved bytes 0 in block 0, got others"),
        (56, "Q", 0, "1 to 1000 entries in block 0, got 0"),
        (56, "Q", 2**61, "1 to 1000 entries in block 0, got 2305843009213693952"),
        (56, "Q", 11, "104 bytes in block 0, got 96"),
        (64, "I", 1000, "each block's indices to ascend, below D, and no position twice, got others"),
        (64, "I", 100, "each block's indices to ascend"),
        (100, "I", 999, None),
        (100, "I", 2**32 - 1, "each block's indices to ascend"),
    ],
)
def test_what_a_checksum_does_not_mend_is_refused(at: int, format: str, value: int, text: str | None) -> None:
    bad = changed(example(), at, format, value)
    if text is None:
        assert decode(bad).flat[999] == 1
    else:
        with pytest.raises(ValueError, match=r"^decode\(\): expected " + text):
            decode(bad)


def test_sizes_are_checked_before_memory_is_taken() -> None:
    message = changed(encode(reward(torch.zeros(3))), 12, "Q", 2**32)
    with pytest.raises(ValueError, match=r"^decode\(\): expected D = 3, got 4294967296$"):
        decode(message, size=3)
    with pytest.raises(ValueError, match=r"^decode\(\): expected at most 1000 elements, got 4294967296$"):
        decode(message, limit=1000)
    with pytest.raises(ValueError, match=r"^decode\(\): expected checksum 0x"):
        decode(message[:12] + bytes(8) + message[20:])


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_refused_or_decoded_like_by_the_parser_above(body: bytes, blocks: bool) -> None:
    head = b"CGSV" + struct.pack("<BBHIQqq", 1, 0, 0, int(blocks), 20, 0, 0) + bytes(12)
    message = repaired(head + body)
    try:
        got = decode(message, limit=100)
    except ValueError:
        with pytest.raises(ValueError, match=r"^decode\(\): expected .*, got "):
            decode(message, limit=100)
        return
    assert bits(got.flat) == open_message(message)[2].astype(np.int32).tolist()


def test_anything_that_is_bytes_can_be_decoded() -> None:
    message = example()
    expected = decode(message).flat
    for data in (
        bytearray(message),
        memoryview(message),
        memoryview(b"x" + message)[1:],
        np.frombuffer(message, np.uint8),
        torch.frombuffer(bytearray(message), dtype=torch.uint8),
    ):
        assert torch.equal(decode(data).flat, expected)
    for data, error in (
        ("text", TypeError),
        (None, TypeError),
        (memoryview(message)[::2], ValueError),
        (torch.zeros(9), ValueError),
        (np.zeros(9), ValueError),
    ):
        with pytest.raises(error, match=r"^decode\(\): expected .*, got "):
            decode(data)  # type: ignore[arg-type]


# --- arguments


def test_wrong_arguments_are_named() -> None:
    u = torch.randn(6)
    selection = cgsv_ext.select(u, torch.tensor([2, 6]))
    calls: list[tuple[Any, type[Exception], str]] = [
        (lambda: encode(u), TypeError, r"encode\(\): expected reward to be a Reward, got Tensor"),  # type: ignore[arg-type]
        (
            lambda: encode(reward(u.int())),
            ValueError,
            r"encode\(\): expected reward.flat of .* or float16, got int32",
        ),
        (
            lambda: encode(reward(u.view(2, 3))),
            ValueError,
            r"encode\(\): expected reward.flat of shape \(D,\), got \(2, 3\)",
        ),
        (
            lambda: encode(reward(u.to("meta"))),
            ValueError,
            r"encode\(\): expected reward.flat with data, got meta",
        ),
        (
            lambda: encode(reward(u), dtype=torch.float16),
            ValueError,
            r"encode\(\): expected dtype float32 or bfloat16, got float16",
        ),
        (
            lambda: encode(reward(u, 1, 2)),
            ValueError,
            r"encode\(\): expected rounds since ≤ round, got since 2 and round 1",
        ),
        (
            lambda: encode_all(u.half(), selection),
            ValueError,
            r"encode_all\(\): expected aggregate of float32 or float64, got float16",
        ),
        (
            lambda: encode_all(u, selection.magnitude),
            TypeError,
            r"encode_all\(\): expected selection to be a Selection, got Tensor",
        ),  # type: ignore[arg-type]
        (
            lambda: encode_all(u.double(), selection),
            ValueError,
            r"encode_all\(\): expected selection.magnitude of float64, got float32",
        ),
        (
            lambda: encode_all(u, selection, segments=[6]),
            ValueError,
            r"encode_all\(\): expected selection.magnitude of shape \(N, 1\), .*, got \(2,\)",
        ),
        (
            lambda: encode_all(u, selection, segments=[6, 1]),
            ValueError,
            r"encode_all\(\): expected segments that .* sum to D = 6, got \[6, 1\]",
        ),
        (
            lambda: encode_all(u, Selection(selection[0], selection[1][:1])),
            ValueError,
            r"encode_all\(\): expected selection.last_index of shape \(2,\), got \(1,\)",
        ),
        (
            lambda: encode_all(u, selection, since=[0]),
            ValueError,
            r"encode_all\(\): expected since of 2 rounds, one an agent, got 1",
        ),
        (
            lambda: encode_all(u, selection, round=1.0),
            TypeError,
            r"encode_all\(\): expected round to be an integer, got 1.0",
        ),  # type: ignore[arg-type]
        (
            lambda: decode(example(), size=True),
            TypeError,
            r"decode\(\): expected size to be an integer, got True",
        ),
        (
            lambda: decode(example(), size=-1),
            ValueError,
            r"decode\(\): expected size in \[0, 2\^63\), got -1",
        ),
        (
            lambda: decode(example(), limit=-1),
            ValueError,
            r"decode\(\): expected limit in \[0, 2\^63\), got -1",
        ),
    ]
    for call, error, text in calls:
        with pytest.raises(error, match="^" + text):
            call()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_tensors_on_a_gpu_are_encoded_as_those_on_the_cpu() -> None:
    u = torch.randn(1000)
    selection = cgsv_ext.select(u, torch.tensor([100, 1000]))
    assert encode(reward(u.cuda())) == encode(reward(u))
    assert encode_all(u.cuda(), Selection(*(x.cuda() for x in selection))) == encode_all(u, selection)
