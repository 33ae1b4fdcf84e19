"""``cgsv figure 1`` on tiny sizes: its errors, its files, its text."""

import csv
import math

import pytest
import torch

from cgsv_ext import cli
from cgsv_ext.fl.figures import figure_1

COLUMNS = [
    "panel",
    "agents",
    "dimension",
    "trial",
    "permutations",
    "psi_l1",
    "sampling_l1",
    "equal_l1",
    "psi_l2",
    "sampling_l2",
    "equal_l2",
    "psi_seconds",
    "gram_seconds",
    "sampling_seconds",
    "exact_seconds",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("figure") / "new" / "folder"
    sizes = ["--agents", "5", "3", "--dimensions", "64", "32"]
    assert cli.main(["figure", "1", "--out", str(out), "--trials", "2", "--seed", "7", *sizes]) == 0
    return out


def rows(out):
    with (out / "trials.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_errors_compare_shares_of_the_whole():
    """(3, 1) and (2, 2) share as (3/4, 1/4) and (1/2, 1/2): 1/2 apart in ℓ1, √2/4 in ℓ2."""
    l1, l2 = figure_1.error(torch.tensor([3.0, 1.0]), torch.tensor([2.0, 2.0]))
    assert l1 == pytest.approx(1 / 2)
    assert l2 == pytest.approx(math.sqrt(2) / 4)
    assert figure_1.error(torch.tensor([0.5, 1.5]), torch.tensor([1.0, 3.0])) == (0.0, 0.0)


def test_a_trial_compares_with_the_exact_values():
    """Two agents of equal weight are worth the same in any case, by ψ, too."""
    trial = figure_1.measure("agents", 2, 16, trial=1, seed=0)
    assert trial.psi_l1 == pytest.approx(0, abs=1e-6)
    assert trial.equal_l1 == pytest.approx(0, abs=1e-12)
    assert trial.sampling_l1 > 0
    assert trial.permutations == 150


def test_trials_are_independent_and_repeatable():
    def errors(*arguments):
        return figure_1.measure(*arguments)[5:11]

    first = errors("agents", 4, 32, 1, 7)
    assert first == errors("agents", 4, 32, 1, 7)
    others = [("agents", 4, 32, 2, 7), ("agents", 4, 32, 1, 8), ("dimension", 4, 32, 1, 7)]
    assert all(errors(*other) != first for other in others)


def test_csv_holds_every_trial(finished):
    found = rows(finished)
    assert list(found[0]) == COLUMNS
    sizes = [(r["panel"], int(r["agents"]), int(r["dimension"]), int(r["trial"])) for r in found]
    expected = [("agents", 3, 1024), ("agents", 5, 1024), ("dimension", 10, 32), ("dimension", 10, 64)]
    assert sizes == [(*size, k) for size in expected for k in (1, 2)]
    assert all(float(r[column]) > 0 for r in found for column in COLUMNS[11:])


def test_a_point_charges_each_method_for_its_own_gram_pass():
    trials = [
        figure_1.Trial("agents", 5, 8, k, 150, *[0.0] * 6, psi, gram, sampling, exact)
        for k, psi, gram, sampling, exact in [(1, 1.0, 2.0, 4.0, 8.0), (2, 3.0, 4.0, 8.0, 16.0)]
    ]
    point = figure_1.Point(trials)
    assert [point.seconds(method) for method in ("psi", "sampling", "exact")] == [2.0, 9.0, 15.0]


def test_picture_and_text_are_written(finished, capsys):
    assert {path.name for path in finished.iterdir()} == {"trials.csv", "figure-1.png", "summary.md"}
    assert (finished / "figure-1.png").read_bytes().startswith(b"\x89PNG")
    text = (finished / "summary.md").read_text(encoding="utf-8")
    assert "`cgsv figure 1 --trials 2 --seed 7 --agents 5 3 --dimensions 64 32`" in text
    assert "At N = 5, 150 sampled permutations exceed the 120 that exist" in text
    assert (
        "Up to N = 10 sampling values more coalitions (150 · 10 = 1500) than there are (2^10 = 1024)" in text
    )


def test_text_is_printed(tmp_path, capsys):
    cli.main(["figure", "1", "--out", str(tmp_path), "--trials", "1", "--agents", "3", "--dimensions", "8"])
    assert capsys.readouterr().out == (tmp_path / "summary.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("arguments", [["8"], [], ["1", "--agents", "33"], ["1", "--trials", "0"]])
def test_wrong_arguments_explain_themselves(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["figure", *arguments])
    assert stop.value.code == 2
    assert "usage: cgsv figure" in capsys.readouterr().err
