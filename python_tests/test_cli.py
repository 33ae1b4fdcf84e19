"""The command line, end to end with a tiny experiment."""

import base64
import csv
import json
import re
from dataclasses import replace

import pytest

from cgsv_ext import cli
from cgsv_ext.fl import CLA_10, FIGURE_2, demo

TINY = (replace(FIGURE_2, rounds=3, steps=2), replace(CLA_10, rounds=2, steps=2))
PLOTS = [f"{e.name}_{plot}" for e in TINY for plot in ("importance", "accuracy", "sparsity", "distance")]
PLOTS += ["rho", "time"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished tiny demo: its folder and what it printed."""
    out = tmp_path_factory.mktemp("demo") / "new" / "folder"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "DEMO", TINY)
        assert cli.main(["demo", "--out", str(out), "--seeds", "2"]) == 0
    return out


def test_demo_writes_everything(finished):
    expected = {"report.html", "results.json", "rounds.csv", "summary.md", *(f"{p}.png" for p in PLOTS)}
    assert {path.name for path in finished.iterdir()} == expected


def test_report_needs_no_other_file(finished):
    page = (finished / "report.html").read_text(encoding="utf-8")
    images = re.findall(r'<img src="data:image/png;base64,([^"]+)"', page)
    assert len(images) == len(PLOTS)
    assert all(base64.b64decode(image).startswith(b"\x89PNG") for image in images)
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert "undefined" in page


def test_results_hold_every_seed_and_agent(finished):
    results = json.loads((finished / "results.json").read_text(encoding="utf-8"))
    assert results["seeds"] == [2021, 2022]
    assert results["command"] == "cgsv demo --seeds 2"
    for e in TINY:
        found = results["experiments"][e.name]
        assert found["settings"]["rounds"] == e.rounds
        mechanisms = found["mechanisms"]
        assert set(mechanisms) == {"CGSV", "FedAvg", "standalone"}
        assert mechanisms["FedAvg"]["rho"] == [None, None]
        assert mechanisms["standalone"]["distance"] == [[None] * e.agents] * 2
        assert len(mechanisms["CGSV"]["mean_importance"][0]) == e.agents


def test_rounds_hold_every_round(finished):
    with (finished / "rounds.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(e.agents * e.rounds for e in TINY) * 3 * 2
    fedavg = [row for row in rows if row["mechanism"] == "FedAvg"]
    assert {row["importance"] for row in fedavg} == {""}
    assert {float(row["distance"]) for row in fedavg} == {0.0}


def test_one_seed_has_no_error(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "DEMO", TINY[:1])
    assert cli.main(["demo", "--out", str(tmp_path), "--seeds", "1"]) == 0
    assert "±" not in (tmp_path / "summary.md").read_text(encoding="utf-8").split("**", 1)[1]
    printed = capsys.readouterr().out
    assert "undefined" in printed
    assert str(tmp_path / "report.html") in printed


def test_env_prints_versions(capsys):
    assert cli.main(["env"]) == 0
    assert "torch" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["demo", "--seeds", "0"], ["demo", "--seeds", "x"], ["dance"]])
def test_wrong_arguments_explain_themselves(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert "usage: cgsv" in capsys.readouterr().err
