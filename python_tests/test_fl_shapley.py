"""Exact Shapley values beside ψ in real rounds, and how far apart the two are said to be."""

import csv
import json
import math
from dataclasses import replace

import pytest
import torch

import cgsv_ext
from cgsv_ext import cli, reference
from cgsv_ext.fl import FIGURE_2, MECHANISMS, demo, run
from cgsv_ext.fl.metrics import apart, kendall, pearson

SHORT = replace(FIGURE_2, rounds=3, steps=2)


def value_of(members, parts):
    """cos(u_S, u_N) from the vectors themselves."""
    u, whole = parts[list(members)].sum(0), parts.sum(0)
    return torch.dot(u, whole).item() / (u.norm() * whole.norm()).item() if members else 0.0


def shapley_values(parts):
    """Equation (2) as a sum over coalitions, weighed by how many permutations they come from."""
    n = len(parts)
    values = []
    for i in range(n):
        total = 0.0
        for mask in range(2**n):
            members = [j for j in range(n) if mask >> j & 1]
            if i not in members:
                share = (
                    math.factorial(len(members)) * math.factorial(n - len(members) - 1) / math.factorial(n)
                )
                total += share * (value_of([*members, i], parts) - value_of(members, parts))
        values.append(total)
    return torch.tensor(values, dtype=torch.float64)


def seen(name, monkeypatch):
    """The updates and outcomes of a run's rounds, and the run."""
    rounds = []

    class Spy(MECHANISMS[name]):
        def step(self, updates):
            rounds.append((updates.clone(), super().step(updates)))
            return rounds[-1][1]

    monkeypatch.setitem(MECHANISMS, name, Spy)
    return rounds, run(SHORT, name, 1, log_shapley=True)


@pytest.mark.parametrize("name", ["CGSV", "FedAvg", "FedAvgNormalised"])
def test_values_are_those_of_the_vectors_that_are_aggregated(name, monkeypatch):
    """CGSV weighs by data first and by importance then; FedAvg weighs raw updates."""
    rounds, history = seen(name, monkeypatch)
    for t, (updates, outcome) in enumerate(rounds):
        parts = updates.double()
        if name != "FedAvg":
            parts = SHORT.gamma * parts / parts.norm(dim=1, keepdim=True)
        parts = outcome.weights.double()[:, None] * parts
        torch.testing.assert_close(parts.sum(0), outcome.aggregate.double(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(history.shapley[t], shapley_values(parts), rtol=0, atol=1e-6)
        norms = cgsv_ext.norms(updates) if name == "FedAvg" else 1.0
        expected = reference.aggregate(updates, outcome.weights.double() * norms, gamma=1.0)[1]
        torch.testing.assert_close(history.cosines[t], expected, rtol=0, atol=1e-6)


def test_logging_changes_nothing_else():
    plain, logged = run(SHORT, "CGSV", 1), run(SHORT, "CGSV", 1, log_shapley=True)
    assert torch.equal(plain.parameters, logged.parameters)
    assert torch.equal(plain.importance, logged.importance)
    assert plain.shapley.isnan().all()
    assert plain.cosines.isnan().all()
    assert "shapley" not in plain.seconds
    assert logged.seconds["shapley"] > 0


def test_every_round_is_logged_where_there_is_an_aggregate():
    for name in ("CGSV", "FedAvg"):
        history = run(SHORT, name, 1, log_shapley=True)
        torch.testing.assert_close(history.shapley.sum(1), torch.ones(3, dtype=torch.float64))
        assert (history.cosines.abs() <= 1).all()
    assert run(SHORT, "standalone", 1, log_shapley=True).shapley.isnan().all()


def test_kendall_counts_pairs():
    """One of six pairs in the other order: (5 − 1) / 6."""
    assert kendall([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(4 / 6)
    assert math.isnan(kendall([1, 1, 1], [1, 2, 3]))


def test_pearson_ignores_scale_and_apart_the_whole():
    assert pearson([1, 2, 4], [3, 5, 9]) == pytest.approx(1)
    assert math.isnan(pearson([1, 1], [1, 2]))
    assert apart([1, 2, 1], [2, 4, 2]) == 0
    assert apart([3, 1], [1, 1]) == pytest.approx(1 / 2)
    assert math.isnan(apart([1, -1], [1, 1]))


def test_report_compares(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "DEMO", (SHORT,))
    assert cli.main(["demo", "--out", str(tmp_path), "--seeds", "2", "--log-shapley"]) == 0
    title = "Label noise, N = 5, rounds=3, steps=2: ψ against exact Shapley values φ"
    assert title in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert title in (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert (tmp_path / f"{SHORT.name}_shapley.png").exists()
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert results["command"] == "cgsv demo --seeds 2 --log-shapley"
    mechanisms = results["experiments"][SHORT.name]["mechanisms"]
    against = mechanisms["CGSV"]["psi_against_shapley"]
    assert set(against) == {"kendall", "pearson", "l1"}
    assert torch.tensor(against["kendall"]["by_round"]).shape == (2, 3)
    assert len(against["pearson"]["of_means"]) == 2
    assert mechanisms["standalone"]["psi_against_shapley"] is None
    with (tmp_path / "rounds.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        assert (row["shapley"] == "") == (row["mechanism"] == "standalone") == (row["cosines"] == "")
