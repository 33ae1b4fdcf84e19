"""Figures 2 to 7 from runs: which they ask for, what they draw, what their CSV holds."""

import csv
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from cgsv_ext import fl
from cgsv_ext.fl import figures
from cgsv_ext.fl.data import DATASETS
from cgsv_ext.fl.figures import FIGURES
from cgsv_ext.fl.figures.curve import choose, curve
from cgsv_ext.fl.figures.traits import traits
from cgsv_ext.fl.presets import preset

SEEDS = (1, 2)
TINY = {"rounds": 3, "steps": 2}


@pytest.fixture(scope="module")
def runs():
    """Every run that any figure asks for, tiny, in one pile."""
    specs = {spec for module in FIGURES.values() for spec in module.specs(seeds=SEEDS, **TINY)}
    return [fl.run(s.experiment, s.mechanism, s.seed) for s in sorted(specs, key=str)]


def of(runs, agents, partition, beta=1.0):
    """Runs in the order of their seeds, found without the code under test."""
    found = [
        r
        for r in runs
        if (r.experiment.agents, r.experiment.partition, r.experiment.beta) == (agents, partition, beta)
    ]
    return sorted(found, key=lambda r: r.seed)


@pytest.mark.parametrize(
    ("number", "asked"),
    [
        (2, [("NOI", 5, 1.0)]),
        (3, [("UNI", 10, 1.0), ("POW", 10, 1.0), ("CLA", 10, 1.0)]),
        (4, [("UNI", 3, 1.0), ("POW", 3, 1.0), ("CLA", 3, 1.0)]),
        (5, [("UNI", 3, 1.0), ("POW", 3, 1.0), ("CLA", 3, 1.0)]),
        (6, [("UNI", 3, 1.0), ("POW", 3, 1.0), ("CLA", 3, 1.0)]),
        (7, [("CLA", 10, beta) for beta in (1.0, 1.2, 1.5, 2.0, 10.0, 100.0)]),
    ],
)
def test_a_figure_asks_for_its_runs_on_every_seed(number, asked):
    specs = FIGURES[number].specs("digits", iter((5, 6)), lr=0.125)
    found = [(s.experiment.partition, s.experiment.agents, s.experiment.beta, s.seed) for s in specs]
    assert found == [(*each, seed) for each in asked for seed in (5, 6)]
    assert {s.mechanism for s in specs} == {"CGSV"}
    assert {s.experiment.lr for s in specs} == {0.125}
    plain = FIGURES[number].specs(seeds=[5])
    assert {s.experiment.lr for s in plain} == {preset("digits", p, n).lr for p, n, _ in asked} or number == 2


def test_figure_2_has_the_noise_of_the_paper():
    assert {s.experiment.noise for s in FIGURES[2].specs()} == {(0.2, 0.4, 0.6, 0.0, 0.0)}


def test_betas_of_figure_7_can_be_chosen():
    specs = FIGURES[7].specs(seeds=[1], betas=[3.0, 4.0])
    assert [s.experiment.beta for s in specs] == [3.0, 4.0]
    with pytest.raises(ValueError, match=r"specs\(\): expected no beta, .* got 2"):
        FIGURES[7].specs(beta=2.0)


def drawn(figure):
    """All vertices of the lines and of the bands, as (x, y)."""
    lines, bands = set(), set()
    for axes in figure.axes:
        for line in axes.lines:
            lines |= {(float(x), float(y)) for x, y in line.get_xydata()}
        for band in axes.collections:
            paths = [band.get_paths()] if hasattr(band, "get_paths") else []
            bands |= {(float(x), float(y)) for each in paths for p in each for x, y in p.vertices}
    return lines, bands


def near(point, points):
    return any(np.allclose(point, other, rtol=1e-6, atol=1e-9) for other in points)


@pytest.mark.parametrize("number", FIGURES)
def test_csv_holds_what_is_drawn(number, runs, tmp_path):
    path = tmp_path / "new" / f"figure-{number}-digits.png"
    assert figures.write(number, runs, tmp_path / "new") == path
    assert path.read_bytes().startswith(b"\x89PNG")
    with path.with_suffix(".csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    lines, bands = drawn(FIGURES[number].draw(runs))
    for row in rows:
        x, mean, error = (float(row[name]) for name in ("x", "mean", "standard error"))
        assert row["seeds"] == "2"
        assert near((x, mean), lines), row
        assert near((x, mean + error), bands), row
        assert near((x, mean - error), bands), row
    means = {(float(row["x"]), float(row["mean"])) for row in rows}
    labelled = [
        line
        for axes in FIGURES[number].draw(runs).axes
        for line in axes.lines
        if not line.get_label().startswith("_")
    ]
    assert labelled
    assert all(near(point, means) for line in labelled for point in line.get_xydata().tolist())


def points(number, runs):
    return {(c.panel, c.label): c for c in FIGURES[number].curves(runs)}


def check(found, values, x=(1, 2, 3)):
    """A curve against NumPy's mean and standard error over the first dimension."""
    values = np.stack([np.asarray(v) for v in values])
    assert found.x == list(x)
    np.testing.assert_allclose(found.mean, values.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.error, values.std(0, ddof=1) / math.sqrt(len(values)), atol=1e-12)


def test_figure_2_shows_distance_and_clean_loss(runs):
    chosen, found = of(runs, 5, "NOI"), points(2, runs)
    check(found["distance", "A3, 60 % noise"], [r.distance[:, 2] for r in chosen])
    check(found["loss", "A4, clean"], [r.loss[:, 3] for r in chosen])
    check(found["distance", "server's from w$_0$"], [r.server_distance for r in chosen])
    assert len(found) == 11


def test_figure_3_shows_accuracies_over_rounds_and_at_the_end(runs):
    found = points(3, runs)
    assert len(found) == 3 * 11
    check(found["POW", "A7"], [100 * r.accuracy[:, 6] for r in of(runs, 10, "POW")])
    finals = [100 * r.accuracy[-1] for r in of(runs, 10, "CLA")]
    check(found["CLA, final", "by agent"], finals, x=range(1, 11))


@pytest.mark.parametrize(
    ("number", "quantity"), [(4, "importance"), (5, "reward_distance"), (6, "last_layer_distance")]
)
def test_figures_4_to_6_show_agents_1_and_3(number, quantity, runs):
    found = points(number, runs)
    assert len(found) == 6
    for partition in ("UNI", "POW", "CLA"):
        for i, label in ((0, "agent 1"), (2, "agent 3")):
            values = [getattr(r, quantity)[:, i] for r in of(runs, 3, partition)]
            check(found[partition, label], values)


def test_figure_7_shows_final_losses_against_beta(runs):
    found = points(7, runs)
    assert len(found) == 4 * 10
    for sweep, betas in (("the paper's β", (1.0, 1.2, 1.5, 2.0)), ("a wider sweep", (1.0, 2.0, 10.0, 100.0))):
        by_seed = list(zip(*(of(runs, 10, "CLA", beta) for beta in betas), strict=True))
        training = [[r.training_loss[0].item() for r in each] for each in by_seed]
        test = [[r.loss[-1, 0].item() for r in each] for each in by_seed]
        check(found[f"training loss, {sweep}", "A1"], training, betas)
        check(found[f"test loss, {sweep}", "A1"], test, betas)


def test_figure_7_compares_on_the_same_seeds_only(runs):
    fewer = [r for r in runs if (r.experiment.beta, r.seed) != (2.0, 2)]
    assert {c.seeds for c in FIGURES[7].curves(fewer)} == {1}
    one = [r for r in runs if r.experiment.beta == 1]
    assert FIGURES[7].curves(one) == []
    assert {c.panel for c in FIGURES[7].curves([r for r in runs if r.experiment.beta <= 1.5])} == {
        "training loss, the paper's β",
        "test loss, the paper's β",
    }


def test_figure_7_mixes_no_settings(runs):
    """The preset with one β cannot be part of a sweep that was run with other settings."""
    usual = replace(of(runs, 10, "CLA")[0], experiment=preset("digits", "CLA", 10))
    assert FIGURES[7].curves([usual, *runs]) == FIGURES[7].curves(runs)
    beside = replace(usual, experiment=preset("digits", "CLA", 10, beta=2.0))
    assert {c.seeds for c in FIGURES[7].curves([usual, beside, *runs])} == {1}


def test_other_beta_leave_the_other_figures_alone(runs):
    alone = [r for r in runs if r.experiment.beta == 1]
    assert FIGURES[3].curves(runs) == FIGURES[3].curves(runs[::-1]) == FIGURES[3].curves(alone)


def test_a_figure_of_part_of_its_runs_has_fewer_panels(runs):
    figure = FIGURES[4].draw(of(runs, 3, "CLA"))
    assert [axes.get_title() for axes in figure.axes] == ["CLA"]


@pytest.mark.parametrize("number", FIGURES)
def test_without_its_runs_a_figure_says_so(number, runs):
    others = [replace(r, mechanism="FedAvg") for r in runs]
    assert FIGURES[number].curves(others) == []
    with pytest.raises(ValueError, match=r"expected runs for '.+', got none"):
        FIGURES[number].draw(others)


@pytest.mark.parametrize("number", FIGURES)
def test_a_single_seed_has_no_band(number, runs):
    one = [r for r in runs if r.seed == 1]
    assert {(c.seeds, error) for c in FIGURES[number].curves(one) for error in c.error} == {(1, 0.0)}
    assert not drawn(FIGURES[number].draw(one))[1]


def test_a_band_is_the_standard_error_of_the_mean():
    """Of 1 and 3: a deviation of √2 over √2 seeds."""
    found = curve("", "", [7], torch.tensor([[1.0], [3.0]]))
    assert (found.mean, found.seeds) == ([2.0], 2)
    assert found.error == pytest.approx([1.0])


def test_runs_of_the_preset_come_before_more_runs_of_others(runs):
    sample = of(runs, 3, "UNI")[0]
    usual = [replace(sample, experiment=preset("digits", "UNI", 3), seed=seed) for seed in (4, 3)]
    other = [replace(sample, experiment=preset("digits", "UNI", 3, lr=1.0), seed=seed) for seed in (1, 2, 3)]
    third = [replace(sample, experiment=preset("digits", "UNI", 3, lr=2.0), seed=1)]
    noisy = preset("digits", "UNI", 3, adversaries=("noise",))
    attacked = [replace(sample, experiment=noisy, seed=seed) for seed in range(9)]
    assert [(r.seed, r.experiment.lr) for r in choose(third + other + attacked, "UNI", 3)] == [
        (1, 1.0),
        (2, 1.0),
        (3, 1.0),
    ]
    assert [r.seed for r in choose(third + other + usual + attacked, "UNI", 3)] == [3, 4]
    assert choose(attacked, "UNI", 3) == []


def test_what_cgsv_does_not_read_splits_no_seeds(runs):
    mixed = [replace(r, experiment=replace(r.experiment, q=float(r.seed))) for r in runs]
    assert [r.seed for r in choose(mixed, "UNI", 3)] == [1, 2]
    for number in FIGURES:
        assert FIGURES[number].curves(mixed) == FIGURES[number].curves(runs)


def test_a_dataset_without_presets_has_no_figures(runs, monkeypatch):
    monkeypatch.setitem(DATASETS, "mine", DATASETS["digits"])
    mine = [replace(r, experiment=replace(r.experiment, dataset="mine")) for r in runs]
    assert all(module.curves(mine) == [] for module in FIGURES.values())


@pytest.mark.parametrize(
    ("partition", "agents", "expected"),
    [
        ("figure-2", 5, ["20 % noise", "40 % noise", "60 % noise", "clean", "clean"]),
        ("CLA", 3, ["1 class", "5 classes", "10 classes"]),
        ("UNI", 3, ["419 samples", "419 samples", "419 samples"]),
    ],
)
def test_traits_say_what_agents_differ_in(partition, agents, expected, runs):
    title = preset("digits", partition, agents).title
    found = [r for r in runs if (r.experiment.title, r.experiment.agents) == (title, agents)]
    assert traits(found) == expected


def test_traits_count_samples_and_name_adversaries(runs):
    chosen = of(runs, 3, "POW")
    sizes = [sum(row) for row in chosen[0].histogram.tolist()]
    assert traits(chosen) == [f"{size} samples" for size in sizes]
    e = replace(chosen[0].experiment, adversaries=("noise",))
    extra = torch.cat([chosen[0].histogram, torch.ones(1, 10, dtype=torch.int64)])
    attacked = [replace(chosen[0], experiment=e, histogram=extra)]
    assert traits(attacked) == [*(f"{size} samples" for size in sizes), "adversary"]


def test_traits_span_what_seeds_disagree_on(runs):
    first, second = of(runs, 3, "CLA")
    other = second.histogram.clone()
    other[0, 3:5] = 7
    assert traits([first, second])[0] == "1 class"
    assert traits([first, replace(second, histogram=other)])[0] == "1 to 3 classes, 120 to 134 samples"
