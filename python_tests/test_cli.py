"""The command line, end to end with tiny experiments."""

import csv
import json
import re
import subprocess
import sys
from dataclasses import fields, replace

import pytest
from dataset_files import WRITERS

from cgsv_ext import cli
from cgsv_ext.fl import CLA_10, FIGURE_2, demo
from cgsv_ext.fl.experiment import Experiment
from cgsv_ext.fl.presets import FIRST_SEED
from cgsv_ext.fl.store import Store

TINY = (replace(FIGURE_2, rounds=3, steps=2), replace(CLA_10, rounds=2, steps=2))
QUICK = ["--rounds", "2", "--steps", "1", "--seeds", "1", "--jobs", "1"]


def ok(*arguments):
    assert cli.main([str(each) for each in arguments]) == 0


def refused(capsys, *arguments):
    """What is printed when the command ends with status 2."""
    with pytest.raises(SystemExit) as stop:
        cli.main([str(each) for each in arguments])
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.fixture(scope="module")
def demonstrated(tmp_path_factory):
    """The folder of a finished tiny demo."""
    out = tmp_path_factory.mktemp("demo") / "new" / "folder"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "DEMO", TINY)
        ok("demo", "--out", out, "--seeds", "2")
    return out


def test_demo_writes_everything(demonstrated):
    found = {path.name for path in demonstrated.iterdir()}
    assert {"report.html", "results.json", "rounds.csv", "summary.md", "runs"} <= found
    assert any(name.endswith(".png") for name in found)


def test_demo_tells_the_command_and_every_seed(demonstrated):
    results = json.loads((demonstrated / "results.json").read_text(encoding="utf-8"))
    assert results["command"] == "cgsv demo --seeds 2"
    assert {run.seed for run in Store(demonstrated / "runs").runs()} == {FIRST_SEED, FIRST_SEED + 1}


def test_report_gathers_what_is_there(demonstrated, tmp_path, capsys):
    ok("report", demonstrated, "--out", tmp_path / "page.html")
    assert str(tmp_path / "page.html") in capsys.readouterr().out
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert "undefined" in page


def test_report_of_nothing_says_what_to_do(tmp_path, capsys):
    assert "cgsv demo" in refused(capsys, "report", tmp_path)


def test_run_prints_mechanisms_and_agents(tmp_path, capsys):
    ok("run", "--out", tmp_path, "--partition", "CLA", "--agents", "3", *QUICK)
    printed = capsys.readouterr().out
    for text in ("standalone", "FedAvg", "CGSV", "A3", "10 classes", "undefined", "rounds=2"):
        assert text in printed
    assert {run.mechanism for run in Store(tmp_path / "runs").runs()} == {"standalone", "FedAvg", "CGSV"}


def test_every_setting_has_an_option_that_reaches_the_run(tmp_path):
    changes = {
        "model": ("mlp", "mlp"),
        "rounds": ("2", 2),
        "batch_size": ("7", 7),
        "lr": ("0.05", 0.05),
        "gamma": ("0.3", 0.3),
        "epochs": ("1", 1),
        "steps": ("none", None),
        "optimizer": ("Adam", "Adam"),
        "decay": ("0.9", 0.9),
        "samples": ("30", 30),
        "exponent": ("2", 2.0),
        "concentration": ("0.7", 0.7),
        "noise": ("0.1 0.2 0.3", (0.1, 0.2, 0.3)),
        "adversaries": ("noise copier", ("noise", "copier")),
        "alpha": ("0.5", 0.5),
        "beta": ("inf", float("inf")),
        "floor": ("none", None),
        "masks": ("layers", "layers"),
        "q": ("2.5", 2.5),
    }
    preset_itself = {"dataset", "partition", "agents", "title"}
    assert changes.keys() | preset_itself == {f.name for f in fields(Experiment)}
    options = [
        word for name, (text, _) in changes.items() for word in (f"--{name.replace('_', '-')}", *text.split())
    ]
    ok(
        "run",
        "--out",
        tmp_path,
        "--agents",
        "3",
        "--mechanisms",
        "CGSV",
        "--seeds",
        "1",
        "--jobs",
        "1",
        *options,
    )
    (run,) = Store(tmp_path / "runs").runs()
    assert {name: getattr(run.experiment, name) for name in changes} == {
        name: value for name, (_, value) in changes.items()
    }


def test_show_partition_prints_it_and_runs_nothing(tmp_path, capsys):
    ok(
        "run",
        "--show-partition",
        "--partition",
        "NOI",
        "--agents",
        "3",
        "--out",
        tmp_path / "new",
        "--seeds",
        "2",
    )
    printed = capsys.readouterr().out
    assert f"seed {FIRST_SEED}" in printed
    assert f"seed {FIRST_SEED + 1}" in printed
    assert "69.9 %" in printed
    assert not (tmp_path / "new").exists()


SMALL_TABLE = ["--agents", "3", "--partitions", "UNI", "CLA", "--mechanisms", "FedAvg", "CGSV", *QUICK]


@pytest.fixture(scope="module")
def tabled(tmp_path_factory):
    """The folder of a finished small table 2."""
    out = tmp_path_factory.mktemp("tables")
    ok("table", "2", "--out", out, *SMALL_TABLE, "--betas", "1", "N")
    return out


def test_table_writes_markdown_and_csv(tabled):
    text = (tabled / "table-2-digits.md").read_text(encoding="utf-8")
    assert "| mechanism | UNI | CLA |" in text
    assert "| CGSV β=N |" in text
    with (tabled / "table-2-digits.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * (2 + 2)
    assert {row["rho"] for row in rows if row["mechanism"] == "FedAvg"} == {""}


def test_a_finished_table_is_redrawn_without_running(tabled, monkeypatch, capsys):
    monkeypatch.setattr("cgsv_ext.fl.store.run", None)
    before = {path: path.stat().st_mtime_ns for path in (tabled / "runs").rglob("*.safetensors")}
    for number in ("1", "2", "fairness"):
        ok("table", number, "--out", tabled, *SMALL_TABLE, "--betas", "1", "N")
    assert before == {path: path.stat().st_mtime_ns for path in (tabled / "runs").rglob("*.safetensors")}
    printed = capsys.readouterr().out
    assert "runs to do" not in printed
    assert "Theorem 2" in printed


def test_an_interrupted_table_goes_on_where_it_was(tabled, monkeypatch, capsys, tmp_path):
    import cgsv_ext.fl.store as store

    real, calls = store.run, []

    def interrupted(experiment, mechanism, seed, *rest, **options):
        calls.append(mechanism)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return real(experiment, mechanism, seed, *rest, **options)

    command = ["table", "2", "--out", str(tmp_path), *SMALL_TABLE, "--betas", "1", "N"]
    with monkeypatch.context() as patch:
        patch.setattr(store, "run", interrupted)
        assert cli.main(command) == 130
    assert "goes on" in capsys.readouterr().err
    there = len(list((tmp_path / "runs").rglob("*.safetensors")))
    assert 0 < there < 8
    ok(*command)
    assert f"{8 - there} runs to do, {there} found" in capsys.readouterr().out
    name = "table-2-digits.md"
    assert (tmp_path / name).read_text(encoding="utf-8") == (tabled / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "rounds"), [([], [4, 5, 6]), (["--resume"], [4, 5, 6]), (["--no-resume"], [1, 2, 3, 4, 5, 6])]
)
def test_an_unfinished_run_goes_on_or_starts_anew(options, rounds, tmp_path, monkeypatch):
    import cgsv_ext.fl.store as store

    real, seen = store.run, []

    def watched(experiment, mechanism, seed, on_round=None, **options):
        def noting(t, *state):
            if on_round is not None:  # not the run that only warms up
                seen.append(t)
                if stop == t:
                    raise KeyboardInterrupt
                on_round(t, *state)

        return real(experiment, mechanism, seed, noting, **options)

    monkeypatch.setattr(store, "run", watched)
    command = ["run", "--out", str(tmp_path), "--mechanisms", "CGSV", *QUICK, "--rounds", "6"]
    stop = 4
    assert cli.main([*command, "--checkpoint-every", "1"]) == 130
    assert len(list(tmp_path.rglob("*.checkpoint"))) == 1
    stop = None
    seen.clear()
    ok(*command, *options)
    assert seen == rounds
    (path,) = (tmp_path / "runs").rglob("*.*")  # no state is left
    assert path.suffix == ".safetensors"
    ok(*command, "--no-resume")  # finished, it is found
    assert seen == rounds


def test_another_cache_is_another_place(tmp_path):
    ok("run", "--out", tmp_path / "out", "--cache", tmp_path / "cache", "--mechanisms", "FedAvg", *QUICK)
    assert len(list(Store(tmp_path / "cache").runs())) == 1
    assert not (tmp_path / "out" / "runs").exists()


@pytest.mark.parametrize("number", range(2, 8))
def test_figure_writes_a_picture_and_its_numbers(number, tmp_path, capsys):
    ok("figure", number, "--out", tmp_path, *QUICK)
    path = tmp_path / f"figure-{number}-digits.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.with_suffix(".csv").stat().st_size > 0
    assert f"Written to {path} and {path.with_suffix('.csv')}" in capsys.readouterr().out


def test_figure_1_needs_no_runs(tmp_path, capsys):
    ok("figure", "1", "--out", tmp_path, "--trials", "1", "--agents", "3", "4", "--dimensions", "8", "16")
    assert (tmp_path / "figure-1.png").exists()
    assert "--agents 3 4 --dimensions 8 16" in capsys.readouterr().out


@pytest.mark.parametrize("dataset", list(WRITERS))
def test_the_papers_datasets_run_from_their_files(dataset, tmp_path):
    WRITERS[dataset](tmp_path / "data")
    few = ["--rounds", "1", "--epochs", "1", "--samples", "8", "--agents", "3", "--seeds", "1", "--jobs", "1"]
    files = ["--dataset", dataset, "--data", tmp_path / "data", "--out", tmp_path / "out"]
    ok("table", "1", *files, "--partitions", "POW", "--mechanisms", "CGSV", "--betas", "1", "2", *few)
    text = (tmp_path / "out" / f"table-1-{dataset}.md").read_text(encoding="utf-8")
    for cell in ("| mechanism | POW |", "| standalone |", "| CGSV |", "| CGSV β=2 |"):
        assert cell in text
    assert "nan" not in text


def test_a_missing_file_is_named(tmp_path, capsys):
    assert "train-images-idx3-ubyte" in refused(capsys, "run", "--dataset", "mnist", "--data", tmp_path)
    assert "--data DIR" in refused(capsys, "table", "2", "--dataset", "sst")
    assert "--data DIR" in refused(capsys, "figure", "3", "--dataset", "cifar10")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("run --lr -1", "cgsv run: expected lr to be finite and above 0, got -1.0"),
        ("run --noise 0.1 0.2", "one share for each of 5 agents, got 2"),
        ("run --adversaries angel", "among noise, copier"),
        ("run --partition uni", "a partition among UNI, POW"),
        ("run --agents 0", "agents to be an integer of at least 1"),
        ("run --samples 100000", "samples"),
        ("run --partition figure-2 --agents 7", "expected 5 agents for figure-2"),
        ("run --steps 3 --epochs 3", "either steps or epochs"),
        ("run --lr fast", "invalid float value: 'fast'"),
        ("run --mechanisms cgsv", "invalid choice: 'cgsv'"),
        ("run --dataset imagenet", "invalid choice: 'imagenet'"),
        ("run --round 3", "unrecognized arguments: --round"),
        ("table 4", "invalid choice: '4'"),
        ("table 2 --beta 2", "unrecognized arguments: --beta"),
        ("table 2 --betas N M", "numbers, or such as N and 10N; got 'M'"),
        ("table 2 --partitions UNI XYZ", "got 'XYZ'"),
        ("figure 8", "invalid choice: '8'"),
        ("table 2 --mechanisms standalone", "cgsv table: expected a mechanism besides standalone"),
        ("table 3 --mechanisms standalone", "cgsv table: expected a mechanism besides standalone"),
        ("table adversaries --mechanisms standalone", "expected a mechanism besides standalone"),
        ("figure 2 --dataset mr", "got 'figure-2'"),
        ("figure 2 --adversaries noise", "unrecognized arguments: --adversaries noise"),
        ("figure 7 --beta 2", "unrecognized arguments: --beta 2"),
        ("demo --seeds 0", "at least 1, got 0"),
        ("demo --seeds x", "invalid"),
        ("dance", "invalid choice: 'dance'"),
        ("", "required: COMMAND"),
    ],
)
def test_wrong_arguments_explain_themselves(arguments, text, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    error = refused(capsys, *arguments.split())
    assert text in error
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("dataset", "model", "text"),
    [
        ("digits", "text-cnn", "expected a dataset of texts for text-cnn, got digits, one of images"),
        ("mr", "mlp", "expected a dataset of images for mlp, got mr, one of texts"),
        ("mr", "cnn", "expected a dataset of images for cnn, got mr, one of texts"),
    ],
)
def test_a_model_that_does_not_fit_the_dataset_is_one_line(dataset, model, text, tmp_path, capsys):
    if dataset in WRITERS:
        WRITERS[dataset](tmp_path / "data")
    files = ["--dataset", dataset, "--data", tmp_path / "data", "--out", tmp_path / "out"]
    error = refused(capsys, "run", *files, "--model", model, "--samples", "8", "--agents", "3", *QUICK[-4:])
    assert error == f"cgsv run: {text}\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "jobs"), [("", 7), ("--device cuda", 1), ("--device cuda --jobs 3", 3), ("--jobs 2", 2)]
)
def test_all_cores_work_but_a_gpu_is_for_one_run_at_a_time(options, jobs, monkeypatch, tmp_path):
    asked = {}

    def stop(*arguments, **options):
        asked.update(options)
        raise ValueError("seen")

    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(7)))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("cgsv_ext.cli.running.run_all", stop)
    with pytest.raises(SystemExit):
        cli.main(["run", "--out", str(tmp_path), *options.split()])
    assert asked["jobs"] == jobs


def test_no_gpu_is_no_traceback(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "got none" in refused(capsys, "run", "--device", "cuda", "--out", tmp_path / "new")


def test_a_run_that_fails_gives_its_traceback_and_status_1(capsys, monkeypatch, tmp_path):
    def broken(*arguments, **options):
        raise ZeroDivisionError("of all things")

    monkeypatch.setattr("cgsv_ext.fl.store.run", broken)
    with pytest.raises(SystemExit) as stop:
        cli.main(["run", "--out", str(tmp_path), *QUICK])
    assert stop.value.code == 1
    assert "of all things" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        "",
        "demo",
        "env",
        "bench",
        "run",
        "table",
        "report",
        "figure",
        "figure 1",
        *(f"figure {n}" for n in range(2, 8)),
    ],
)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([*command.split(), "--help"])
    assert stop.value.code == 0
    assert f"usage: cgsv {command}".strip() in capsys.readouterr().out


def test_env_prints_versions(capsys):
    ok("env")
    assert "torch" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--help"], ["env"]])
def test_help_and_env_import_nothing_of_the_loop(arguments):
    script = (
        "import sys\nfrom cgsv_ext import cli\n"
        f"try: cli.main({arguments})\nexcept SystemExit: pass\n"
        "heavy = ('cgsv_ext.fl', 'rich', 'sklearn', 'matplotlib', 'jinja2')\n"
        "print([name for name in sys.modules if name.startswith(heavy)])"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"


def test_a_missing_extra_is_named(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cgsv_ext.cli.run", None)
    monkeypatch.setattr("importlib.import_module", _lacks_rich)
    assert cli.main(["run"]) == 1
    assert "cgsv run needs rich: pip install 'cgsv_ext[fl]'" in capsys.readouterr().err


def _lacks_rich(*arguments):
    raise ModuleNotFoundError("No module named 'rich'", name="rich")
