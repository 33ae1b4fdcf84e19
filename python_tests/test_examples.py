"""The examples run as they stand, agree with each other, and survive what they say they survive."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"

# They run in processes of their own, with the installed library.
pytestmark = [
    pytest.mark.cpu_kernels,
    pytest.mark.skipif(not EXAMPLES.is_dir(), reason="needs the examples of the source tree"),
]


def command(name: str, *arguments: Path) -> list[str]:
    return [sys.executable, str(EXAMPLES / name), *map(str, arguments)]


def run(name: str, *arguments: Path) -> list[str]:
    """Lines an example prints."""
    done = subprocess.run(command(name, *arguments), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def table() -> list[str]:
    return run("reward_step.py")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, table: list[str]) -> Path:
    """Folder of a run that was not killed."""
    folder = tmp_path_factory.mktemp("finished")
    assert run("reward_server.py", folder) == table
    return folder


def test_the_shortest_loop_comes_to_the_same(table: list[str]) -> None:
    assert run("training_loop.py") == table


def test_who_has_fewer_wrong_labels_gets_more(table: list[str]) -> None:
    assert table[0].split() == ["agent", "random", "labels", "importance", "accuracy"]
    agents = [line.split() for line in table[1:6]]
    assert [row[0] for row in agents] == ["ann", "bob", "cleo", "dan", "eve"]
    importance = [float(row[2]) for row in agents]
    assert min(importance[:2]) > importance[2] > importance[3] > importance[4]
    accuracy = [float(row[3].rstrip("%")) for row in agents]
    server = float(table[6].split()[1].rstrip("%"))
    assert min(accuracy[:2]) > 70
    assert server == pytest.approx(accuracy[0], abs=1)
    assert accuracy[4] < accuracy[0] - 5


def test_a_server_is_the_same_as_a_loop_of_ones_own(finished: Path) -> None:
    assert sorted(path.name for path in finished.iterdir() if not path.name.startswith(".")) == [
        "models.pt",
        "server.safetensors",
        "server.safetensors.previous",
    ]


def test_a_killed_run_goes_on_to_the_same_bits(finished: Path, table: list[str], tmp_path: Path) -> None:
    killed = next(folder for folder in map(tmp_path.joinpath, "12345") if was_killed_early(folder))
    before = torch.load(killed / "models.pt")[1]
    assert 0 < max(before.values()) < 25

    assert run("reward_server.py", killed) == table
    whole, resumed = (torch.load(folder / "models.pt")[0] for folder in (finished, killed))
    assert whole.keys() == resumed.keys()
    for name, state in whole.items():
        assert_same(resumed[name], state, name)


def was_killed_early(folder: Path) -> bool:
    """Kill a run that has begun its second round; whether it had not ended by then."""
    process = subprocess.Popen(command("reward_server.py", folder), stdout=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not (folder / "server.safetensors.previous").exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    out, _ = process.communicate(timeout=60)
    return (process.returncode, out) == (-signal.SIGKILL, b"")


def assert_same(state: dict[str, torch.Tensor], other: dict[str, torch.Tensor], name: str) -> None:
    assert state.keys() == other.keys()
    assert all(torch.equal(value, other[key]) for key, value in state.items()), name


def applied(folder: Path) -> int:
    rounds = torch.load(folder / "models.pt")[1]
    return int(max(rounds.values()))


def test_rewards_arrive_exactly_once_over_the_wire(finished: Path, table: list[str], tmp_path: Path) -> None:
    lines = run("over_the_wire.py", tmp_path)
    told, found = lines[:-6], lines[-6:]
    assert told == [
        "bob died in round 5, before it kept its reward",
        "cleo died in round 9, before it acknowledged its reward",
        "the server is replaced by what is in its file",
    ]
    assert found == table[:6]
    for name, state in torch.load(finished / "models.pt")[0].items():
        if name != "server":
            assert_same(torch.load(tmp_path / f"{name}.pt")[0], state, name)
