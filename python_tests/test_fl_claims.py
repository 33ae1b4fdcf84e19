"""Claims are met where the runs say so, missed where they do not, and open where there are none."""

from dataclasses import replace

import pytest
import torch
from fl_runs import made_up

from cgsv_ext.fl.claims import FREE_RIDER, MEANS, OVERHEAD, Claim, claims
from cgsv_ext.fl.presets import FIGURE_2, TRIAL_SEEDS, preset

SEEDS = (2021, 2022)
NOI_5 = preset("digits", "NOI", 5)
CLA_5 = preset("digits", "CLA", 5)
UP = [0.5, 0.6, 0.7, 0.8, 0.9]


def find(runs, text):
    (claim,) = (claim for claim in claims(runs) if text in claim.expected)
    return claim


def test_they_are_what_was_fixed_beforehand():
    found = {(each.section, each.agents, each.what.split(" with ")[-1]): each.least for each in MEANS}
    above = "points of accuracy by which CGSV's server is above FedAvgNormalised's"
    closeness, alone = "closeness to the server", "standalone accuracy"
    assert found == {
        ("figure-2", 5, "ρ of CGSV"): 90,
        ("NOI", 5, "ρ of CGSV"): 85,
        ("NOI", 10, "ρ of CGSV"): 85,
        ("CLA", 5, "ρ of CGSV"): 75,
        ("CLA", 10, "ρ of CGSV"): 80,
        ("CLA", 5, above): 4,
        ("CLA", 10, above): 4,
        ("figure-2", 5, closeness): 0.85,
        ("NOI", 5, closeness): 0.85,
        ("NOI", 10, closeness): 0.85,
        ("CLA", 5, closeness): 0.85,
        ("CLA", 10, closeness): 0.85,
        ("POW", 5, closeness): 0.85,
        ("POW", 10, closeness): 0.85,
        ("POW", 5, alone): 0.75,
        ("POW", 10, alone): 0.65,
        ("POW", 5, "ρ of DW"): 85,
        ("POW", 10, "ρ of DW"): 85,
    }
    assert (OVERHEAD, FREE_RIDER) == (0.01, 0.01)


def test_without_runs_all_are_open():
    assert {claim.met for claim in claims([])} == {None}


@pytest.mark.parametrize(
    "e", [replace(NOI_5, rounds=2), replace(NOI_5, gamma=0.3), replace(NOI_5, dataset="mnist", model="cnn")]
)
def test_other_settings_do_not_count(e):
    runs = [made_up(e, name, 2021, UP) for name in ("CGSV", "standalone", "FedAvg")]
    assert find(runs, "NOI, N = 5: ρ of CGSV").met is None


def test_the_trials_seeds_do_not_count():
    runs = [made_up(NOI_5, name, TRIAL_SEEDS[0], UP) for name in ("CGSV", "standalone", "FedAvg")]
    assert {claim.met for claim in claims(runs)} == {None}


def test_a_mean_is_met_or_missed():
    def runs(*ends):
        return [
            run
            for seed, each in zip(SEEDS, ends, strict=True)
            for run in (made_up(NOI_5, "standalone", seed, UP), made_up(NOI_5, "CGSV", seed, each))
        ]

    met = Claim("NOI, N = 5: ρ of CGSV ≥ 85", "100.0 ± 0.0, 2 seeds", True)
    assert find(runs(UP, UP), "NOI, N = 5: ρ of CGSV") == met
    assert find(runs(UP, UP[::-1]), "NOI, N = 5: ρ of CGSV").met is False
    half_undefined = find(runs(UP, [0.5] * 5), "NOI, N = 5: ρ of CGSV")
    assert half_undefined.met is False
    assert "1 undefined" in half_undefined.found


def test_the_server_is_compared_seed_by_seed():
    runs = [
        made_up(CLA_5, name, seed, server_accuracy=value + seed / 1e6)
        for seed in SEEDS
        for name, value in (("CGSV", 0.9), ("FedAvgNormalised", 0.85))
    ]
    claim = find(runs, "CLA, N = 5: points")
    assert claim.met
    assert claim.found == "5.0 ± 0.0, 2 seeds"
    assert find(runs[:3], "CLA, N = 5: points").found == "5.0, 1 seed"
    runs = [made_up(CLA_5, name, 2021, server_accuracy=0.9) for name in ("CGSV", "FedAvgNormalised")]
    assert find(runs, "CLA, N = 5: points").met is False


@pytest.mark.parametrize("what", ["N = 5: mean r", "N = 5: distance from the server"])
def test_figure_2_is_in_order_on_every_seed_or_missed(what):
    best = torch.tensor([0.2, 0.15, 0.1, 0.25, 0.3]).double()
    tied = torch.tensor([0.2, 0.15, 0.15, 0.25, 0.3]).double()

    def runs(*values):
        return [
            made_up(FIGURE_2, "CGSV", seed, importance=each, distance=1 - each)
            for seed, each in zip(SEEDS, values, strict=True)
        ]

    assert find(runs(best, best), what).met
    missed = find(runs(best, tied), what)
    assert (missed.met, missed.found) == (False, "on 1 of 2 seeds")


def test_what_cgsv_does_not_read_takes_no_run_out_of_figure_2():
    best = torch.tensor([0.2, 0.15, 0.1, 0.25, 0.3]).double()
    runs = [
        made_up(replace(FIGURE_2, q=q), "CGSV", seed, importance=best) for seed, q in ((2021, 1), (2022, 3))
    ]
    assert find(runs, "N = 5: mean r").found == "on 2 of 2 seeds"
    other = made_up(replace(FIGURE_2, beta=2.0), "CGSV", 2023, importance=best)
    assert find([*runs, other], "N = 5: mean r").found == "on 2 of 2 seeds"


def test_fedavgs_rho_is_undefined_everywhere_or_missed():
    def runs(ends):
        alone = [made_up(e, "standalone", 2021, UP) for e in (NOI_5, CLA_5)]
        return [*alone, made_up(NOI_5, "FedAvg", 2021, [0.9] * 5), made_up(CLA_5, "FedAvg", 2021, ends)]

    assert find(runs([0.9] * 5), "FedAvg: ρ").found == "in 2 of 2 runs"
    assert find(runs([0.9] * 5), "FedAvg: ρ").met
    assert find(runs(UP), "FedAvg: ρ").met is False


def test_the_costliest_federation_decides():
    runs = [made_up(e, "CGSV", 2021) for e in (NOI_5, CLA_5)]
    for run, reward in zip(runs, (0.02, 0.09), strict=True):
        run.seconds = {"training": 2.0, "reward": reward, "plain loop": 10.0}
    assert find(runs, "Reward steps").met
    assert find(runs, "Reward steps").found == "0.55 % in all; at most 0.90 % (CLA, N = 5)"
    runs[1].seconds["reward"] = 0.11
    assert find(runs, "Reward steps").met is False


def test_a_free_rider_is_judged_by_its_last_importance():
    e = preset("digits", "NOI", 5, adversaries=("copier", "noise"))

    def run(r):
        values = torch.full((e.rounds, 7), 0.5).double()
        values[-1, 6] = r
        return made_up(e, "CGSV", 2021, importance=values)

    assert find([run(0.009)], "sends noise").met
    assert find([run(0.009), run(0.02)], "sends noise").met is False
