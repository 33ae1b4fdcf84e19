"""Tables say what the runs say, whatever runs there are."""

import csv
import io
import math
from dataclasses import replace

import numpy as np
import pytest
from fl_runs import made_up, small
from rich.console import Console

from cgsv_ext.fl.data import DATASETS
from cgsv_ext.fl.mechanism import MECHANISMS
from cgsv_ext.fl.metrics import correlations, fairness, gain, theorem_2
from cgsv_ext.fl.presets import FIGURE_2, preset
from cgsv_ext.fl.summary import federation, heading, label, summarise
from cgsv_ext.fl.table import (
    BETAS,
    TABLES,
    as_markdown,
    show,
    table_1,
    table_2,
    table_3,
    table_specs,
    write_csv,
)
from cgsv_ext.fl.table import fairness as beside

ALONE = {1: [0.3, 0.4, 0.5], 2: [0.2, 0.4, 0.7]}
CGSV = {1: [0.5, 0.6, 0.7], 2: [0.5, 0.9, 0.7]}
SAME = {1: [0.8, 0.8, 0.8], 2: [0.8, 0.8, 0.8]}


def pile(e):
    """Two seeds of three mechanisms."""
    found = {"standalone": ALONE, "CGSV": CGSV, "FedAvg": SAME}
    return [made_up(e, name, seed, ends) for name, each in found.items() for seed, ends in each.items()]


def row(table, name):
    return next(dict(zip(table.head, line, strict=True)) for line in table.rows if line[0] == name)


def pm(values, digits=1):
    values = np.array(values)
    return f"{values.mean():.{digits}f} ± {values.std(ddof=1) / len(values) ** 0.5:.{digits}f}"


def test_table_1_has_the_average_and_the_maximum_over_agents():
    (table,) = table_1(pile(small("POW")))
    assert table.head == ["mechanism", "POW"]
    assert [line[0] for line in table.rows] == ["standalone", "FedAvg", "CGSV"]
    expected = [[100 * f(ends) for ends in CGSV.values()] for f in (np.mean, np.max)]
    assert row(table, "CGSV")["POW"] == f"{pm(expected[0])} ({pm(expected[1])})"


def test_table_2_has_rho_and_says_where_it_is_undefined():
    (table,) = table_2(pile(small("POW")))
    expected = [100 * np.corrcoef(ALONE[seed], CGSV[seed])[0, 1] for seed in (1, 2)]
    assert row(table, "CGSV")["POW"] == pm(expected)
    assert row(table, "FedAvg")["POW"] == "undefined"
    assert "standalone" not in [line[0] for line in table.rows]


def test_an_undefined_rho_is_counted():
    e = small()
    runs = [run for run in pile(e) if run.mechanism != "FedAvg"]
    runs += [made_up(e, "FedAvg", 1, SAME[1]), made_up(e, "FedAvg", 2, [0.2, 0.4, 0.7])]
    assert row(table_2(runs)[0], "FedAvg")["UNI"] == "100.0 (1 undefined)"


def test_a_rho_without_its_standalone_run_is_not_made_up():
    runs = [run for run in pile(small()) if (run.mechanism, run.seed) != ("standalone", 2)]
    assert row(table_2(runs)[0], "CGSV")["UNI"] == "–"


def test_rho_compares_runs_of_one_seed_and_one_federation():
    runs = pile(small())
    other = [made_up(small(steps=2), "standalone", seed, [0.9, 0.1, 0.5]) for seed in (1, 2)]
    (table,) = table_2([*other, *runs])
    assert row(table, "CGSV")["UNI"] == row(table_2(runs)[0], "CGSV")["UNI"]


def test_table_3_has_seconds_and_their_ratio_to_both_ways_to_train():
    (table,) = table_3(pile(small()))
    assert row(table, "CGSV")["UNI"] == "0.5 ± 0 (0.25; 0.05)"
    runs = pile(small())
    for run in runs:
        del run.seconds["plain loop"]
    (table,) = table_3(runs)
    assert row(table, "CGSV")["UNI"] == "0.5 ± 0 (0.25)"
    assert row(table, "training, plain loop")["UNI"] == "–"


def test_table_3_has_no_error_of_training_which_is_not_of_seeds_alone():
    runs = pile(small())
    for run in runs:
        run.seconds |= {"training": 2.0 + (run.mechanism == "CGSV"), "plain loop": 8.0 + 4 * (run.seed == 1)}
    (table,) = table_3(runs)
    assert row(table, "training as run")["UNI"] == "2.5"
    assert row(table, "training, plain loop")["UNI"] == "10"
    assert "every mechanism and seed" in table.note
    assert table.note.startswith("Means ± standard errors over 2 seeds. ")


def test_there_is_a_table_for_every_size_and_a_column_for_every_partition():
    runs = [run for n in (4, 3) for p in ("POW", "UNI") for run in _sized(small(p, n))]
    for make in TABLES.values():
        tables = make(runs)
        assert [table.title.split("; ")[-1].split(", ")[:2] for table in tables] == [
            ["digits", "N = 3"],
            ["digits", "N = 4"],
        ]
        assert [table.head for table in tables] == [["mechanism", "UNI", "POW"]] * 2


def _sized(e):
    return [made_up(e, name, 1) for name in ("standalone", "CGSV")]


def test_a_cell_without_runs_is_a_dash():
    runs = [*_sized(small("UNI")), made_up(small("POW"), "standalone", 1)]
    (table,) = table_1(runs)
    assert row(table, "CGSV")["POW"] == "–"


@pytest.mark.parametrize("make", [*TABLES.values(), beside])
def test_no_runs_make_no_table(make):
    assert make([]) == []


def test_one_seed_has_no_error():
    (table,) = table_1(_sized(small()))
    assert "±" not in as_markdown(table)


def test_rows_are_in_the_papers_order_and_beta_has_its_own():
    e = small(agents=4)
    runs = [made_up(e, name, 1) for name in MECHANISMS]
    runs += [made_up(replace(e, beta=beta), "CGSV", 1) for beta in (40.0, 4.0, 1.5)]
    (table,) = table_1(runs)
    names = [line[0] for line in table.rows]
    assert names[0] == "standalone"
    assert names[-4:] == ["CGSV", "CGSV β=1.5", "CGSV β=N", "CGSV β=10N"]
    assert set(MECHANISMS) <= set(names)


def test_a_label_names_what_the_mechanism_reads_and_no_more():
    e = replace(preset("digits", "UNI", 5), beta=2.0, gamma=0.3, q=3.0)
    assert label(made_up(e, "CGSV", 1)) == "CGSV Γ=0.3 β=2"
    assert label(made_up(e, "FedAvg", 1)) == "FedAvg"
    assert label(made_up(e, "standalone", 1)) == "standalone"
    assert "q=3" in label(made_up(e, "q-FFL", 1))


def test_a_heading_names_what_is_not_as_in_the_preset():
    assert heading(FIGURE_2) == "Label noise, N = 5"
    e = preset("digits", "UNI", 5, rounds=3, adversaries=("noise", "noise"), beta=3.0)
    assert heading(e) == "UNI, N = 5, rounds=3, adversaries=noise/noise"


def test_what_all_columns_share_is_in_the_title():
    (table,) = table_1([*_sized(small("UNI")), *_sized(small("POW", rounds=3))])
    assert table.title.endswith("digits, N = 3, steps=1")
    assert table.head == ["mechanism", "UNI, rounds=2", "POW, rounds=3"]


def test_runs_of_one_federation_share_a_group_whatever_their_mechanisms_read():
    runs = pile(small()) + [made_up(small(beta=2.0), "CGSV", seed) for seed in (1, 2)]
    assert len({federation(run) for run in runs}) == 1
    ((e, summaries),) = summarise(runs).items()
    assert e == federation(runs[0])
    assert list(summaries) == ["standalone", "FedAvg", "CGSV", "CGSV β=2"]
    s = summaries["CGSV"]
    assert s.seeds == [1, 2]
    assert s.accuracy.tolist() == list(CGSV.values())
    assert s.rho == [fairness(cgsv, alone) for cgsv, alone in zip(runs[2:4], runs[:2], strict=True)]
    assert summarise(runs[2:])[e]["CGSV"].rho is None


def test_fairness_beside_rho():
    runs = pile(small("CLA"))
    tables = {table.title.split(";")[0].split(",")[0]: table for table in beside(runs)}
    gains, related, theorem = tables.values()
    pairs = list(zip(runs[2:4], runs[:2], strict=True))

    def cells(table, name):
        return next(line[2:] for line in table.rows if line[:2] == ["CLA", name])

    found = [gain(*pair) for pair in pairs]
    mean, spread, losers = zip(*found, strict=True)
    assert cells(gains, "CGSV") == [pm(100 * np.array(mean)), pm(100 * np.array(spread)), pm(losers)]
    assert cells(gains, "FedAvg")[0] == pm([100 * (0.8 - np.mean(each)) for each in ALONE.values()])
    r = [correlations(run.importance, run, alone) for run, alone in pairs]
    assert cells(related, "CGSV")[4] == pm([each.closeness for each in r], 2)
    assert [line[1] for line in related.rows] == ["CGSV"]
    counts = np.array([theorem_2(run) for run, _ in pairs]).sum(0)
    assert cells(theorem, "CGSV")[0] == f"{100 * counts[2] / counts[0]:.1f} %"
    assert cells(theorem, "CGSV")[1:] == [
        f"{100 * counts[5] / counts[2]:.1f} %" if counts[2] else "–",
        f"{100 * counts[4] / counts[1]:.1f} %",
    ]


def test_adversaries_have_columns_in_the_tables_where_they_are_asked_for():
    e = small("POW", adversaries=("noise",))
    runs = [made_up(e, name, 1, [*ends[1], 0.1]) for name, ends in (("standalone", ALONE), ("CGSV", CGSV))]
    for make in TABLES.values():
        (table,) = make(runs)
        assert table.title.endswith("adversaries=noise")
        assert row(table, "CGSV")["POW"] != "–"
    assert beside(runs)


def test_a_dataset_without_presets_has_tables_and_headings(monkeypatch):
    monkeypatch.setitem(DATASETS, "mine", DATASETS["digits"])
    mine = [
        replace(run, experiment=replace(run.experiment, dataset="mine", title="")) for run in pile(small())
    ]
    for make in TABLES.values():
        (table,) = make(mine)
        assert table.head == ["mechanism", "UNI"]
        assert "; mine, N = 3, model=" in table.title
        assert row(table, "FedAvg")["UNI"] == row(make(pile(small()))[0], "FedAvg")["UNI"]
    assert beside(mine)
    e = replace(mine[0].experiment, title="Mine")
    assert heading(e).startswith("Mine, N = 3, model=mlp, partition=UNI, rounds=2")
    assert "=None" not in heading(e)
    ((_, summaries),) = summarise(mine).items()
    assert [name.split()[0] for name in summaries] == ["standalone", "FedAvg", "CGSV"]


def test_the_csv_has_a_row_per_run_from_which_all_can_be_computed_anew(tmp_path):
    runs = pile(small("POW"))
    write_csv(runs, tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(runs)
    for run in runs:
        (found,) = (r for r in rows if (r["mechanism"], r["seed"]) == (run.mechanism, str(run.seed)))
        assert (found["dataset"], found["partition"], found["agents"]) == ("digits", "POW", "3")
        ends, alone = (
            [float(v) for v in found[f"agents: {name}"].split()]
            for name in ("accuracy", "standalone accuracy")
        )
        assert ends == pytest.approx(run.accuracy[-1].tolist())
        assert alone == ALONE[run.seed]
        if run.mechanism == "CGSV":
            assert float(found["rho"]) == pytest.approx(100 * np.corrcoef(alone, ends)[0, 1])
            assert float(found["gain losers"]) == 0
        else:
            assert found["rho"] == ""
            assert found["agents: importance mean"] == ""
        assert float(found["seconds training"]) == 2.0


def test_markdown_and_print_have_every_cell():
    for table in [*table_1(pile(small())), *beside(pile(small()))]:
        file = io.StringIO()
        show(table, Console(file=file, width=40))
        for text in (as_markdown(table), file.getvalue()):
            for cell in (table.title, *table.head, *(cell for line in table.rows for cell in line)):
                assert cell in text


def test_a_narrow_terminal_folds_cells_and_cuts_none():
    (table,) = table_1(pile(small()))
    file = io.StringIO()
    show(table, Console(file=file, width=30, force_terminal=True, no_color=True))
    assert "…" not in file.getvalue()


def test_specs_are_all_a_table_needs():
    specs = table_specs(2, "digits", [5, 10], seeds=[7, 8])
    assert len(set(specs)) == len(specs) == 2 * 5 * 2 * (len(MECHANISMS) - 1 + len(BETAS))
    assert [spec.seed for spec in specs] == sorted(spec.seed for spec in specs)
    betas = {spec.experiment.beta for spec in specs if spec.mechanism == "CGSV"}
    assert betas == set(BETAS)


@pytest.mark.parametrize(("number", "standalone"), [(1, True), (2, True), ("fairness", True), (3, False)])
def test_standalone_runs_are_among_them_where_they_are_compared_with(number, standalone):
    found = {s.mechanism for s in table_specs(number, "digits", [5], ["UNI"], ["CGSV", "standalone"], [1])}
    assert found == ({"CGSV", "standalone"} if standalone else {"CGSV"})


def test_table_1_may_be_of_standalone_runs_alone():
    assert {spec.mechanism for spec in table_specs(1, "digits", [5], ["UNI"], ["standalone"], [1])} == {
        "standalone"
    }


def test_betas_may_grow_with_the_agents():
    specs = table_specs(3, "digits", [5, 10], ["UNI"], ["CGSV"], [1], ["1", "N", "10N", "0.5N", "inf"])
    found = {n: [s.experiment.beta for s in specs if s.experiment.agents == n] for n in (5, 10)}
    assert found == {5: [1, 5, 50, 2.5, math.inf], 10: [1, 10, 100, 5, math.inf]}


def test_a_partition_for_one_size_is_run_with_that_once():
    specs = table_specs(3, "digits", [5, 10], ["figure-2"], ["FedAvg"], [1])
    assert [spec.experiment for spec in specs] == [FIGURE_2]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"dataset": "imagenet"}, "dataset"),
        ({"partitions": ["UNI", "XYZ"]}, "'XYZ'"),
        ({"mechanisms": ["CGSV", "cgsv"]}, "'cgsv'"),
        ({"betas": ["many"]}, "'many'"),
        ({"betas": [-1.0]}, "beta"),
        ({"changes": {"lr": -1.0}}, "lr"),
        *(({"number": n, "mechanisms": ["standalone"]}, "besides standalone") for n in (2, 3, "fairness")),
    ],
)
def test_what_cannot_be_run_is_refused(arguments, text):
    with pytest.raises(ValueError, match=text):
        table_specs(**{"number": 1, "dataset": "digits", "agents": [5], "seeds": [1]} | arguments)
