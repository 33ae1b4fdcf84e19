"""The table of adversaries: which runs it needs, and what its cells are the means of."""

import pytest
from fl_runs import made_up, small

from cgsv_ext import cli
from cgsv_ext.fl.adversary import ADVERSARIES
from cgsv_ext.fl.table import adversaries, adversary_specs
from cgsv_ext.fl.table.adversary import GROUPS, MANY, NAMES, PARTITIONS

R_ALONE = [[0.2, 0.3, 0.5], [0.4, 0.5, 0.1]]
R = [[0.1, 0.2, 0.2, 0.5, 0.0], [0.1, 0.3, 0.2, 0.3, 0.1]]  # an adversary fares best


def joined(seed, mechanism="CGSV", **tensors):
    e = small(adversaries=("noise", "sybil"))
    return made_up(e, mechanism, seed, [0.9, 0.8, 0.7, 0.5, 0.3], server_accuracy=0.75, **tensors)


@pytest.fixture
def tables():
    runs = [joined(1, importance=R), joined(2, importance=R), joined(1, "FedAvg")]
    runs.append(made_up(small(), "CGSV", 1, [0.9, 0.8, 0.7], importance=R_ALONE, server_accuracy=0.875))
    return {table.title: table for table in adversaries(runs)}


def test_cells_are_means_over_adversaries_and_over_honest_agents(tables):
    table = tables["Adversaries; digits, UNI, N = 3, rounds=2, steps=1: CGSV"]
    # Who joins; their mean r, their last r, the best honest mean r; their accuracy, the honest, the server's.
    assert table.rows == [
        ["nobody", "–", "–", "0.400", "–", "80.0", "87.5"],
        ["noise, sybil", *(f"{r} ± 0.000" for r in ("0.225", "0.200", "0.250"))]
        + [f"{a} ± 0.0" for a in ("40.0", "80.0", "75.0")],
    ]
    assert "1 to 2 seeds" in table.note


def test_a_mechanism_without_importance_has_dashes(tables):
    table = tables["Adversaries; digits, UNI, N = 3, rounds=2, steps=1: FedAvg"]
    assert table.rows == [["noise, sybil", "–", "–", "–", "40.0", "80.0", "75.0"]]


def test_runs_without_adversaries_make_no_table():
    assert adversaries([made_up(small(), "CGSV", 1)]) == []


def test_every_kind_joins_alone_and_some_in_numbers():
    specs = adversary_specs("digits", [5], seeds=[2021])
    assert len(set(specs)) == len(specs) == len(GROUPS) * len(PARTITIONS) * len(NAMES)
    groups = {spec.experiment.adversaries for spec in specs}
    assert () in groups
    assert {(kind,) for kind in ADVERSARIES} <= groups
    assert ("copier",) * MANY in groups


def test_a_group_that_is_asked_for_takes_the_place_of_all():
    specs = adversary_specs("digits", [5], ["UNI"], ["CGSV"], [1], changes={"adversaries": ("x10",) * 2})
    assert [spec.experiment.adversaries for spec in specs] == [(), ("x10", "x10")]


def test_the_command_prints_and_writes_it(tmp_path, capsys):
    options = "--agents 3 --seeds 1 --partitions UNI --mechanisms CGSV --rounds 1 --steps 1 --jobs 1"
    chosen = ["--adversaries", "noise", "noise"]
    assert cli.main(["table", "adversaries", *options.split(), *chosen, "--out", str(tmp_path)]) == 0
    assert "2 noise" in capsys.readouterr().out
    text = (tmp_path / "table-adversaries-digits.md").read_text(encoding="utf-8")
    assert "| 2 noise |" in text
    assert (tmp_path / "table-adversaries-digits.csv").exists()
