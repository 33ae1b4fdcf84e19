"""The example's app in Flower: in this process, and as a SuperLink and SuperNodes of which one is killed."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from torch import Tensor

import cgsv_ext
from cgsv_ext import RewardServer, _files

pytest.importorskip("flwr", reason="needs Flower")

import tomli
from flower_processes import Federation
from flwr.app import Context, Message, RecordDict
from in_process_grid import InProcessGrid

from cgsv_ext.fl import rho
from cgsv_ext.flower.agent import AgentState

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "flower"
FLOWER = tuple(map(int, version("flwr").split(".")[:2]))
AGENTS = "0", "1", "2", "3"
ROUNDS = 7
KILLED = 3
"""The round in which agent 1 is."""

# They run in processes of their own, with the installed library.
pytestmark = [
    pytest.mark.cpu_kernels,
    pytest.mark.skipif(not EXAMPLE.is_dir(), reason="needs the examples of the source tree"),
]


@pytest.fixture(autouse=True, scope="module")
def _example() -> Iterator[None]:
    """The example can be imported; what it sets, the number of threads, is undone."""
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLE))
        yield
    torch.set_num_threads(before)


def configuration(**changes: float) -> dict:
    project = tomli.loads((EXAMPLE / "pyproject.toml").read_text(encoding="utf-8"))
    return project["tool"]["flwr"]["app"]["config"] | changes


class Absent(InProcessGrid):
    """A grid in which agent 1 does not answer in some rounds."""

    away: Collection[int] = ()

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        messages = list(messages)
        rounds = {message.content["config"]["server-round"] for message in messages}
        self.down = {self.node("1")} if rounds & set(self.away) else set()
        return super().send_and_receive(messages, timeout=timeout)


def run_in_this_process(
    folder: Path, monkeypatch: pytest.MonkeyPatch, away: Collection[int] = (), **changes: float
) -> None:
    """Play the example's rounds; what it keeps is below the folder."""
    monkeypatch.chdir(folder)
    from fair_digits import client_app, server_app

    def client(message: Message, context: Context) -> Message:
        context.node_config["partition-id"] = int(context.node_config["agent"])
        return client_app.app(message, context)

    grid = Absent(client, AGENTS)
    grid.away = away
    server_app.app(grid, Context(7, 1, {}, RecordDict(), configuration(**changes)))


def saved_server(folder: Path) -> RewardServer:
    """What a run's server was at the end, from its file."""
    from fair_digits.task import new_model

    config = configuration()
    server = RewardServer(new_model(), gamma=config["gamma"], beta=config["beta"])
    server.load(folder / "state" / "server.safetensors")
    return server


def test_the_example_rewards_agents_by_the_quality_of_their_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_in_this_process(tmp_path, monkeypatch)
    header, *table, last = capsys.readouterr().out.splitlines()[-6:]
    assert header.split() == ["agent", "wrong", "labels", "importance", "accuracy", "alone"]
    columns = zip(*(line.replace("%", "").split() for line in table), strict=True)
    _, _, importance, accuracy, alone = (list(map(float, column)) for column in columns)
    assert min(importance[:2]) > importance[2] > importance[3]
    assert all(together > before for together, before in zip(accuracy, alone, strict=True))
    assert last.startswith("after 20 rounds; fairness rho = ")
    assert float(last.split()[-1]) > 80


def trained_alone(agent: int) -> float:
    """The accuracy of an agent that learns from its own data only."""
    from fair_digits.task import accuracy, new_model, train

    config, model = configuration(), new_model()
    for t in range(ROUNDS):
        train(model, agent, t + 1, epochs=config["epochs"], batch_size=config["batch-size"], lr=config["lr"])
    return accuracy(model)


def run_and_kill(folder: Path) -> int:
    """Play some rounds in processes; agent 1 is killed in one of them, and started again after it.

    Returns the last round that is in its file when it is killed.
    """
    app = shutil.copytree(EXAMPLE, folder / "app", ignore=shutil.ignore_patterns("state", "__pycache__"))
    shutil.copy(Path(__file__).with_name("recorded_app.py"), app / "fair_digits")
    project = app / "pyproject.toml"
    project.write_text(project.read_text(encoding="utf-8").replace("server_app:app", "recorded_app:app"))

    own, state = folder / "node-1" / "state" / "1.safetensors", folder / "superlink" / "state"
    with Federation(folder, limit=600) as federation:
        federation.start_link()
        for agent in AGENTS:
            federation.start_node(f"node-{agent}", f"partition-id={agent}")
        federation.wait_for(lambda: federation.logs("").count("SuperNode ID") == len(AGENTS))
        run = federation.start_run(app, rounds=ROUNDS, timeout=120.0, **{"fraction-evaluate": 0.0})
        federation.wait_for((state / f"round-{KILLED - 1}").exists)
        before = own.stat().st_mtime_ns
        federation.wait_for(lambda: own.stat().st_mtime_ns != before, pause=0.002)
        federation.kill("node-1")  # it has kept the reward of the round before, and the server does not know
        kept = AgentState.load(own).round
        federation.wait_for((state / f"round-{KILLED}").exists)
        federation.start_node("node-1", "partition-id=1")
        federation.wait_for(lambda: run.poll() is not None)
        assert (state / f"round-{ROUNDS}").exists(), federation.logs("the run failed")
    return kept


class Killed:
    """What is left of it."""

    def __init__(self, folder: Path, kept: int) -> None:
        self.home, self.kept = folder / "superlink", kept
        self.agents = {
            agent: AgentState.load(folder / f"node-{agent}" / "state" / f"{agent}.safetensors")
            for agent in AGENTS
        }
        self.played: dict[int, dict[str, Tensor]] = {}
        """Of each round who took part, and its reward, as recorded before anybody was told."""
        for t in range(1, ROUNDS + 1):
            names, quotas, _, aggregate = _files.read(self.home / "state" / f"round-{t}")
            rewards = cgsv_ext.download(aggregate, cgsv_ext.select(aggregate, torch.tensor(quotas)))
            self.played[t] = dict(zip(names, rewards.double(), strict=True))

        self.away = [t for t, rewards in self.played.items() if "1" not in rewards]

    def earned(self, agent: str, until: int) -> Tensor:
        """w_0 and all rewards of an agent up to a round."""
        from fair_digits.task import new_model

        initial = torch.cat([each.detach().reshape(-1).double() for each in new_model().parameters()])
        return initial + sum(
            rewards[agent] for t, rewards in self.played.items() if t <= until and agent in rewards
        )


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Killed:
    folder = tmp_path_factory.mktemp("killed")
    return Killed(folder, run_and_kill(folder))


@pytest.mark.processes
@pytest.mark.skipif(FLOWER < (1, 41), reason="needs the commands of Flower 1.41")
class TestAKilledSuperNode:
    def test_the_others_go_on_without_it(self, killed: Killed) -> None:
        assert killed.kept == KILLED - 1
        assert killed.away[0] == KILLED
        assert len(killed.away) < ROUNDS - KILLED
        assert "1" in killed.played[ROUNDS]
        for agent in "0", "2", "3":
            assert all(agent in rewards for rewards in killed.played.values())

    @pytest.mark.parametrize("agent", AGENTS)
    def test_every_reward_is_in_the_parameters_once(self, killed: Killed, agent: str) -> None:
        state = killed.agents[agent]
        own = torch.cat([value.reshape(-1) for value in state.template.parts(state.values())])
        expected = killed.earned(agent, until=state.round)
        torch.testing.assert_close(own.double(), expected, rtol=0, atol=1e-5)
        largest = [rewards[agent].abs().max() for rewards in killed.played.values() if agent in rewards]
        assert min(largest) > 100 * 1e-5  # one too many or too few would show

    @pytest.mark.parametrize("agent", AGENTS)
    def test_what_is_not_in_the_parameters_is_still_owed(self, killed: Killed, agent: str) -> None:
        state, server = killed.agents[agent], saved_server(killed.home)
        server.acknowledge(agent, state.round)
        took_part = [t for t, rewards in killed.played.items() if agent in rewards]
        assert server.pending(agent) == tuple(t for t in took_part if t > state.round)
        whole = killed.earned(agent, until=state.round) + server.download(agent).flat
        torch.testing.assert_close(whole, killed.earned(agent, until=ROUNDS), rtol=0, atol=1e-5)

    def test_it_comes_to_what_it_would_have_come_to_in_one_process(
        self, killed: Killed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from fair_digits.task import accuracy, new_model

        def accuracies(server: RewardServer, states: dict[str, AgentState]) -> list[float]:
            found = []
            for agent, state in states.items():
                server.acknowledge(agent, state.round)
                model = new_model()
                model.load_state_dict(state.values())
                server.download(agent, into=model)
                found.append(accuracy(model))
            return found

        run_in_this_process(tmp_path, monkeypatch, away=killed.away, rounds=ROUNDS)
        server, other = saved_server(killed.home), saved_server(tmp_path)
        others = {agent: AgentState.load(tmp_path / "state" / f"{agent}.safetensors") for agent in AGENTS}
        assert server.importance == pytest.approx(other.importance, abs=1e-6)
        found, expected = accuracies(server, killed.agents), accuracies(other, others)
        assert found == pytest.approx(expected, abs=0.003)  # one of 360 images
        alone = [trained_alone(int(agent)) for agent in AGENTS]
        assert rho(alone, found) == pytest.approx(rho(alone, expected), abs=15)
