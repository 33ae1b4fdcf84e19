"""A federation whose processes are killed ends with the bits of one that is left alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cgsv_ext import RewardServer, _files


def same(a, b):
    """Types, values, and bits of tensors."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.numpy().tobytes() == b.numpy().tobytes() and a.shape == b.shape
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def killed(folder, rounds, kills, seed):
    """Run a federation whole, and again with processes killed; how often they were, by what was killed."""
    call = {"folder": str(folder), "rounds": rounds, "kills": kills, "seed": seed}
    command = [sys.executable, Path(__file__).parent / "killed_server.py", json.dumps(call)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    whole = _files.read(folder / "whole" / "result")
    assert len({tuple(each["0.weight"].flatten().tolist()) for each in whole["agents"].values()}) == 5
    for name in counts:
        assert same(whole, _files.read(folder / name / "result")), name
    return counts


def test_killed_and_resumed(tmp_path):
    """Server and agents together, the server alone, an agent alone."""
    assert killed(tmp_path, 100, 5, seed=0) == {"all_of_it": 5, "the_server": 5, "an_agent": 5}


# The file is not what it was


def played(path, rounds, server=None):
    """A server with a few rounds behind it, rewards of which nobody has acknowledged."""
    server = server or RewardServer(40, path=path)
    for name in ("a", "b") if not server.agents else ():
        server.join(name)
    for t in range(server.round + 1, server.round + 1 + rounds):
        for i, name in enumerate(server.agents):
            server.upload(name, torch.arange(40.0) % (2 + i + t))
        server.step()
    return server


DAMAGES = {
    "truncated": lambda content: content[:-1],
    "empty": lambda content: b"",
    "one bit": lambda content: content[:-9] + bytes([content[-9] ^ 4]) + content[-8:],
}


@pytest.mark.parametrize("how", [*DAMAGES, "missing"])
def test_where_the_latest_file_is_damaged_the_previous_one_is_used_and_said(how, tmp_path, caplog):
    path = tmp_path / "server"
    before, after = played(tmp_path / "other", 2), played(path, 3)
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(DAMAGES[how](path.read_bytes()))
    server = RewardServer(40, path=path)
    with caplog.at_level("WARNING", "cgsv_ext.server"):
        server.load()
    (warning,) = caplog.messages
    assert warning.startswith(f"{path}: not ")
    assert warning.endswith("; server.previous is used")
    assert server.importance == before.importance != after.importance
    assert server.pending("a") == (1, 2)
    assert torch.equal(server.download("a").flat, before.download("a").flat)
    assert server.round == 3  # lost, and not played again: agents may have its rewards
    server.acknowledge("a", 3)
    server.acknowledge("b", 3)
    assert played(path, 1, server).round == 4
    again = RewardServer(40, path=path)
    again.load()
    assert again.round == 4
    assert again.importance == server.importance


@pytest.mark.parametrize("left", [".server.tmp", ".server.previous.tmp"])
def test_what_a_killed_save_leaves_is_of_no_account(left, tmp_path, caplog):
    path = tmp_path / "server"
    before = played(path, 3)
    (tmp_path / left).write_bytes(path.read_bytes()[:-50])
    server = RewardServer(40, path=path)
    server.load()
    assert not caplog.messages
    assert same(server.state_dict(), before.state_dict())
    played(path, 1, server)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["server", "server.previous"]


def test_where_both_files_are_damaged_the_server_stays_as_it_was(tmp_path):
    path = tmp_path / "server"
    server = played(path, 3)
    state = server.state_dict()
    path.write_bytes(b"")
    with path.with_name("server.previous").open("ab") as file:
        file.write(b"more")
    with pytest.raises(ValueError, match=r"server: not a whole file.*; .*server\.previous: not a whole file"):
        server.load()
    assert same(server.state_dict(), state)


@pytest.mark.stress
def test_killed_fifty_times_and_resumed(tmp_path):
    assert killed(tmp_path, 250, 50, seed=1) == {"all_of_it": 50, "the_server": 50, "an_agent": 50}
