"""What approximations of the Shapley value are worth: coverage of (ε, δ), and Theorem 1.

`python bench/valuation.py` prints the tables of docs/valuation.md and writes them to
bench/results/valuation.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from report import table
from torch import Tensor

import cgsv_ext
from cgsv_ext import shapley

REPETITIONS = 200


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def independent(n: int) -> Tensor:
    return torch.randn(n, 1024, generator=generator(n))


def alike(n: int) -> Tensor:
    x = independent(n)
    return x[:1] + 0.3 * x


def opposed(n: int) -> Tensor:
    x = independent(n)
    return x[:1] * torch.tensor([1.0, -1.0]).repeat(n)[:n, None] + 0.2 * x


def trained(n: int) -> Tensor:
    """First updates of logistic regression on handwritten digits; agent i has i/n of its labels wrong."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=generator(0))[: len(digits.target) // n * n]
    x = (torch.tensor(digits.data, dtype=torch.float32) / 16)[order].view(n, -1, 64)
    y = torch.tensor(digits.target)[order].view(n, -1)
    rows = []
    for i in range(n):
        wrong = torch.rand(y.shape[1], generator=generator(i)) < i / n
        noise = torch.randint(0, 10, (y.shape[1],), generator=generator(i))
        w = torch.zeros(64, 10, requires_grad=True)
        for _ in range(20):
            loss = torch.nn.functional.cross_entropy(x[i] @ w, torch.where(wrong, noise, y[i]))
            (gradient,) = torch.autograd.grad(loss, w)
            w = (w - 0.5 * gradient).detach().requires_grad_()
        rows.append(w.detach().flatten())
    return torch.stack(rows)


UPDATES: list[Callable[[int], Tensor]] = [independent, alike, opposed, trained]


def coverage(make: Callable[[int], Tensor], n: int) -> list[str]:
    gram = cgsv_ext.gram(make(n))
    exact = shapley.exact(gram=gram)
    runs = [shapley.sampled(gram=gram, generator=generator(s)) for s in range(REPETITIONS)]
    errors = torch.stack([(run.values - exact).abs() for run in runs])
    within = errors <= 0.1
    honest = errors <= 2 * torch.stack([run.standard_errors for run in runs])
    return [
        make.__name__,
        str(n),
        f"{within.double().mean(0).min():.3f}",
        f"{within.all(1).double().mean():.3f}",
        f"{errors.max():.3f}",
        f"{honest.double().mean():.3f}",
    ]


def theorem_1(make: Callable[[int], Tensor], n: int) -> list[str]:
    """With Γ = 1 and p = 1, as in the theorem's own terms: no other Γ changes any of these numbers."""
    gram = cgsv_ext.gram(make(n))
    phi, psi = shapley.exact(gram=gram), shapley.approximate(gram=gram)
    s = torch.arange(2**n)
    members = (s[:, None] >> torch.arange(n) & 1).double()
    size = members.sum(1).long()
    length = ((members @ gram) * members).sum(1).clamp(min=1e-300).sqrt()
    share = torch.tensor([0.0] + [1 / (n * math.comb(n - 1, k)) for k in range(n)], dtype=torch.float64)
    factor = members.T @ (share[size] / length)
    rest = phi - factor * psi
    bound = 1 / gram.sum(0).abs().min()
    apart = (psi / psi.sum() - phi / phi.sum()).abs().sum()
    return [
        make.__name__,
        str(n),
        f"{phi.min():.3f} … {phi.max():.3f}",
        f"{factor.min():.2f} … {factor.max():.2f}",
        f"{rest.min():.3f} … {rest.max():.3f}",
        f"{bound:.3g}",
        f"{apart:.2g}",
        f"{torch.corrcoef(torch.stack([phi, psi]))[0, 1]:.4f}",
    ]


def main() -> None:
    head = ["updates", "N", "least of an agent", "all agents at once", "largest error", "within 2 s.e."]
    rows = [coverage(make, n) for make in UPDATES for n in (5, 10, 20)]
    text = f"## Coverage of (0.1, 0.1)\n\n{table(head, rows)}\n\n"
    head = ["updates", "N", "φ", "L", "φ − L ψ", "I Γ²", "ℓ₁ of ψ and φ, normalised", "Pearson"]
    rows = [theorem_1(make, n) for make in UPDATES for n in (5, 10)]
    text += f"## Theorem 1\n\n{table(head, rows)}\n"
    print(text)
    results = Path(__file__).parent / "results/valuation.md"
    results.write_text(f"# Printed by `python bench/valuation.py`\n\n{text}")


if __name__ == "__main__":
    main()
