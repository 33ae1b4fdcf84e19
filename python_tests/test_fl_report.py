"""The report: one page that needs no other file, of whatever runs there are."""

import base64
import csv
import html
import json
import math
import re
from dataclasses import replace

import pytest

from cgsv_ext import fl
from cgsv_ext.fl import report
from cgsv_ext.fl.claims import Claim
from cgsv_ext.fl.report import Results, results
from cgsv_ext.fl.report.page import page
from cgsv_ext.fl.report.tables import settings
from cgsv_ext.fl.store import Store

NOISE = replace(fl.FIGURE_2, rounds=3, steps=2)
CLA = replace(fl.CLA_10, rounds=2, steps=2)
ALTRUIST = replace(CLA, beta=2.0)
ATTACKED = replace(NOISE, adversaries=("noise",))
ASKED = [
    *((e, m, s) for e in (NOISE, CLA) for m in ("CGSV", "FedAvg", "standalone") for s in (7, 8)),
    (ALTRUIST, "CGSV", 7),
    (ALTRUIST, "CGSV", 8),
    (ATTACKED, "CGSV", 7),
]


@pytest.fixture(scope="module")
def runs():
    return [fl.run(*asked) for asked in ASKED]


@pytest.fixture(scope="module")
def folder(runs, tmp_path_factory):
    """What a command leaves behind."""
    folder = tmp_path_factory.mktemp("results")
    for run in runs:
        Store(folder / "runs").put(run)
    return folder


@pytest.fixture(scope="module")
def text(folder):
    assert report.report(folder) == folder / "report.html"
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def written(runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "new" / "folder"
    noise = [run for run in runs if run.experiment is NOISE]
    return out, report.write(noise, out, command="cgsv dance --fast")


def without_pictures(monkeypatch):
    """Drawing takes most of the time, and not all tests look."""
    monkeypatch.setattr(results.plots, "federation_figures", lambda *_: {})
    monkeypatch.setattr(results.plots, "cost", lambda *_: None)
    monkeypatch.setattr(results, "FIGURES", {})


def test_the_page_needs_no_other_file(text):
    assert not re.findall(r'(?:src|href)="(?!data:image/png;base64,|#)', text)
    assert not re.findall(r"<script|<link|<iframe|@import|url\(|https?:", text)
    images = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="([^"]+)"', text)
    assert all(base64.b64decode(image).startswith(b"\x89PNG") for image, _ in images)
    assert len(images) == text.count("<img") > 15


def test_the_page_fits_a_phone(text):
    assert '<meta name="viewport" content="width=device-width' in text
    assert text.count("<table") == text.count('<div class="scroll"><table')


def test_contents_lead_somewhere(text):
    links, places = re.findall(r'href="#([^"]+)"', text), re.findall(r' id="([^"]+)"', text)
    assert set(links) <= set(places)
    assert len(places) == len(set(places))


def test_every_experiment_and_mechanism_is_there(text):
    found = html.unescape(text)
    assert re.findall(r"<summary>(.*)</summary>", found) == [
        "Label noise, N = 5, rounds=3, steps=2",
        "CLA, N = 10, rounds=2, steps=2",
    ]
    for cell in ("CGSV", "CGSV β=2", "FedAvg", "standalone", "A1", "20 % noise", "10 classes"):
        assert f"<td>{cell}</td>" in found, cell
    assert all(f"Table {number}" in found for number in (1, 2, 3))
    assert all(f"<h3>Figure {number}</h3>" in found for number in (2, 3, 7))
    assert "<h3>Figure 4</h3>" not in found


def test_adversaries_have_one_section_without_plots(text):
    section = html.unescape(text).split('<h2 id="adversaries">')[1].split("<h2")[0]
    title = "Adversaries; digits, Label noise, N = 5, rounds=3, steps=2: CGSV"
    assert re.findall("<caption>(.*)</caption>", section) == [title]
    assert re.findall("<tr><td>(.*?)</td>", section) == ["nobody", "noise"]
    assert "<img" not in section
    assert "15 runs on digits, 1 of them with adversaries" in re.sub(r"\s+", " ", text)
    assert "adversaries=noise" not in text
    assert "<td>adversary</td>" not in text


def test_a_page_of_adversaries_alone_has_their_section_alone(runs):
    text = page(Results([run for run in runs if run.experiment is ATTACKED], "cgsv"))
    assert re.findall(r'<h2 id="(.*?)"', text) == ["adversaries"]
    links, places = re.findall(r'href="#([^"]+)"', text), re.findall(r' id="([^"]+)"', text)
    assert set(links) <= set(places)


def test_runs_with_adversaries_change_no_other_number(runs, monkeypatch):
    without_pictures(monkeypatch)
    everything = Results(runs, "cgsv")
    honest = Results([run for run in runs if not run.experiment.adversaries], "cgsv")
    for make in ("paper_tables", "mechanisms_tables", "cost_table"):
        assert getattr(everything, make)() == getattr(honest, make)()
    assert everything.overhead("training") == honest.overhead("training")


def test_settings_seeds_and_command_are_there(text, folder):
    assert "<span>T 3</span>" in text
    assert "<span>batch 32</span>" in text
    assert "<span>noise 0.2, 0.4, 0.6, 0, 0</span>" in text
    assert "2 seeds (7, 8)" in re.sub(r"\s+", " ", text)
    assert f"<code>cgsv report {folder}</code>" in text
    assert "torch" in text.split('id="environment"')[1]


def test_settings_left_at_their_default_are_not_listed():
    assert settings(CLA).keys() == {
        *("dataset", "model", "partition", "N", "T", "batch", "learning rate", "Γ", "steps", "samples"),
        *("α", "β", "floor"),
    }


def test_undefined_fairness_is_shown(text):
    for heading in ("Label noise, N = 5, rounds=3, steps=2", "CLA, N = 10, rounds=2, steps=2"):
        caption = f"<caption>{heading}: final test accuracy (%) and fairness ρ</caption>"
        table = text.split(caption)[1].split("</table>")[0]
        (row,) = re.findall(r"<tr><td>FedAvg</td>.*</tr>", table)
        assert row.endswith("<td>undefined</td></tr>")


def test_claims_are_met_or_not_and_those_without_runs_counted(runs, monkeypatch):
    without_pictures(monkeypatch)
    found = [Claim("up > down", "3.0", True), Claim("x", "0", False), *[Claim("?", "", None)] * 2]
    monkeypatch.setattr(results, "claims", lambda _: found)
    text = page(Results(runs[:1], "cgsv"))
    assert '<td>up &gt; down</td><td>3.0</td><td class="met">yes</td>' in text
    assert '<td>x</td><td>0</td><td class="missed">no</td>' in text
    assert "2 more expectations are of runs that are not here." in text
    assert "<td>?</td>" not in text


@pytest.mark.parametrize("mechanism", ["CGSV", "FedAvg", "standalone"])
def test_what_is_not_there_is_left_out(mechanism, runs):
    some = [r for r in runs if r.mechanism == mechanism and r.experiment is NOISE and r.seed == 7]
    text = page(Results(some, "cgsv"))
    others = {"CGSV", "FedAvg", "standalone"} - {mechanism}
    assert f"<td>{mechanism}</td>" in text
    assert not any(f"<td>{other}</td>" in text for other in others)
    assert ("<h3>Figure 2</h3>" in text) == (mechanism == "CGSV")
    assert "nan" not in re.sub(r"base64,[^\"]+", "", text)
    assert "±" not in text.split("<caption>", 1)[1]  # one seed has no error


@pytest.mark.parametrize("missing", [True, False])
def test_a_folder_without_runs_is_refused(missing, tmp_path):
    folder = tmp_path / "missing" if missing else tmp_path
    with pytest.raises(ValueError, match=re.escape(f"expected finished runs in {folder / 'runs'}")):
        report.report(folder)
    assert not (folder / "report.html").exists()


def test_a_store_itself_will_do_and_the_page_may_go_elsewhere(folder, tmp_path, monkeypatch):
    without_pictures(monkeypatch)
    out = tmp_path / "new" / "page.html"
    assert report.report(folder / "runs", out) == out
    assert f"cgsv report {folder / 'runs'}" in out.read_text(encoding="utf-8")


def test_titles_are_escaped(runs, monkeypatch):
    without_pictures(monkeypatch)
    odd = replace(runs[0], experiment=replace(NOISE, title="<b>a & b"))
    text = page(Results([odd], "cgsv run --title '<b>'"))
    assert "&lt;b&gt;a &amp; b" in text
    assert "<b>" not in text


def test_a_run_that_is_there_twice_counts_once(runs):
    logged = fl.run(NOISE, "CGSV", 7, log_shapley=True)
    found = Results([logged, *runs, runs[0]], "cgsv")
    assert len(found.every) == len(runs)
    (twin,) = [r for r in found.runs if (r.experiment, r.mechanism, r.seed) == (NOISE, "CGSV", 7)]
    assert twin is logged


def test_names_of_federations_differ(runs, monkeypatch):
    without_pictures(monkeypatch)
    other = replace(runs[0], experiment=replace(NOISE, lr=0.5))
    names = [f.name for f in Results([*runs, other], "cgsv").federations]
    assert len(set(names)) == len(names) == 3


def test_agreement_of_shapley_values_is_shown_where_logged(text, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FIGURES", {})
    logged = [fl.run(NOISE, m, 7, log_shapley=True) for m in ("CGSV", "FedAvg", "standalone")]
    found = report.write(logged, tmp_path, command="cgsv demo --log-shapley")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "exact Shapley values φ</caption>" in page
    assert "exact Shapley values φ</caption>" not in text
    assert f"{NOISE.name}_shapley" in found.pictures
    numbers = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    against = numbers["experiments"][NOISE.name]["mechanisms"]["CGSV"]["psi_against_shapley"]
    assert len(against["kendall"]["by_round"][0]) == 3


def test_pictures_beside_the_page_are_those_in_it(written):
    out, _ = written
    text = (out / "report.html").read_text(encoding="utf-8")
    inline = {base64.b64decode(image) for image in re.findall(r'base64,([^"]+)"', text)}
    assert {path.read_bytes() for path in out.glob("*.png")} == inline
    plots = ("holdings", "importance", "sparsity", "distance", "accuracy", "rho")
    names = {"digits_figure-2.png", "time.png", *(f"{NOISE.name}_{plot}.png" for plot in plots)}
    files = {"report.html", "results.json", "rounds.csv", "summary.md"}
    assert {path.name for path in out.iterdir()} == names | files


def test_numbers_hold_every_seed_and_agent(written, runs):
    numbers = json.loads((written[0] / "results.json").read_text(encoding="utf-8"))
    assert numbers["command"] == "cgsv dance --fast"
    assert numbers["seeds"] == [7, 8]
    assert numbers["reward_step_over_training"]["as_run"] > 0
    found = numbers["experiments"][NOISE.name]
    assert found["settings"]["rounds"] == 3
    mechanisms = found["mechanisms"]
    assert set(mechanisms) == {"CGSV", "FedAvg", "standalone"}
    assert mechanisms["CGSV"]["accuracy"][0] == runs[0].accuracy[-1].tolist()
    assert mechanisms["FedAvg"]["rho"] == [None, None]
    assert mechanisms["standalone"]["distance"] == [[None] * 5] * 2


def test_numbers_are_json_whatever_is_infinite_or_not_there(runs, tmp_path, monkeypatch):
    without_pictures(monkeypatch)
    distance = runs[0].distance.clone()
    distance[-1, 0] = math.inf
    odd = replace(runs[0], experiment=replace(NOISE, beta=math.inf), distance=distance)
    report.write([odd], tmp_path, command="cgsv")

    def refuse(text):
        raise AssertionError(text)

    text = (tmp_path / "results.json").read_text(encoding="utf-8")
    (found,) = json.loads(text, parse_constant=refuse)["experiments"].values()
    assert found["settings"]["beta"] == "inf"
    (mechanism,) = found["mechanisms"].values()
    assert mechanism["distance"][0][0] == "inf"


def test_summary_has_the_adversaries(runs, tmp_path, monkeypatch):
    without_pictures(monkeypatch)
    report.write(runs, tmp_path, command="cgsv")
    text = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert text.count("**Adversaries; digits, Label noise, N = 5") == 1
    assert "adversaries=noise" not in text


def test_rounds_hold_every_round(written, runs):
    with (written[0] / "rounds.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 * 3 * 3 * 2
    cgsv = [row for row in rows if (row["mechanism"], row["seed"], row["agent"]) == ("CGSV", "7", "A2")]
    assert [float(row["distance"]) for row in cgsv] == pytest.approx(
        runs[0].distance[:, 1].tolist(), rel=1e-5
    )
    assert {row["importance"] for row in rows if row["mechanism"] == "FedAvg"} == {""}


def test_summary_has_the_tables(written):
    text = (written[0] / "summary.md").read_text(encoding="utf-8")
    assert "Written by `cgsv dance --fast`; means ± standard errors over 2 seeds." in text
    assert "| FedAvg | 2 |" in text
    assert "**Time per round**" in text
