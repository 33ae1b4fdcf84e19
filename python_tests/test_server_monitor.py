"""What is written of rounds: CSV files and TensorBoard."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path

import pytest
import torch

from cgsv_ext.server import RewardServer, Round, monitor

pytestmark = pytest.mark.cpu_kernels  # about records, not about the ops

SIZE = 50
RECORD = Round(
    round=7,
    agents=("a", 3),
    importance=(0.5, 0.25),
    cosines=(0.1, -0.3),
    quotas=(50, 20),
    norms=(1.5, 1e-30),
    valid=(True, False),
    share=0.75,
    refused=2,
    seconds=0.125,
)


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def play(server: RewardServer, agents: str = "abc") -> Round:
    for agent in agents:
        server.upload(agent, torch.randn(SIZE))
    return server.step()


@pytest.fixture
def server() -> RewardServer:
    torch.manual_seed(0)
    server = RewardServer(SIZE)
    for agent in "abc":
        server.join(agent)
    return server


# CSV


def test_a_row_an_agent_and_round_under_one_header(server: RewardServer, tmp_path: Path) -> None:
    path = tmp_path / "rounds.csv"
    server.on_round(monitor.csv_writer(path))
    records = [play(server), play(server, "bc")]
    assert path.read_text().splitlines()[0] == (
        "round,agent,importance,cosine,quota,norm,valid,share,refused,seconds"
    )
    found = rows(path)
    assert [(row["round"], row["agent"]) for row in found] == [
        ("1", "a"), ("1", "b"), ("1", "c"), ("2", "b"), ("2", "c"),
    ]  # fmt: skip
    # Every number comes back to the bit.
    i = 0
    for record in records:
        for own in zip(
            record.importance, record.cosines, record.quotas, record.norms, record.valid, strict=True
        ):
            row = found[i]
            numbers = [float(row[c]) for c in ("importance", "cosine", "quota", "norm", "valid")]
            assert numbers == [float(value) for value in own]
            assert float(row["share"]) == record.share
            assert int(row["refused"]) == record.refused
            assert float(row["seconds"]) == record.seconds
            i += 1


def test_columns_hold_what_they_are_named_after(tmp_path: Path) -> None:
    monitor.csv_writer(tmp_path / "rounds.csv")(RECORD)
    assert (tmp_path / "rounds.csv").read_text() == (
        "round,agent,importance,cosine,quota,norm,valid,share,refused,seconds\n"
        "7,a,0.5,0.1,50,1.5,1,0.75,2,0.125\n"
        "7,3,0.25,-0.3,20,1e-30,0,0.75,2,0.125\n"
    )


def test_a_resumed_run_goes_on_below(server: RewardServer, tmp_path: Path) -> None:
    path = tmp_path / "rounds.csv"
    server.on_round(monitor.csv_writer(path))
    play(server)
    resumed = RewardServer(SIZE)
    resumed.load_state_dict(server.state_dict())
    resumed.on_round(monitor.csv_writer(path))
    play(resumed)
    assert [row["round"] for row in rows(path)] == ["1"] * 3 + ["2"] * 3


def test_a_file_with_other_columns_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text("round,agent,loss\n1,a,0.5\n")
    with pytest.raises(
        ValueError, match=r"csv_writer\(\): expected .*other\.csv to begin with round,agent,imp"
    ):
        monitor.csv_writer(path)
    assert path.read_text() == "round,agent,loss\n1,a,0.5\n"


def test_a_missing_folder_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        monitor.csv_writer(tmp_path / "missing" / "rounds.csv")


def test_a_row_cut_short_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "rounds.csv"
    write = monitor.csv_writer(path)
    write(RECORD)
    path.write_bytes(path.read_bytes()[:-20])
    write(RECORD)
    assert [row["agent"] for row in rows(path)] == ["a", "3", "a", "3"]
    assert list(rows(path)[-1].values()) == [
        "7",
        "3",
        "0.25",
        "-0.3",
        "20",
        "1e-30",
        "0",
        "0.75",
        "2",
        "0.125",
    ]


def test_a_file_taken_away_begins_anew_with_a_header(tmp_path: Path) -> None:
    path = tmp_path / "rounds.csv"
    write = monitor.csv_writer(path)
    write(RECORD)
    path.rename(tmp_path / "rounds.1.csv")
    write(RECORD)
    assert path.read_text() == (tmp_path / "rounds.1.csv").read_text()


def test_any_name_of_an_agent_comes_back(tmp_path: Path) -> None:
    names = ('Zoë, "the" agent', "two\nlines", "", " ")
    record = RECORD._replace(
        agents=names,
        **dict.fromkeys(("importance", "cosines", "quotas", "norms", "valid"), (0.5,) * 4),
    )
    monitor.csv_writer(tmp_path / "rounds.csv")(record)
    assert tuple(row["agent"] for row in rows(tmp_path / "rounds.csv")) == names


def test_a_full_disk_does_not_stop_the_round(
    server: RewardServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    server.on_round(monitor.csv_writer(folder / "rounds.csv"))
    (folder / "rounds.csv").unlink()
    folder.rmdir()
    with caplog.at_level(logging.ERROR, "cgsv_ext.server"):
        assert play(server).round == server.round == 1
    assert "failed in round 1" in caplog.text


def test_a_record_is_a_line_of_json(server: RewardServer) -> None:
    record = play(server)
    assert Round(**json.loads(json.dumps(record._asdict()))) == Round(
        *(list(value) if isinstance(value, tuple) else value for value in record)
    )


# TensorBoard


class Writer:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.scalars: list[tuple[str, float, int]] = []

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        self.scalars.append((tag, scalar_value, global_step))


def test_tensorboard_gets_a_curve_an_agent_and_quantity() -> None:
    writer = Writer()
    monitor.tensorboard(writer)(RECORD)
    assert sorted(writer.scalars) == [
        ("cosine/3", -0.3, 7),
        ("cosine/a", 0.1, 7),
        ("importance/3", 0.25, 7),
        ("importance/a", 0.5, 7),
        ("norm/3", 1e-30, 7),
        ("norm/a", 1.5, 7),
        ("quota/3", 20, 7),
        ("quota/a", 50, 7),
        ("round/agents", 2, 7),
        ("round/refused", 2, 7),
        ("round/seconds", 0.125, 7),
        ("round/share", 0.75, 7),
    ]


def test_tensorboard_itself_takes_them(server: RewardServer, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(tmp_path) as writer:
        server.on_round(monitor.tensorboard(writer))
        records = [play(server), play(server)]
    events = EventAccumulator(str(tmp_path)).Reload()
    for i, agent in enumerate("abc"):
        found = [(event.step, event.value) for event in events.Scalars(f"importance/{agent}")]
        assert found == [(record.round, pytest.approx(record.importance[i])) for record in records]
