"""What coalitions are worth, and each agent's share: exact, sampled and approximate values."""

from __future__ import annotations

import functools
import itertools
import math
import signal
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import oracle
import pytest
import torch
from oracle import DTYPES, assert_same_bits, f64
from torch import Tensor

import cgsv_ext
from cgsv_ext import shapley

FUNCTIONS = [
    shapley.exact,
    shapley.banzhaf,
    shapley.sampled,
    shapley.approximate,
    shapley.value,
    shapley.leave_one_out,
]
functions = pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)

# The definitions on the vectors themselves. A coalition is an integer whose bit i says whether agent i is in.


def values_of(x: Tensor, weights: list[float] | None = None) -> np.ndarray:
    """(2^N,): v(S) = cos(u_S, u_N)."""
    rows = f64(x)
    n = len(rows)
    weights = [1 / n] * n if weights is None else weights
    parts = np.zeros_like(rows)
    w = np.zeros(n)
    for i, row in enumerate(rows):
        length = math.sqrt(np.dot(row, row)) if np.isfinite(row).all() else 0.0
        if length > 0 and math.isfinite(weights[i]):
            w[i] = weights[i]
            parts[i] = w[i] * (row / length)
    everyone = parts.sum(0)
    values = np.zeros(2**n)
    for s in range(2**n):
        members = [i for i in range(n) if s >> i & 1]
        u = parts[members].sum(0)
        if all(
            np.dot(a, a) > 1e-12 * np.abs(w[m]).sum() ** 2
            for a, m in ((u, members), (everyone, list(range(n))))
        ):
            cosine = np.dot(u, everyone) / math.sqrt(np.dot(u, u)) / math.sqrt(np.dot(everyone, everyone))
            values[s] = min(1.0, max(-1.0, cosine))
    return values


def marginals(values: np.ndarray, i: int) -> tuple[np.ndarray, np.ndarray]:
    """v(S ∪ {i}) − v(S) and |S| over all S without i."""
    s = np.arange(len(values))
    s = s[s >> i & 1 == 0]
    sizes = np.array([int(v).bit_count() for v in s])
    return values[s | 1 << i] - values[s], sizes


def shapley_of(values: np.ndarray) -> np.ndarray:
    n = len(values).bit_length() - 1
    weights = np.array([1 / (n * math.comb(n - 1, k)) for k in range(n)])
    gains = [marginals(values, i) for i in range(n)]
    return np.array([math.fsum(gain * weights[sizes]) for gain, sizes in gains])


def banzhaf_of(values: np.ndarray) -> np.ndarray:
    return np.array([marginals(values, i)[0].mean() for i in range(len(values).bit_length() - 1)])


def values_of_gram(gram: Tensor, weights: Tensor) -> np.ndarray:
    """As `values_of`, fast enough for N = 20."""
    n = len(gram)
    members = np.arange(2**n)[:, None] >> np.arange(n) & 1
    w = f64(weights)
    part = members * w
    inner = part @ f64(gram)
    square = (inner * part).sum(1)
    along = inner @ w
    counts = square > 1e-12 * (members @ np.abs(w)) ** 2
    values = along / np.sqrt(np.where(counts, square, 1)) / math.sqrt(square[-1])
    return np.where(counts, np.clip(values, -1, 1), 0)


def close(got: Tensor, expected: Any, atol: float = 1e-12) -> None:
    assert got.dtype == torch.float64
    np.testing.assert_allclose(f64(got), expected, rtol=0, atol=atol)


WEIGHTS: dict[str, Callable[[int], list[float] | None]] = {
    "equal": lambda n: None,
    "positive": lambda n: [1.0 + i % 3 for i in range(n)],
    "mixed": lambda n: [(-1) ** i * (0.3 + i % 5) for i in range(n)],
    "some zero": lambda n: [float(i % 3) for i in range(n)],
    "not finite": lambda n: [math.nan if i == 1 else math.inf if i == 2 else 1.0 for i in range(n)],
}
weightings = pytest.mark.parametrize("weighting", WEIGHTS)


def tensor_of(weights: list[float] | None, device: torch.device) -> Tensor | None:
    return None if weights is None else torch.tensor(weights, dtype=torch.float64, device=device)


# Exact values


@weightings
@pytest.mark.parametrize("kind", oracle.KINDS)
def test_exact_is_the_mean_over_all_permutations(device: torch.device, kind: str, weighting: str) -> None:
    for n in (1, 2, 3, 6):
        x = oracle.updates_of(kind, n, 40, torch.float64, seed=n).to(device)
        weights = tensor_of(WEIGHTS[weighting](n), device)
        expected = cgsv_ext.reference.shapley_exact(x, weights)
        close(shapley.exact(x, weights), f64(expected))


@pytest.mark.parametrize("dtype", DTYPES, ids=oracle.name)
def test_exact_is_the_mean_over_all_40320_permutations_of_eight(
    device: torch.device, dtype: torch.dtype
) -> None:
    x = oracle.normal(8, 100, dtype=dtype).to(device)
    close(shapley.exact(x), f64(cgsv_ext.reference.shapley_exact(x)))


@weightings
@pytest.mark.parametrize("n", range(1, 13))
def test_exact_and_banzhaf_are_the_sums_over_all_coalitions(
    device: torch.device, n: int, weighting: str
) -> None:
    x = oracle.updates_of("alike" if n % 2 else "normal", n, 60, torch.float32, seed=n)
    weights = WEIGHTS[weighting](n)
    values = values_of(x, weights)
    given = x.to(device), tensor_of(weights, device)
    close(shapley.exact(*given), shapley_of(values))
    close(shapley.banzhaf(*given), banzhaf_of(values))


@pytest.mark.parametrize("n", [15, 16, 17, 18, pytest.param(20, marks=pytest.mark.slow)])
def test_many_agents(n: int) -> None:
    """Whole blocks, more than one unit of work."""
    gram = cgsv_ext.gram(oracle.normal(n, 30, seed=n))
    weights = torch.linspace(-0.55, 1.5, n, dtype=torch.float64)
    values = values_of_gram(gram, weights)
    close(shapley.exact(gram=gram, weights=weights), shapley_of(values))
    close(shapley.banzhaf(gram=gram, weights=weights), banzhaf_of(values))


def test_an_independent_library_agrees() -> None:
    shapiq = pytest.importorskip("shapiq")
    for n in (3, 7, 12):
        x = oracle.normal(n, 50, seed=n)
        values = values_of(x)

        def game(coalitions: np.ndarray, values: np.ndarray = values, n: int = n) -> np.ndarray:
            return values[coalitions.astype(np.int64) @ (1 << np.arange(n))]

        computer = shapiq.ExactComputer(game, n_players=n)
        for function, index in ((shapley.exact, "SV"), (shapley.banzhaf, "BV")):
            found = computer(index=index, order=1)
            close(function(x), [found[(i,)] for i in range(n)])


# Axioms


@pytest.mark.parametrize("n", [1, 2, 5, 9, 14, 17, 20, 23])
def test_values_sum_to_that_of_everyone(n: int) -> None:
    for seed in range(3):
        x = oracle.normal(n, 50, seed=seed)
        weights = torch.rand(n, generator=oracle.generator(seed), dtype=torch.float64)
        assert math.isclose(shapley.exact(x, weights).sum().item(), 1, rel_tol=0, abs_tol=1e-12)


@pytest.mark.parametrize("n", [4, 11, 19])
@pytest.mark.parametrize("kind", ["nan", "inf", "zeros", "weight 0", "weight nan"])
def test_null_players_get_nothing_and_change_nothing(device: torch.device, n: int, kind: str) -> None:
    x, weights = oracle.normal(n, 50), torch.rand(n, generator=oracle.generator(0), dtype=torch.float64)
    alone = [f64(f(x, weights)) for f in (shapley.exact, shapley.banzhaf, shapley.leave_one_out)]
    place = 2
    x = torch.cat([x[:place], oracle.normal(1, 50, seed=7), x[place:]])
    weights = torch.cat([weights[:place], torch.full((1,), 0.7, dtype=torch.float64), weights[place:]])
    if kind.startswith("weight"):
        weights[place] = float(kind.removeprefix("weight "))
    else:
        x[place, 3:] = 0 if kind == "zeros" else float(kind)
        x[place, :3] = 0
    given = x.to(device), weights.to(device)
    for function, before in zip((shapley.exact, shapley.banzhaf, shapley.leave_one_out), alone, strict=True):
        got = function(*given)
        assert got[place] == 0
        close(torch.cat([got[:place], got[place + 1 :]]), before)
    estimate = shapley.sampled(*given, permutations=50)
    assert (estimate.values[place], estimate.standard_errors[place]) == (0, 0)


@pytest.mark.parametrize("n", [2, 9, 18])
def test_twins_get_the_same(n: int) -> None:
    x = oracle.normal(n, 50)
    x[-1] = x[0]
    for function in (shapley.exact, shapley.banzhaf, shapley.leave_one_out):
        got = function(x)
        assert math.isclose(got[0].item(), got[-1].item(), rel_tol=0, abs_tol=1e-12)


def test_the_order_of_the_agents_does_not_matter() -> None:
    x = oracle.normal(18, 50)
    order = torch.randperm(18, generator=oracle.generator(1))
    weights = torch.linspace(-0.2, 1, 18, dtype=torch.float64)
    for function in (shapley.exact, shapley.banzhaf, shapley.leave_one_out):
        close(function(x[order], weights[order]), f64(function(x, weights)[order]))


@functions
@pytest.mark.parametrize("factor", [2.0, 2.0**-1000, 3.7, 1e300, 1e-300])
def test_a_common_factor_of_the_weights_does_not_matter(function: Callable[..., Any], factor: float) -> None:
    x = oracle.normal(6, 50)
    weights = torch.tensor([0.1, 0.2, -0.05, 0.3, 0.0, 0.4], dtype=torch.float64)
    before = call(function, x, weights)
    after = call(function, x, weights * factor)
    # The aggregate of float32 updates is float32.
    atol = 1e-6 if function is shapley.approximate else 1e-12
    torch.testing.assert_close(after, before, rtol=0, atol=atol)


@functions
def test_the_lengths_of_the_updates_do_not_matter(function: Callable[..., Any]) -> None:
    x = oracle.normal(5, 50, dtype=torch.float64)
    lengths = torch.tensor([1e-30, 1e30, 1.0, 1e-9, 1e12], dtype=torch.float64)[:, None]
    torch.testing.assert_close(call(function, x * lengths), call(function, x), rtol=0, atol=1e-9)


def call(function: Callable[..., Any], *arguments: Any, **options: Any) -> Tensor:
    """The one tensor of a function's result, on inputs that all of them take."""
    if function is shapley.value:
        n = len(arguments[0]) if arguments else len(options["gram"])
        arguments = (torch.eye(n, dtype=torch.bool) | (torch.arange(n) < 2), *arguments)
    if function is shapley.sampled:
        options |= {"generator": oracle.generator(0), "permutations": 20}
        return shapley.sampled(*arguments, **options).values
    result: Tensor = function(*arguments, **options)
    return result


# Edge cases


@functions
def test_updates_that_cancel_are_worth_nothing(function: Callable[..., Any]) -> None:
    """But a coalition of some of them may be worth something."""
    x = oracle.normal(3, 1000)
    nothing = torch.stack([x[0], -x[0], x[1], -x[1] * 3])
    assert not call(function, nothing).any()
    something = torch.stack([x[0], -x[0], x[2]])
    if function is not shapley.sampled:
        assert call(function, something)[2] > 0


def test_coalitions_that_cancel() -> None:
    x = oracle.normal(2, 300)
    x = torch.stack([x[0], -x[0], x[1], x[0]])
    values = values_of(x)
    assert values[0b0011] == 0
    assert values[0b1010] == 0
    close(shapley.exact(x), shapley_of(values))
    close(shapley.banzhaf(x), banzhaf_of(values))
    members = torch.tensor([[s >> i & 1 for i in range(4)] for s in range(16)]).bool()
    close(shapley.value(members, x), values)


@pytest.mark.parametrize("angle", [0.5e-6, 0.9e-6, 1.1e-6, 2e-6])
def test_what_counts_as_zero(angle: float) -> None:
    """Two unit vectors of sum 2 sin(angle), beside a third: u_S counts from ‖u_S‖ = 1e-6 · 2 on."""
    x = torch.tensor(
        [
            [math.cos(angle), math.sin(angle), 0.0],
            [-math.cos(angle), math.sin(angle), 0.0],
            [0.0, 1.0, 1.0],
        ],
        dtype=torch.float64,
    )
    pair = shapley.value(torch.tensor([True, True, False]), x)
    assert (pair > 0.7) == (angle > 1e-6)
    assert (pair == 0) == (angle < 1e-6)
    close(shapley.exact(x), shapley_of(values_of(x)), atol=1e-3)


def test_what_counts_as_zero_wherever_the_agents_stand() -> None:
    """Pairs that nearly cancel, among low, middle and top agents of the enumeration and between them."""
    x = oracle.normal(19, 30, dtype=torch.float64)
    x /= x.norm(dim=1, keepdim=True)
    rest = x[[0, 3, 4, 6, 7, 8]].sum(0)
    for a, b in ((2, 5), (9, 12), (16, 18), (1, 17), (10, 15)):
        x[b] = -x[a] + 8e-7 * rest / rest.norm()
    gram, weights = cgsv_ext.gram(x), torch.ones(19, dtype=torch.float64)
    values = values_of_gram(gram, weights)
    assert values[1 << 16 | 1 << 18] == 0
    close(shapley.exact(gram=gram), shapley_of(values))


def test_one_agent_is_worth_everything(device: torch.device) -> None:
    x = oracle.normal(1, 30).to(device)
    for weight in (1.0, -2.0, 1e-30):
        weights = torch.tensor([weight], device=device)
        for function in (shapley.exact, shapley.banzhaf, shapley.leave_one_out):
            close(function(x, weights), [1.0])
        close(shapley.sampled(x, weights).values, [1.0])
        close(shapley.approximate(x, weights), [math.copysign(1, weight)], atol=1e-6)
    for nothing in (x * 0, x * math.nan):
        assert shapley.exact(nothing).tolist() == [0.0]


@pytest.mark.parametrize("dtype", DTYPES[:3], ids=oracle.name)
def test_huge_and_tiny_updates(dtype: torch.dtype) -> None:
    x = oracle.normal(5, 200, dtype=torch.float64)
    loud = (x * torch.tensor([1e30, 1e-30, 1.0, 1e15, 1e-15], dtype=torch.float64)[:, None]).to(dtype)
    close(shapley.exact(loud), shapley_of(values_of(loud)))


def test_all_that_can_be_lost_is_lost() -> None:
    assert shapley.exact(gram=torch.zeros(3, 3)).tolist() == [0.0] * 3
    assert shapley.exact(gram=torch.full((3, 3), math.nan)).tolist() == [0.0] * 3
    x = oracle.normal(3, 10)
    assert shapley.exact(x, torch.zeros(3)).tolist() == [0.0] * 3
    assert shapley.exact(x, torch.full((3,), math.nan)).tolist() == [0.0] * 3


# Inputs


@functions
@pytest.mark.parametrize("dtype", DTYPES, ids=oracle.name)
def test_the_gram_matrix_says_it_all(function: Callable[..., Any], dtype: torch.dtype) -> None:
    x = oracle.normal(7, 100, dtype=dtype)
    x[3, 5] = math.inf
    weights = torch.linspace(0.1, 1, 7)
    expected = call(function, x, weights)
    got = call(function, weights=weights, gram=cgsv_ext.gram(x))
    if function is shapley.approximate:
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
    else:
        assert_same_bits(got, expected)
    rows = list(x.clone())
    assert_same_bits(call(function, rows, weights), expected)


@functions
def test_inner_products_do_for_a_gram_matrix(function: Callable[..., Any]) -> None:
    x = oracle.normal(7, 100, dtype=torch.float64) * torch.tensor([1e-30, 1, 3, 1e20, 5, 1, 1])[:, None]
    skew = torch.triu(oracle.normal(7, 7, dtype=torch.float64), 1)
    gram = cgsv_ext.gram(x)
    expected = call(function, gram=gram)
    for given in (x @ x.T, gram + skew - skew.T):
        torch.testing.assert_close(call(function, gram=given), expected, rtol=0, atol=1e-9)


@functions
def test_results_are_detached_float64_where_the_inputs_are(
    device: torch.device, function: Callable[..., Any]
) -> None:
    if function is shapley.value:
        members = torch.ones(3, dtype=torch.bool, device=device)
        function = functools.partial(shapley.value, members)
    x = oracle.normal(3, 10).to(device).requires_grad_()
    weights = torch.tensor([1 - 2j, 3 - 4j, 1j], device=device).conj().imag
    for result in (function(x), function(x, weights), function(gram=cgsv_ext.gram(x).to(torch.float32))):
        tensors = result[:2] if isinstance(result, tuple) else (result,)
        for t in tensors:
            assert (t.dtype, t.device, t.requires_grad) == (torch.float64, x.device, False)


@pytest.mark.cpu_kernels
def test_any_number_of_threads() -> None:
    gram = cgsv_ext.gram(oracle.normal(19, 100))
    members = torch.rand(5000, 19, generator=oracle.generator(0)) < 0.5
    results = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        estimate = shapley.sampled(gram=gram, permutations=999, generator=oracle.generator(0))
        exact = shapley.exact(gram=gram), shapley.banzhaf(gram=gram)
        results.append((*exact, estimate.values, estimate.standard_errors, shapley.value(members, gram=gram)))
    assert_same_bits(results[1], results[0])
    assert_same_bits(results[2], results[0])


# Values of coalitions


@weightings
def test_value_is_that_of_any_coalition(device: torch.device, weighting: str) -> None:
    n = 7
    x = oracle.normal(n, 50).to(device)
    weights = WEIGHTS[weighting](n)
    expected = values_of(x, weights)
    members = torch.tensor([[s >> i & 1 for i in range(n)] for s in range(2**n)], device=device).bool()
    given = x, tensor_of(weights, device)
    got = shapley.value(members, *given)
    close(got, expected)
    assert got[0] == 0
    assert_same_bits(shapley.value(members.view(2, 2, 32, n), *given), got.view(2, 2, 32))
    assert_same_bits(shapley.value(members[5], *given), got[5])
    assert shapley.value(members[:0], *given).shape == (0,)


def test_leave_one_out() -> None:
    x = oracle.normal(9, 50)
    values = values_of(x)
    close(shapley.leave_one_out(x), [values[-1] - values[2**9 - 1 - 2**i] for i in range(9)])


def test_approximate_is_the_cosines_of_the_reward_step(device: torch.device) -> None:
    x, weights = oracle.normal(6, 500).to(device), torch.rand(6, generator=oracle.generator(0)).to(device)
    cosines = cgsv_ext.aggregate(x, weights, gamma=0.5).cosines
    torch.testing.assert_close(shapley.approximate(x, weights), cosines, rtol=0, atol=1e-6)
    torch.testing.assert_close(
        shapley.approximate(gram=cgsv_ext.gram(x), weights=weights), cosines, rtol=0, atol=1e-6
    )
    step = cgsv_ext.reward_step(x, torch.zeros(6, device=device))
    torch.testing.assert_close(shapley.approximate(x), step.cosines, rtol=0, atol=1e-6)


# Sampling


@pytest.mark.parametrize("antithetic", [False, True], ids=["", "antithetic"])
@pytest.mark.parametrize("stratified", [False, True], ids=["", "stratified"])
def test_an_estimate_is_the_mean_of_the_marginals_along_its_permutations(
    antithetic: bool, stratified: bool
) -> None:
    n, count = 5, 33
    x, weights = oracle.normal(n, 40), [1.0, -0.4, 0.5, 2.0, 0.3]
    values = values_of(x, weights)
    size = (n if stratified else 1) * (2 if antithetic else 1)
    groups = math.ceil(count / size)
    drawn = shapley._draw(groups, n, antithetic, stratified, oracle.generator(3))
    assert drawn.shape == (groups, size, n)
    averages = np.zeros((groups, n))
    for g, p in itertools.product(range(groups), range(size)):
        members = 0
        for i in drawn[g, p]:
            averages[g, i] += (values[members | 1 << i] - values[members]) / size
            members |= 1 << i
    estimate = shapley.sampled(
        x,
        torch.tensor(weights),
        permutations=count,
        antithetic=antithetic,
        stratified=stratified,
        generator=oracle.generator(3),
    )
    assert estimate.permutations == groups * size
    close(estimate.values, averages.mean(0), atol=1e-7)
    close(estimate.standard_errors, averages.std(0, ddof=1) / math.sqrt(groups), atol=1e-7)


def test_reverses_and_rotations() -> None:
    n = 6
    plain = shapley._draw(4, n, False, False, oracle.generator(0))
    assert plain.shape == (4, 1, n)
    assert (np.sort(plain, axis=2) == np.arange(n)).all()
    pairs = shapley._draw(4, n, True, False, oracle.generator(0))
    assert (pairs[:, 0] == plain[:, 0]).all()
    assert (pairs[:, 1] == plain[:, 0, ::-1]).all()
    for antithetic in (False, True):
        turns = shapley._draw(4, n, antithetic, True, oracle.generator(0))
        times = 1 + antithetic
        assert turns.shape == (4, n * times, n)
        for place in range(n):  # each agent stands in each place equally often
            assert (np.sort(turns[:, :, place]) == np.repeat(np.arange(n), times)).all()


def test_permutations_are_drawn_uniformly() -> None:
    drawn = shapley._draw(24_000, 4, False, False, oracle.generator(0))[:, 0]
    _, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(counts) == 24
    assert ((counts - 1000) ** 2 / 1000).sum() < 50  # χ² of 23 degrees of freedom, p = 1e-3


@pytest.mark.parametrize("options", [{}, {"antithetic": True}, {"stratified": True}], ids=str)
@pytest.mark.parametrize("n", [3, 10])
def test_estimates_approach_the_exact_values(n: int, options: dict[str, bool]) -> None:
    gram = cgsv_ext.gram(oracle.updates_of("alike", n, 100, torch.float32, 0))
    exact = shapley.exact(gram=gram)
    estimate = shapley.sampled(gram=gram, permutations=60_000, generator=oracle.generator(0), **options)
    assert ((estimate.values - exact).abs() <= 4.5 * estimate.standard_errors + 1e-12).all()
    assert (estimate.standard_errors < 2e-3).all()


def test_every_sample_sums_to_the_value_of_everyone() -> None:
    x = oracle.normal(8, 50)
    for permutations in (1, 7, 100):
        estimate = shapley.sampled(x, permutations=permutations)
        assert math.isclose(estimate.values.sum().item(), 1, abs_tol=1e-12)
    assert shapley.sampled(x, permutations=1).standard_errors.isnan().all()


def test_antithetic_and_stratified_sampling_scatter_less() -> None:
    gram = cgsv_ext.gram(oracle.normal(10, 500))
    exact = shapley.exact(gram=gram)

    def error(**options: bool) -> float:
        estimates = [
            shapley.sampled(gram=gram, permutations=40, generator=oracle.generator(s), **options).values
            for s in range(100)
        ]
        return (torch.stack(estimates) - exact).square().mean().item()

    plain = error()
    assert error(antithetic=True) < 0.8 * plain
    assert error(stratified=True) < 0.8 * plain


def test_the_number_of_permutations_is_that_of_maleki() -> None:
    gram = torch.eye(3)
    for epsilon, delta, count in ((0.1, 0.1, 150), (0.05, 0.1, 600), (0.1, 0.01, 265), (1.0, 0.5, 1)):
        assert shapley.sampled(gram=gram, epsilon=epsilon, delta=delta).permutations == count
    assert shapley.sampled(gram=gram, permutations=5, epsilon=1e-9).permutations == 5
    assert shapley.sampled(gram=gram, permutations=7, stratified=True).permutations == 9
    assert shapley.sampled(gram=gram, permutations=7, antithetic=True).permutations == 8
    assert shapley.sampled(gram=gram, permutations=7, antithetic=True, stratified=True).permutations == 12


def test_the_generator_decides() -> None:
    x = oracle.normal(9, 50)
    first = shapley.sampled(x, generator=oracle.generator(5))
    assert_same_bits(shapley.sampled(x, generator=oracle.generator(5))[:2], first[:2])
    assert not torch.equal(shapley.sampled(x, generator=oracle.generator(6)).values, first.values)
    g = oracle.generator(5)
    shapley.sampled(x, generator=g)
    assert not torch.equal(shapley.sampled(x, generator=g).values, first.values)
    torch.manual_seed(5)
    assert_same_bits(shapley.sampled(x)[:2], first[:2])


def test_large_samples_are_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    gram = cgsv_ext.gram(oracle.normal(4, 50))
    sizes = []
    draw = shapley._draw

    def spy(groups: int, *rest: Any) -> Any:
        sizes.append(groups)
        return draw(groups, *rest)

    monkeypatch.setattr(shapley, "_draw", spy)
    count = (1 << 18) + 1000
    whole = shapley.sampled(gram=gram, permutations=count, generator=oracle.generator(0))
    assert sizes == [1 << 18, 1000]
    drawn = draw(count, 4, False, False, oracle.generator(0))
    mean, squares = shapley._core.sampled(gram.numpy(), np.full(4, 0.25), drawn)
    close(whole.values, mean)
    close(whole.standard_errors, np.sqrt(squares / (count - 1) / count))


@pytest.mark.parametrize("kind", ["normal", "alike"])
@pytest.mark.parametrize("n", [5, 10, 20])
def test_coverage_of_epsilon_and_delta(
    n: int, kind: str, record_property: Callable[[str, object], None]
) -> None:
    """200 repetitions of the paper's (0.1, 0.1)-approximation: how many are within ε, agent by agent."""
    gram = cgsv_ext.gram(oracle.updates_of(kind, n, 1024, torch.float32, n))
    exact = shapley.exact(gram=gram)
    within = torch.stack(
        [
            (shapley.sampled(gram=gram, generator=oracle.generator(s)).values - exact).abs() <= 0.1
            for s in range(200)
        ]
    )
    coverage = within.double().mean(0)
    record_property("least coverage", coverage.min().item())
    record_property("all agents at once", within.all(1).double().mean().item())
    assert coverage.min() >= 0.9


# Theorem 1


@pytest.mark.parametrize("n", [3, 6, 9])
@pytest.mark.parametrize("kind", ["normal", "alike"])
@pytest.mark.parametrize("gamma", [0.1, 1.0, 3.0])
def test_theorem_1(n: int, kind: str, gamma: float) -> None:
    """φ_i − L_i ψ_i ≤ I Γ², L_i the mean of ‖u_i‖ / ‖u_{S ∪ {i}}‖, I the least that the assumption allows."""
    x = f64(oracle.updates_of(kind, n, 300, torch.float64, n))
    u = gamma * x / np.linalg.norm(x, axis=1, keepdims=True)
    everyone = u.sum(0)
    phi = shapley_of(values_of(torch.from_numpy(u)))
    psi = u @ everyone / gamma / np.linalg.norm(everyone)
    inverse = np.array(
        [
            gamma / np.linalg.norm(u[[i for i in range(n) if s >> i & 1]].sum(0)) if s else 0
            for s in range(2**n)
        ]
    )
    s = np.arange(2**n)
    factor = []
    for i in range(n):
        joined = s[s >> i & 1 == 1]
        sizes = np.array([int(v).bit_count() for v in joined])
        factor.append(sum(inverse[joined] / (n * np.array([math.comb(n - 1, k - 1) for k in sizes]))))
    least = np.abs(u @ everyone).min()
    assert (phi - np.array(factor) * psi <= gamma**2 / least + 1e-12).all()


# Errors

BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({}, ValueError, "exactly one of updates and gram, got neither"),
    ({"updates": torch.ones(3, 4), "gram": torch.eye(3)}, ValueError, "exactly one of .*, got both"),
    ({"gram": [[1.0]]}, TypeError, "gram to be a tensor, got list"),
    ({"gram": torch.ones(3, 4)}, ValueError, r"gram of shape \(N, N\), N ≥ 1, got \(3, 4\)"),
    ({"gram": torch.ones(3)}, ValueError, r"gram of shape .*, got \(3,\)"),
    ({"gram": torch.ones(())}, ValueError, r"gram of shape .*, got \(\)"),
    ({"gram": torch.ones(0, 0)}, ValueError, r"gram of shape .*, got \(0, 0\)"),
    ({"gram": torch.eye(3).long()}, ValueError, "gram of float64, .*, got int64"),
    ({"gram": torch.eye(3).to_sparse()}, ValueError, "gram to be dense, got .*"),
    ({"gram": torch.eye(3, device="meta")}, ValueError, "gram with data, got meta"),
    ({"updates": torch.ones(3, 4, device="meta")}, ValueError, "updates with data, got meta"),
    ({"updates": torch.ones(4)}, ValueError, r"updates of shape \(N, D\), .*, got \(4,\)"),
    ({"updates": torch.ones(())}, ValueError, r"updates of shape \(N, D\), .*, got \(\)"),
    ({"updates": torch.ones(3, 0)}, ValueError, r"updates of shape \(N, D\), .*, got \(3, 0\)"),
    ({"updates": []}, ValueError, "updates of at least one agent, got an empty sequence"),
    ({"updates": torch.ones(3, 4).long()}, ValueError, "updates of float64, .*, got int64"),
    ({"updates": "abc"}, TypeError, r"updates\[0\] to be a tensor, got str"),
    ({"updates": torch.ones(3, 4), "weights": [1.0] * 3}, TypeError, "weights to be a tensor, got list"),
    ({"updates": torch.ones(3, 4), "weights": torch.ones(4)}, ValueError, r"weights of .*, got \(4,\)"),
    ({"gram": torch.eye(3), "weights": torch.ones(3, 1)}, ValueError, r"weights of .*, got \(3, 1\)"),
    ({"gram": torch.eye(3), "weights": torch.ones(3).int()}, ValueError, "weights of .*, got int32"),
    (
        {"gram": torch.eye(3), "weights": torch.ones(3, device="meta")},
        ValueError,
        "weights on cpu, got one on meta",
    ),
]
SAMPLED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"epsilon": 0.0}, ValueError, "epsilon to be finite and > 0, got 0"),
    ({"epsilon": math.nan}, ValueError, "epsilon to be finite and > 0, got nan"),
    ({"epsilon": math.inf}, ValueError, "epsilon to be finite and > 0, got inf"),
    ({"epsilon": 1e-200}, ValueError, "an epsilon that .*, got 1e-200"),
    ({"epsilon": "0.1"}, TypeError, "epsilon to be a number, got str"),
    ({"delta": 0.0}, ValueError, r"delta in \(0, 1\), got 0"),
    ({"delta": 1.0}, ValueError, r"delta in \(0, 1\), got 1"),
    ({"delta": math.nan}, ValueError, r"delta in \(0, 1\), got nan"),
    ({"permutations": 0}, ValueError, "permutations ≥ 1, got 0"),
    ({"permutations": 1.5}, TypeError, "permutations to be an int, got float"),
    ({"permutations": True}, TypeError, "permutations to be an int, got bool"),
    ({"generator": 3}, TypeError, "a torch.Generator, got int"),
]


@functions
@pytest.mark.parametrize("case", BAD, ids=lambda case: case[2])
def test_bad_input(function: Callable[..., Any], case: tuple[dict[str, Any], type[Exception], str]) -> None:
    arguments, error, text = case
    first = (torch.ones(3, dtype=torch.bool),) if function is shapley.value else ()
    with pytest.raises(error, match=rf"^{function.__name__}\(\): expected {text}$"):
        function(*first, **arguments)


@pytest.mark.parametrize("case", SAMPLED, ids=lambda case: case[2])
def test_bad_options_of_sampled(case: tuple[dict[str, Any], type[Exception], str]) -> None:
    arguments, error, text = case
    with pytest.raises(error, match=rf"^sampled\(\): expected {text}$"):
        shapley.sampled(gram=torch.eye(3), **arguments)


def test_bad_coalitions() -> None:
    for members, error, text in (
        ([True] * 3, TypeError, "coalitions to be a tensor, got list"),
        (torch.ones(3), ValueError, "coalitions of bool, got float32"),
        (torch.ones(3, dtype=torch.int64), ValueError, "coalitions of bool, got int64"),
        (torch.ones(4).bool(), ValueError, r"coalitions of shape \(\.\.\., 3\), .*, got \(4,\)"),
        (torch.ones(()).bool(), ValueError, r"coalitions of shape \(\.\.\., 3\), .*, got \(\)"),
        (torch.ones(3, 2).bool(), ValueError, r"coalitions of shape \(\.\.\., 3\), .*, got \(3, 2\)"),
    ):
        with pytest.raises(error, match=rf"^value\(\): expected {text}$"):
            shapley.value(members, gram=torch.eye(3))


@pytest.mark.parametrize("function", [shapley.exact, shapley.banzhaf], ids=lambda f: f.__name__)
def test_too_many_agents_are_refused_with_the_time_they_would_take(function: Callable[..., Any]) -> None:
    time_of = r"2\^{} coalitions would take some [\d.e+]+ (seconds|minutes|hours|days|years)"
    for n in (33, 40, 200):
        text = rf"at most 32 agents, got {n}, whose {time_of.format(n)}; sampled\(\) estimates .*"
        with pytest.raises(ValueError, match=rf"^{function.__name__}\(\): expected {text}"):
            function(gram=torch.eye(n))
        with pytest.raises(ValueError, match=rf"got {n}"):
            function(torch.ones(n, 3))
    estimate = shapley.sampled(gram=torch.eye(200, dtype=torch.float64), permutations=20)
    assert math.isclose(estimate.values.sum().item(), 1, abs_tol=1e-12)


# Long enumerations


def test_progress_is_told_and_may_stop() -> None:
    seen: list[tuple[int, int]] = []
    shapley.exact(gram=torch.eye(12), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2**12, 2**12)]
    seen.clear()
    phi = shapley.exact(gram=torch.eye(26), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(k * 2**24, 2**26) for k in range(1, 5)]
    close(phi, [1 / 26] * 26)

    def stop(done: int, total: int) -> None:
        raise RuntimeError("enough")

    start = time.perf_counter()
    with pytest.raises(RuntimeError, match="enough"):
        shapley.exact(gram=torch.eye(32), progress=stop)
    assert time.perf_counter() - start < 5
    with pytest.raises(TypeError, match=r"^exact\(\): expected progress to be callable, got int$"):
        shapley.exact(gram=torch.eye(3), progress=3)


def test_a_signal_stops() -> None:
    """As Ctrl-C does; `setdefault` is no Python code, which would look for signals itself."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    seen: dict[int, int] = {}
    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.005)
        with pytest.raises(KeyboardInterrupt):
            shapley.exact(gram=torch.eye(32), progress=seen.setdefault)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(seen) < 256
    close(shapley.exact(gram=torch.eye(2)), [0.5, 0.5])


@pytest.mark.slow
def test_thirty_agents() -> None:
    """Against what symmetry and the sum say: 15 twins of one direction, 15 of another."""
    x = oracle.normal(2, 100).repeat_interleave(15, dim=0)
    phi = shapley.exact(x)
    assert math.isclose(phi.sum().item(), 1, abs_tol=1e-12)
    for twins in (phi[:15], phi[15:]):
        assert twins.max() - twins.min() < 1e-12
