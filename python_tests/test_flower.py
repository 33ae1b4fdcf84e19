"""The Flower strategy and mod, over a grid of calls in this process: as the plain loop, whatever fails."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("flwr.serverapp.strategy", reason="needs Flower: pip install flwr")

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import message_size_mod
from hypothesis import given, settings
from hypothesis import strategies as st
from in_process_grid import InProcessGrid
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

import cgsv_ext
from cgsv_ext.flower import GradientRewardStrategy, RewardMod
from cgsv_ext.flower.agent import UNTOLD, AgentState
from cgsv_ext.flower.mod import file_name, node_name
from cgsv_ext.flower.records import STATE, UPDATE, ToAgent

AGENTS = ("ann", "bob", "cleo")
SETTINGS = {"gamma": 0.5, "beta": 0.5}


def new_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def learn(model: nn.Module, agent: str, t: int) -> None:
    """One step of gradient descent on data that only agent and round decide."""
    generator = torch.Generator().manual_seed(100 * t + AGENTS.index(agent))
    points = torch.randn(16, 6, generator=generator)
    wrong = torch.randn(16, 3, generator=generator) * AGENTS.index(agent)
    ((model(points) - points[:, :3] - wrong) ** 2).mean().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.1 * parameter.grad


def new_app(folder: Path, model: Callable[[], nn.Module] = new_model) -> ClientApp:
    """An app as for FedAvg."""
    app, mod = ClientApp(), RewardMod(folder / "agents")
    mods = [message_size_mod, mod, message_size_mod]

    def own(message: Message) -> nn.Module:
        assert set(message.content) == {"arrays", "config"}  # as for FedAvg
        found = model()
        found.load_state_dict(message.content["arrays"].to_torch_state_dict())
        return found

    @app.train(mods=mods)
    def train(message: Message, context: object) -> Message:
        local = own(message)
        learn(local, context.node_config["agent"], message.content["config"]["server-round"])
        content = {"arrays": ArrayRecord(local.state_dict()), "metrics": MetricRecord({"loss": 0.5})}
        return Message(RecordDict(content), reply_to=message)

    @app.evaluate(mods=mods)
    def evaluate(message: Message, context: object) -> Message:
        total = parameters_to_vector(own(message).parameters()).double().sum().item()
        return Message(RecordDict({"metrics": MetricRecord({"sum": total})}), reply_to=message)

    return app


def new_server(folder: Path, **options: object) -> cgsv_ext.RewardServer:
    return cgsv_ext.RewardServer(
        new_model(), **{"path": folder / "server.safetensors", **SETTINGS, **options}
    )


def initial() -> ArrayRecord:
    return ArrayRecord(new_model().state_dict())


def kept(folder: Path, agent: str) -> AgentState:
    return AgentState.load(folder / "agents" / f"{agent}.safetensors")


def parameters(folder: Path, agent: str) -> Tensor:
    return torch.cat([value.reshape(-1) for value in kept(folder, agent).values().values()])


@pytest.fixture
def flower(tmp_path: Path) -> tuple[GradientRewardStrategy, InProcessGrid]:
    return GradientRewardStrategy(new_server(tmp_path)), InProcessGrid(new_app(tmp_path), AGENTS)


# As the loop


@pytest.mark.parametrize("fraction_evaluate", [1.0, 0.0])
def test_rounds_over_flower_are_those_of_the_plain_loop_to_the_bit(
    tmp_path: Path, fraction_evaluate: float
) -> None:
    strategy = GradientRewardStrategy(new_server(tmp_path), fraction_evaluate=fraction_evaluate)
    result = strategy.start(InProcessGrid(new_app(tmp_path), AGENTS), initial(), num_rounds=4)

    models = {agent: new_model() for agent in AGENTS}
    importance = torch.zeros(len(AGENTS), dtype=torch.float64)
    own = parameters_to_vector(new_model().parameters()).detach()
    for t in range(1, 5):
        updates = []
        for agent, model in models.items():
            local = new_model()
            local.load_state_dict(model.state_dict())
            learn(local, agent, t)
            updates.append(
                parameters_to_vector(local.parameters()) - parameters_to_vector(model.parameters())
            )
        step = cgsv_ext.reward_step(torch.stack(updates).detach(), importance, alpha=0.95, **SETTINGS)
        importance, own = step.importance, own + step.aggregate
        last = {agent: parameters_to_vector(model.parameters()).detach() for agent, model in models.items()}
        for i, model in enumerate(models.values()):
            cgsv_ext.Template(model).add_(model, step.rewards[i])

    assert [strategy.server.importance[agent] for agent in AGENTS] == importance.tolist()
    arrays = torch.cat([value.reshape(-1) for value in result.arrays.to_torch_state_dict().values()])
    assert torch.equal(arrays, own)
    for agent, model in models.items():
        now = parameters_to_vector(model.parameters()).detach()
        if fraction_evaluate:  # the messages to evaluate brought the last rewards
            assert strategy.server.pending(agent) == ()
            assert torch.equal(parameters(tmp_path, agent), now)
            metrics = result.evaluate_metrics_clientapp[4]
            assert metrics[f"{agent}/sum"] == now.double().sum().item()
        else:
            assert strategy.server.pending(agent) == (4,)
            assert torch.equal(parameters(tmp_path, agent), last[agent])


def test_a_round_tells_of_each_agent(flower: tuple[GradientRewardStrategy, InProcessGrid]) -> None:
    strategy, grid = flower
    records: list[cgsv_ext.server.Round] = []
    strategy.server.on_round(records.append)
    found = strategy.start(grid, initial(), num_rounds=1).train_metrics_clientapp[1]
    (record,) = records
    assert record.agents == AGENTS
    for i, agent in enumerate(AGENTS):
        assert found[f"{agent}/loss"] == 0.5
        assert found[f"{agent}/importance"] == record.importance[i]
        assert found[f"{agent}/cosine"] == record.cosines[i]
        assert found[f"{agent}/quota"] == record.quotas[i]
        assert found[f"{agent}/norm"] == record.norms[i]
    assert (found["round"], found["share"], found["refused"]) == (1, 1.0, 0)


def test_each_message_holds_its_agents_own_reward_and_nobody_gets_the_model_again(
    flower: tuple[GradientRewardStrategy, InProcessGrid],
) -> None:
    strategy, grid = flower
    strategy.start(grid, initial(), num_rounds=3)
    first, later = grid.sent[: len(AGENTS)], grid.sent[len(AGENTS) :]
    assert all("arrays" in message.content for message in first)
    assert not any("arrays" in message.content for message in later)
    rewarded = [message for message in later if "cgsv.reward" in message.content]
    assert len(rewarded) == 3 * len(AGENTS)
    assert {message.metadata.message_type for message in rewarded} == {"evaluate"}
    sizes = {len(message.content["cgsv.reward"]["message"].data) for message in rewarded[: len(AGENTS)]}
    assert len(sizes) > 1


def test_rewards_can_be_sent_in_half_the_bytes(tmp_path: Path) -> None:
    strategy = GradientRewardStrategy(new_server(tmp_path), dtype=torch.bfloat16)
    strategy.start(InProcessGrid(new_app(tmp_path), AGENTS), initial(), num_rounds=2)
    began = torch.cat([value.reshape(-1) for value in initial().to_torch_state_dict().values()])
    for agent in AGENTS:
        state = kept(tmp_path, agent)
        assert state.round == 2
        added = state._reward.flat
        assert added.any()
        assert torch.equal(added.bfloat16().float(), added)
        assert not torch.equal(parameters(tmp_path, agent), began)


def test_what_is_not_rewarded_stays_the_agents_own(tmp_path: Path) -> None:
    def normed() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3))

    server = cgsv_ext.RewardServer(normed(), **SETTINGS)
    strategy = GradientRewardStrategy(server)
    app = new_app(tmp_path, normed)
    result = strategy.start(InProcessGrid(app, AGENTS), ArrayRecord(normed().state_dict()), num_rounds=3)
    means = [kept(tmp_path, agent).values()["1.running_mean"] for agent in AGENTS]
    assert not torch.equal(means[0], means[1])
    assert all(kept(tmp_path, agent).values()["1.num_batches_tracked"] == 3 for agent in AGENTS)
    assert not result.arrays.to_torch_state_dict()["1.running_mean"].any()


def test_the_code_on_the_page_about_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(__file__).resolve().parents[1] / "docs" / "flower.md"
    if not page.exists():
        pytest.skip("needs the whole source tree")
    on_server, on_agents = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names = {"new_model": new_model, "learn": lambda model: learn(model, "ann", 1) or 0.5}
    exec(on_agents, names)
    grid = InProcessGrid(names["app"], AGENTS)
    exec(on_server, names)
    names["main"](grid, None)
    for agent in AGENTS:
        assert kept(tmp_path, agent).round == 9  # nothing evaluates on that page, so the last one waits
    training = [message for message in grid.sent if message.metadata.message_type == "train"]
    assert len(training) == 10 * len(AGENTS)  # and no roll call because of that


@pytest.mark.parametrize(("fraction", "count"), [(0.0, 0), (0.1, 1), (0.7, 2), (1.0, 3)])
def test_a_part_of_the_nodes_may_be_sampled(tmp_path: Path, fraction: float, count: int) -> None:
    parts = {"fraction_train": fraction, "fraction_evaluate": fraction}
    strategy = GradientRewardStrategy(new_server(tmp_path), **parts)
    grid = InProcessGrid(new_app(tmp_path), AGENTS)
    result = strategy.start(grid, initial(), num_rounds=1)
    kinds = [message.metadata.message_type for message in grid.sent]
    assert kinds.count("train") == count
    assert kinds.count("evaluate") == int(fraction and max(1, count * fraction))
    assert strategy.server.round == (count > 0)
    assert len(result.train_metrics_clientapp.get(1, ())) == (4 + 5 * count if count else 0)


def test_rounds_wait_for_enough_nodes_and_sample_of_those(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strategy = GradientRewardStrategy(new_server(tmp_path), min_available_nodes=3)
    grid = InProcessGrid(new_app(tmp_path), ())
    late = iter(AGENTS)
    monkeypatch.setattr("flwr.serverapp.strategy.strategy_utils.sleep", lambda _: grid.connect(next(late)))
    strategy.start(grid, initial(), num_rounds=1)
    assert strategy.server.agents == AGENTS


def test_records_may_have_other_names(tmp_path: Path) -> None:
    app = ClientApp()

    @app.train(mods=[RewardMod(tmp_path, arrayrecord_key="weights")])
    def train(message: Message, context: object) -> Message:
        assert set(message.content) == {"weights", "settings"}
        assert message.content["settings"]["server-round"] == 1
        return Message(RecordDict({"weights": message.content["weights"]}), reply_to=message)

    keys = {"arrayrecord_key": "weights", "configrecord_key": "settings", "fraction_evaluate": 0.0}
    strategy = GradientRewardStrategy(cgsv_ext.RewardServer(new_model()), **keys)
    strategy.start(grid := InProcessGrid(app, AGENTS), initial(), num_rounds=1)
    assert strategy.server.round == 1
    assert [set(reply.content) for reply in grid.replies] == [{STATE, UPDATE}] * len(AGENTS)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_models_of_other_dtypes(tmp_path: Path, dtype: torch.dtype) -> None:
    app = ClientApp()

    @app.train(mods=[RewardMod(tmp_path)])
    def train(message: Message, context: object) -> Message:
        arrays = message.content["arrays"].to_torch_state_dict()
        assert all(value.dtype == dtype for value in arrays.values())
        trained = {name: value + 2.0 ** -len(context.node_config["agent"]) for name, value in arrays.items()}
        return Message(RecordDict({"arrays": ArrayRecord(trained)}), reply_to=message)

    model = new_model().to(dtype)
    strategy = GradientRewardStrategy(cgsv_ext.RewardServer(model), fraction_evaluate=0.0)
    result = strategy.start(InProcessGrid(app, AGENTS), ArrayRecord(model.state_dict()), num_rounds=2)
    assert strategy.server.round == 2
    assert all(value.dtype == dtype for value in result.arrays.to_torch_state_dict().values())
    size = strategy.server.template.size
    expected = [2.0 ** -len(agent) * size**0.5 for agent in AGENTS]
    found = [result.train_metrics_clientapp[1][f"{agent}/norm"] for agent in AGENTS]
    assert found == pytest.approx(expected, rel=0.05)  # half precision rounds where it is added


class Tied(nn.Module):
    """As language models are: the first layer's weights are the last one's."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__()
        self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 6)
        self.last.weight = self.first.weight

    def forward(self, points: Tensor) -> Tensor:
        return self.last(self.first(points))[:, :3]


def test_tied_parameters_are_rewarded_under_all_their_names(tmp_path: Path) -> None:
    server = cgsv_ext.RewardServer(Tied(), **SETTINGS)
    assert server.template.ties == {"last.weight": "first.weight"}
    strategy = GradientRewardStrategy(server)
    grid = InProcessGrid(new_app(tmp_path, Tied), AGENTS)
    result = strategy.start(grid, ArrayRecord(Tied().state_dict()), num_rounds=3)

    models, importance = {agent: Tied() for agent in AGENTS}, torch.zeros(len(AGENTS), dtype=torch.float64)
    for t in range(1, 4):
        updates = []
        for agent, model in models.items():
            local = Tied()
            local.load_state_dict(model.state_dict())
            learn(local, agent, t)
            pair = (parameters_to_vector(each.parameters()).detach() for each in (local, model))
            updates.append(torch.sub(*pair))
        step = cgsv_ext.reward_step(torch.stack(updates), importance, **SETTINGS)
        importance = step.importance
        for i, model in enumerate(models.values()):
            cgsv_ext.Template(model).add_(model, step.rewards[i])
    for agent, model in models.items():
        values = kept(tmp_path, agent).values()
        assert all(torch.equal(values[name], value) for name, value in model.state_dict().items())
        assert values.keys() == model.state_dict().keys()
    arrays = result.arrays.to_torch_state_dict()
    assert torch.equal(arrays["first.weight"], arrays["last.weight"])


# What fails


class Paid:
    """What a server has decided that its agents get, round by round."""

    def __init__(self) -> None:
        self.rewards: dict[tuple[str, int], Tensor] = {}

    def watch(self, server: cgsv_ext.RewardServer) -> cgsv_ext.RewardServer:
        def note(record: cgsv_ext.server.Round) -> None:
            for agent, quota in zip(record.agents, record.quotas, strict=True):
                if quota:
                    reward = server._ledger.reward(agent, record.round)
                    self.rewards.setdefault((agent, record.round), reward)

        server.on_round(note)
        return server

    def to(self, agent: str) -> Tensor:
        total = parameters_to_vector(new_model().parameters()).detach().double()
        for (who, _), reward in self.rewards.items():
            if who == agent:
                total = total + reward
        return total


FAULTS = st.lists(
    st.fixed_dictionaries(
        {
            "down": st.sets(st.sampled_from(AGENTS)),
            "deaf": st.sets(st.sampled_from(AGENTS)),
            "late": st.sets(st.sampled_from(AGENTS)),
            "twice": st.sets(st.sampled_from(AGENTS)),
            "restarted": st.sets(st.sampled_from(AGENTS)),
            "server restarts": st.booleans(),
            "evaluate": st.sampled_from([0.0, 0.5, 1.0]),
            "train": st.sampled_from([0.4, 1.0]),
        }
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=12)
@given(FAULTS)
def test_whatever_fails_each_reward_arrives_once(rounds: list[dict[str, object]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, paid = Path(name), Paid()
        grid = InProcessGrid(new_app(folder), AGENTS)
        strategy = GradientRewardStrategy(paid.watch(new_server(folder)))
        for faults in [*rounds, *[None] * 3]:
            grid.down = grid.deaf = grid.late = grid.twice = set()
            if faults is not None:
                for agent in faults["restarted"]:
                    grid.restart(agent)
                for how in ("down", "deaf", "late", "twice"):
                    setattr(grid, how, {grid.node(agent) for agent in faults[how]})
                if faults["server restarts"]:
                    strategy = GradientRewardStrategy(paid.watch(new_server(folder)))
            # The last rounds evaluate, so that everything arrives.
            strategy.fraction_evaluate = 1.0 if faults is None else faults["evaluate"]
            strategy.fraction_train = 1.0 if faults is None else faults["train"]
            strategy.start(grid, initial(), num_rounds=1)
        assert strategy.server.agents
        for agent in AGENTS:
            assert strategy.server.pending(agent) == ()
            assert torch.allclose(parameters(folder, agent).double(), paid.to(agent), rtol=0, atol=1e-5)


def test_who_kept_its_reward_takes_part_again_though_the_next_message_is_lost(
    flower: tuple[GradientRewardStrategy, InProcessGrid],
) -> None:
    strategy, grid = flower
    strategy.fraction_evaluate = 0.0
    strategy.start(grid, initial(), num_rounds=1)
    node = grid.node("bob")
    grid.deaf = {node}
    strategy.start(grid, initial(), num_rounds=1)
    grid.deaf, grid.down = set(), {node}
    strategy.start(grid, initial(), num_rounds=1)
    grid.restart("bob")  # it has all it is owed, and says so before it is sent anything
    result = strategy.start(grid, initial(), num_rounds=1)
    assert result.train_metrics_clientapp[1]["bob/norm"] > 0


def test_a_server_that_lost_a_round_pays_nobody_twice(tmp_path: Path) -> None:
    grid, paid = InProcessGrid(new_app(tmp_path), AGENTS), Paid()
    GradientRewardStrategy(paid.watch(new_server(tmp_path))).start(grid, initial(), num_rounds=3)
    (tmp_path / "server.safetensors").write_bytes(b"damaged")
    strategy = GradientRewardStrategy(paid.watch(new_server(tmp_path)))
    strategy.start(grid, initial(), num_rounds=2)
    assert strategy.server.round == 5
    for agent in AGENTS:
        assert kept(tmp_path, agent).round == strategy.server.round
        assert torch.allclose(parameters(tmp_path, agent).double(), paid.to(agent), rtol=0, atol=1e-5)


def test_a_server_that_is_older_than_its_agents_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    grid = InProcessGrid(new_app(tmp_path), AGENTS)
    GradientRewardStrategy(new_server(tmp_path)).start(grid, initial(), num_rounds=3)
    before = {agent: parameters(tmp_path, agent) for agent in AGENTS}
    for file in tmp_path.glob("server*"):
        file.unlink()
    strategy = GradientRewardStrategy(new_server(tmp_path))
    strategy.start(grid, initial(), num_rounds=2)
    assert strategy.server.round == 0
    assert "got one of another run: remove the file to begin anew" in caplog.text
    assert strategy.server.agents == ()
    assert all(torch.equal(parameters(tmp_path, agent), before[agent]) for agent in AGENTS)


def test_an_agent_that_is_owed_nothing_begins_with_the_round_it_is_told() -> None:
    model = new_model().state_dict()
    state = AgentState(model, list(model))
    assert state.receive(ToAgent("ann", 3))
    assert state.round == 3
    assert state.receive(ToAgent("ann", 5))
    assert state.round == 3  # it was told of nothing in between


def test_an_agent_ahead_of_a_server_that_does_not_know_its_run_only_answers(tmp_path: Path) -> None:
    GradientRewardStrategy(new_server(tmp_path)).start(
        grid := InProcessGrid(new_app(tmp_path), AGENTS), initial(), num_rounds=3
    )
    message = Message(RecordDict({"arrays": initial()}), grid.node("ann"), "train")
    ToAgent(None, 0, names=list(new_model().state_dict())).write(message.content)
    (reply,) = grid.send_and_receive([message])
    assert set(reply.content) == {STATE}
    assert reply.content[STATE]["round"] == 3


def test_training_that_ends_late_does_not_undo_what_came_meanwhile(tmp_path: Path) -> None:
    def normed() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3))

    app = new_app(tmp_path, normed)
    strategy = GradientRewardStrategy(cgsv_ext.RewardServer(normed(), **SETTINGS))
    grid = InProcessGrid(app, AGENTS)
    meanwhile = []

    def overlapping(model: nn.Module, agent: str, t: int) -> None:
        """During its second training an agent gets the next message."""
        good(model, agent, t)
        if (agent, t) == ("bob", 2) and not meanwhile:
            meanwhile.append(kept(tmp_path, "bob").round)
            message = Message(RecordDict({"config": ConfigRecord({"server-round": 3})}), 0, "evaluate")
            flat = torch.ones(strategy.server.template.size)
            reward = cgsv_ext.encode(cgsv_ext.Reward(9, meanwhile[0], flat, flat))
            ToAgent("bob", 9, strategy.model.run, reward=reward).write(message.content)
            message.metadata.__dict__["_dst_node_id"] = grid.node("bob")
            assert not grid._deliver(message).has_error()

    good = learn
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "learn", overlapping)
        strategy.fraction_evaluate = 0.0
        strategy.start(grid, ArrayRecord(normed().state_dict()), num_rounds=2)
    assert meanwhile == [1]
    state = kept(tmp_path, "bob")
    assert state.round == 9
    assert state.values()["1.num_batches_tracked"] == 2


def message_of(since: int, round: int, value: float) -> ToAgent:
    size = cgsv_ext.Template(new_model()).size
    flat = torch.full((size,), value)
    return ToAgent("ann", round, reward=cgsv_ext.encode(cgsv_ext.Reward(round, since, flat, flat)))


@pytest.mark.parametrize(
    ("messages", "up_to_date", "has"),
    [
        ([(0, 1, 1.0)], True, (1, 1.0)),
        ([(0, 1, 1.0), (1, 2, 2.0)], True, (2, 3.0)),
        ([(0, 1, 1.0), (0, 1, 1.0)], True, (1, 1.0)),  # the answer was lost
        ([(0, 1, 1.0), (0, 2, 3.0)], True, (2, 3.0)),  # and a round was played meanwhile
        ([(0, 2, 3.0), (0, 1, 1.0)], True, (2, 3.0)),  # a message was overtaken
        ([(0, 1, 1.0), (1, 2, 2.0), (0, 2, 3.0)], True, (2, 3.0)),
        ([(0, 1, 1.0), (1, 2, 2.0), (0, 3, 6.0)], False, (2, 3.0)),  # the server does not know of round 1
        ([(0, 1, 1.0), (3, 4, 4.0)], True, (4, 5.0)),  # it was told of rounds that are lost
        ([(2, 3, 3.0)], True, (3, 3.0)),  # joined after round 2
    ],
)
def test_an_agent_adds_each_reward_once(
    tmp_path: Path, messages: list[tuple[int, int, float]], up_to_date: bool, has: tuple[int, float]
) -> None:
    model = {name: torch.zeros_like(value) for name, value in new_model().state_dict().items()}
    state = AgentState(model, list(model))
    assert state.round == UNTOLD
    for each in messages:
        state.save(tmp_path / "ann")
        state = AgentState.load(tmp_path / "ann")
        found = state.receive(message_of(*each))
    assert found is up_to_date
    assert state.round == has[0]
    assert all((value == has[1]).all() for value in state.values().values())


def test_an_agent_whose_file_is_older_goes_on_without_what_it_lost(
    flower: tuple[GradientRewardStrategy, InProcessGrid], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    strategy, grid = flower
    file = tmp_path / "agents" / "bob.safetensors"
    strategy.start(grid, initial(), num_rounds=1)
    older = file.read_bytes()
    strategy.start(grid, initial(), num_rounds=2)
    file.write_bytes(older)
    strategy.start(grid, initial(), num_rounds=2)
    assert "rewards of rounds 2 to 3 are lost" in caplog.text
    assert kept(tmp_path, "bob").round == strategy.server.round == 5
    assert strategy.server.pending("bob") == ()


def test_an_agent_without_its_file_begins_anew(
    flower: tuple[GradientRewardStrategy, InProcessGrid], tmp_path: Path
) -> None:
    strategy, grid = flower
    strategy.start(grid, initial(), num_rounds=2)
    (tmp_path / "agents" / "bob.safetensors").unlink()
    result = strategy.start(grid, initial(), num_rounds=2)
    assert "bob/loss" not in result.train_metrics_clientapp[1]  # it could not know what it has
    assert "bob/loss" in result.train_metrics_clientapp[2]
    assert kept(tmp_path, "bob").round == strategy.server.round == 4


def test_an_agent_may_join_late_and_begins_where_all_did(
    flower: tuple[GradientRewardStrategy, InProcessGrid], tmp_path: Path
) -> None:
    strategy, grid = flower
    late = grid.nodes.pop(grid.node("cleo"))
    strategy.start(grid, initial(), num_rounds=2)
    grid.connect(late)
    result = strategy.start(grid, initial(), num_rounds=1)
    assert "cleo/loss" in result.train_metrics_clientapp[1]
    state = kept(tmp_path, "cleo")
    assert (state.since, state.round) == (2, 3)
    assert torch.equal(state.arrays["0.weight"], new_model()[0].weight)


def test_whom_nobody_knows_gets_no_reward_before_it_says_who_it_is(
    flower: tuple[GradientRewardStrategy, InProcessGrid], tmp_path: Path
) -> None:
    strategy, grid = flower
    strategy.fraction_evaluate = 0.0
    strategy.start(grid, initial(), num_rounds=1)
    node, before = grid.restart("ann"), len(grid.sent)
    result = strategy.start(grid, initial(), num_rounds=1)
    asked, trained = (message for message in grid.sent[before:] if message.metadata.dst_node_id == node)
    assert grid.timeouts[-3] == strategy.roll_call_timeout
    said, *_ = (reply for reply in grid.replies[before:] if reply.metadata.src_node_id == node)
    assert set(said.content) == {STATE}
    assert "agent" not in asked.content[STATE]
    assert "cgsv.reward" not in asked.content
    assert trained.content[STATE]["agent"] == "ann"
    assert "ann/loss" in result.train_metrics_clientapp[1]
    assert kept(tmp_path, "ann").round == 1


def test_a_message_for_another_agent_is_not_opened(
    flower: tuple[GradientRewardStrategy, InProcessGrid], tmp_path: Path
) -> None:
    strategy, grid = flower
    strategy.start(grid, initial(), num_rounds=1)
    ann, bob = grid.node("ann"), grid.node("bob")
    before = {agent: parameters(tmp_path, agent) for agent in ("ann", "bob")}
    strategy.fraction_evaluate = 0.0
    strategy.start(grid, initial(), num_rounds=1)
    grid.nodes[ann], grid.nodes[bob] = "bob", "ann"
    result = strategy.start(grid, initial(), num_rounds=1)
    assert set(result.train_metrics_clientapp[1]) >= {"cleo/loss"}
    assert not {"ann/loss", "bob/loss"} & set(result.train_metrics_clientapp[1])
    for agent, values in before.items():
        assert torch.equal(parameters(tmp_path, agent), values)
    result = strategy.start(grid, initial(), num_rounds=1)
    assert {"ann/loss", "bob/loss"} <= set(result.train_metrics_clientapp[1])
    assert kept(tmp_path, "ann").round == kept(tmp_path, "bob").round == 3


@pytest.mark.parametrize("known", [False, True])
def test_who_did_not_answer_in_training_is_not_waited_for_again(
    flower: tuple[GradientRewardStrategy, InProcessGrid], known: bool
) -> None:
    strategy, grid = flower
    strategy.start(grid, initial(), num_rounds=int(known))
    node, before = grid.node("bob"), len(grid.sent)
    grid.down = {node}
    strategy.start(grid, initial(), num_rounds=1)
    kinds = [each.metadata.message_type for each in grid.sent[before:] if each.metadata.dst_node_id == node]
    assert kinds == ["train"]


def test_who_does_not_say_who_it_is_is_not_trained_with(tmp_path: Path) -> None:
    strategy = GradientRewardStrategy(new_server(tmp_path), roll_call_timeout=7.0)
    grid = InProcessGrid(new_app(tmp_path), AGENTS)
    strategy.start(grid, initial(), num_rounds=1, timeout=100.0)
    node = grid.restart("bob")
    grid.down, before = {node}, len(grid.sent)
    strategy.start(grid, initial(), num_rounds=1, timeout=100.0)
    assert [each.metadata.dst_node_id for each in grid.sent[before:]].count(node) == 1
    assert grid.timeouts == [100.0, 100.0, 7.0, 100.0, 100.0]
    grid.down = set()
    strategy.start(grid, initial(), num_rounds=1)
    assert strategy._nodes == grid.nodes
    del grid.nodes[node]
    strategy.start(grid, initial(), num_rounds=1)
    assert strategy._nodes == grid.nodes


def test_an_agent_is_where_it_was_last_heard_from(tmp_path: Path) -> None:
    strategy = GradientRewardStrategy(new_server(tmp_path))
    grid = InProcessGrid(new_app(tmp_path), AGENTS)
    strategy.start(grid, initial(), num_rounds=1)
    dead = grid.node("bob")
    grid.down, new = {dead}, grid.connect("bob")  # restarted before anybody missed it
    strategy.start(grid, initial(), num_rounds=1)
    assert strategy._nodes == {node: agent for node, agent in grid.nodes.items() if node != dead}
    assert strategy._nodes[new] == "bob"


def test_who_claims_a_round_there_has_not_been_does_not_join(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    strategy = GradientRewardStrategy(new_server(tmp_path))
    grid = InProcessGrid(new_app(tmp_path), AGENTS)

    def ahead(reply: Message) -> Message:
        if reply.content[STATE]["agent"] == "cleo":
            reply.content[STATE]["round"] = 5
        return reply

    grid.tamper = ahead
    strategy.start(grid, initial(), num_rounds=1)
    assert strategy.server.agents == ("ann", "bob")
    assert "expected a round up to 0, the last this server knows of, got 5 of agent 'cleo'" in caplog.text


def test_an_app_that_raises_is_absent_from_the_round(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    strategy, grid = GradientRewardStrategy(new_server(tmp_path)), InProcessGrid(new_app(tmp_path), AGENTS)
    good = learn

    def fail(model: nn.Module, agent: str, t: int) -> None:
        assert (agent, t) != ("bob", 2), "out of memory"
        good(model, agent, t)

    monkeypatch.setitem(globals(), "learn", fail)
    found = strategy.start(grid, initial(), num_rounds=3).train_metrics_clientapp
    assert ["bob/loss" in found[t] for t in (1, 2, 3)] == [True, False, True]
    assert "out of memory" in caplog.text
    assert all(strategy.server.pending(agent) == () for agent in AGENTS)


def test_who_left_is_asked_again_and_may_come_back(
    flower: tuple[GradientRewardStrategy, InProcessGrid],
) -> None:
    strategy, grid = flower
    strategy.start(grid, initial(), num_rounds=2)
    strategy.server.leave("ann")
    result = strategy.start(grid, initial(), num_rounds=2)
    assert strategy.server.agents == ("bob", "cleo", "ann")
    assert "ann/loss" in result.train_metrics_clientapp[1]
    strategy.agents = frozenset({"bob", "cleo"})
    strategy.server.leave("ann")
    strategy.start(grid, initial(), num_rounds=1)
    assert strategy.server.agents == ("bob", "cleo")


def test_absent_are_those_sent_to_who_did_not_reply(
    flower: tuple[GradientRewardStrategy, InProcessGrid], caplog: pytest.LogCaptureFixture
) -> None:
    strategy, grid = flower
    strategy.start(grid, initial(), num_rounds=1)
    grid.down = {grid.node("bob")}
    result = strategy.start(grid, initial(), num_rounds=2)
    assert "1 of 3 are absent: bob" in caplog.text
    assert result.train_metrics_clientapp[2]["share"] < 1
    assert strategy.server.pending("bob") == ()  # it had evaluated with the first round's
    grid.down = set()
    strategy.start(grid, initial(), num_rounds=1)
    assert strategy.server.round == 4


def test_a_round_without_an_update_is_no_round_of_the_server(
    flower: tuple[GradientRewardStrategy, InProcessGrid],
) -> None:
    strategy, grid = flower
    grid.down = set(grid.nodes)
    result = strategy.start(grid, initial(), num_rounds=1)
    assert strategy.server.round == 0
    assert result.train_metrics_clientapp == {}


# What nobody can trust


def spoiled(reply: Message, how: str) -> Message:
    content = reply.content
    if UPDATE not in content:
        return reply
    flat = content[UPDATE]["flat"]

    def form(dtype: str = flat.dtype, stype: str = flat.stype, data: bytes = flat.data) -> None:
        content[UPDATE] = ArrayRecord({"flat": Array(dtype, flat.shape, stype, data)})

    match how:
        case "no state":
            del content[STATE]
        case "no name":
            content[STATE] = ConfigRecord({"round": 0})
        case "a name that is a number":
            content[STATE] = ConfigRecord({"agent": 3, "round": 0})
        case "a round that is a name":
            content[STATE] = ConfigRecord({"agent": "bob", "round": "0"})
        case "a round that is a truth":
            content[STATE] = ConfigRecord({"agent": "bob", "round": True})
        case "a round to come":
            content[STATE] = ConfigRecord({"agent": "bob", "round": 10**6})
        case "a name that is taken":
            content[STATE] = ConfigRecord({"agent": "ann", "round": -1})
        case "no update":
            content[UPDATE] = ArrayRecord()
        case "Flower's form":
            content[UPDATE] = ArrayRecord({"flat": Array(torch.ones(3).numpy())})
        case "an unknown form":
            form(stype="other")
        case "an unknown dtype":
            form(dtype="int64")
        case "a part of an element":
            form(data=flat.data[1:])
        case "nothing":
            form(data=b"")
        case "too short":
            form(data=flat.data[4:])
        case "NaN":
            form(data=b"\xff" * len(flat.data))
    return reply


@pytest.mark.parametrize(
    "how",
    [
        "no state",
        "no name",
        "a name that is a number",
        "a round that is a name",
        "a round that is a truth",
        "a round to come",
        "a name that is taken",
        "no update",
        "Flower's form",
        "an unknown form",
        "an unknown dtype",
        "a part of an element",
        "nothing",
        "too short",
        "NaN",
    ],
)
def test_an_answer_that_is_wrong_costs_nobody_but_its_agent(tmp_path: Path, how: str) -> None:
    strategy, grid = GradientRewardStrategy(new_server(tmp_path)), InProcessGrid(new_app(tmp_path), AGENTS)
    strategy.start(grid, initial(), num_rounds=1)
    records: list[cgsv_ext.server.Round] = []
    strategy.server.on_round(records.append)
    bob = grid.node("bob")
    grid.tamper = lambda reply: spoiled(reply, how) if reply.metadata.src_node_id == bob else reply
    strategy.start(grid, initial(), num_rounds=1)
    assert records[0].agents == ("ann", "cleo")
    grid.tamper = lambda reply: reply
    strategy.start(grid, initial(), num_rounds=2)
    assert records[-1].agents == AGENTS
    assert all(strategy.server.pending(agent) == () for agent in AGENTS)


def test_of_two_nodes_with_one_name_one_is_heard(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    strategy = GradientRewardStrategy(new_server(tmp_path))
    grid = InProcessGrid(new_app(tmp_path), ["ann", "ann", "bob"])
    result = strategy.start(grid, initial(), num_rounds=1)
    assert strategy.server.agents == ("ann", "bob")
    assert "expected one node an agent, got another that says it is 'ann'" in caplog.text
    assert result.train_metrics_clientapp[1]["ann/norm"] > 0


def test_nobody_answers_for_another(
    flower: tuple[GradientRewardStrategy, InProcessGrid], caplog: pytest.LogCaptureFixture
) -> None:
    strategy, grid = flower
    strategy.fraction_evaluate = 0.0
    strategy.start(grid, initial(), num_rounds=1)
    node, grid.down = grid.node("cleo"), {grid.node("bob")}

    def steal(reply: Message) -> Message:
        if reply.metadata.src_node_id == node:
            reply.content[STATE]["agent"], reply.content[STATE]["round"] = "bob", 1
        return reply

    grid.tamper = steal
    result = strategy.start(grid, initial(), num_rounds=1)
    assert "expected an answer of 'cleo', got one of 'bob'" in caplog.text
    assert not {"bob/loss", "cleo/loss"} & set(result.train_metrics_clientapp[1])
    assert strategy.server.pending("bob") == (1,)
    assert strategy._nodes[grid.node("bob")] == "bob"


def test_only_those_named_may_join(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    strategy = GradientRewardStrategy(new_server(tmp_path), agents=["ann", "cleo"])
    strategy.start(InProcessGrid(new_app(tmp_path), AGENTS), initial(), num_rounds=2)
    assert strategy.server.agents == ("ann", "cleo")
    assert "expected an agent that may join, got 'bob'" in caplog.text


# Restarts


def test_a_strategy_goes_on_from_the_servers_file(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    grid = InProcessGrid(new_app(whole), AGENTS)
    strategy = GradientRewardStrategy(new_server(whole))
    expected = strategy.start(grid, initial(), num_rounds=4)
    for _ in range(4):
        grid = InProcessGrid(new_app(parts), AGENTS)  # all nodes are new ones
        resumed = GradientRewardStrategy(new_server(parts))
        found = resumed.start(grid, initial(), num_rounds=1)
    told = {message.metadata.message_type: message.content["config"]["server-round"] for message in grid.sent}
    assert told == {"train": 4, "evaluate": 4}
    assert resumed.server.importance == strategy.server.importance
    pairs = zip(expected.arrays.items(), found.arrays.items(), strict=True)
    assert all(name == other and a.data == b.data for (name, a), (other, b) in pairs)
    for agent in AGENTS:
        assert torch.equal(parameters(whole, agent), parameters(parts, agent))


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_the_servers_model_is_at_most_a_round_behind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, lost: int
) -> None:
    """As where the server is killed between saving itself and saving the model."""
    strategy, grid = GradientRewardStrategy(new_server(tmp_path)), InProcessGrid(new_app(tmp_path), AGENTS)
    before = strategy.start(grid, initial(), num_rounds=3 - lost).arrays.to_torch_state_dict()
    file = tmp_path / "server.safetensors.model"
    older = file.read_bytes()
    if lost:
        strategy.start(grid, initial(), num_rounds=lost)
        file.write_bytes(older)
        file.with_name(f"{file.name}.previous").unlink()
    fresh = GradientRewardStrategy(new_server(tmp_path))
    found = fresh.start(grid, initial(), num_rounds=0).arrays.to_torch_state_dict()
    values = torch.cat([value.reshape(-1) for value in found.values()])
    assert ("is that of round 1: rounds up to 3 are lost" in caplog.text) == (lost == 2)
    wanted = strategy.model.arrays().to_torch_state_dict() if lost < 2 else before
    assert torch.equal(values, torch.cat([value.reshape(-1) for value in wanted.values()]))


def test_the_model_before_is_used_where_the_latest_is_damaged(tmp_path: Path) -> None:
    strategy, grid = GradientRewardStrategy(new_server(tmp_path)), InProcessGrid(new_app(tmp_path), AGENTS)
    expected = strategy.start(grid, initial(), num_rounds=3).arrays
    (tmp_path / "server.safetensors.model").write_bytes(b"damaged")
    found = GradientRewardStrategy(new_server(tmp_path)).start(grid, initial(), num_rounds=0).arrays
    assert [array.data for array in found.values()] == [array.data for array in expected.values()]


def test_a_server_that_has_begun_is_taken_as_it_is(tmp_path: Path) -> None:
    server, grid = new_server(tmp_path), InProcessGrid(new_app(tmp_path), AGENTS)
    GradientRewardStrategy(server).start(grid, initial(), num_rounds=2)
    (tmp_path / "server.safetensors").write_bytes(b"damaged")
    assert GradientRewardStrategy(server).server.pending("ann") == ()


def test_nobody_joins_before_the_file_is_read(tmp_path: Path) -> None:
    GradientRewardStrategy(new_server(tmp_path)).start(
        InProcessGrid(new_app(tmp_path), AGENTS), initial(), num_rounds=1
    )
    server = new_server(tmp_path)
    server.join("ann")
    with pytest.raises(
        ValueError, match=r"expected a server that nobody joins before its file is read, got \('ann'"
    ):
        GradientRewardStrategy(server)
    new_server(tmp_path / "elsewhere").join("ann")


def test_a_strategy_without_a_file_goes_on_when_it_is_started_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    strategy = GradientRewardStrategy(new_server(tmp_path, path=None))
    assert "the server has no path" in caplog.text
    grid = InProcessGrid(new_app(tmp_path), AGENTS)
    first = strategy.start(grid, initial(), num_rounds=1).arrays
    second = strategy.start(grid, initial(), num_rounds=1).arrays
    other = GradientRewardStrategy(new_server(tmp_path / "other"))
    whole = other.start(InProcessGrid(new_app(tmp_path / "other"), AGENTS), initial(), num_rounds=2).arrays
    assert second["0.weight"].data == whole["0.weight"].data != first["0.weight"].data
    with pytest.raises(ValueError, match=r"expected the initial_arrays with which .* began, got others"):
        strategy.start(grid, first, num_rounds=1)


def test_an_agent_of_a_run_that_never_began_begins_with_the_next(tmp_path: Path) -> None:
    grid = InProcessGrid(new_app(tmp_path), AGENTS)
    grid.deaf = set(grid.nodes)
    GradientRewardStrategy(new_server(tmp_path)).start(grid, initial(), num_rounds=1)
    assert kept(tmp_path, "ann").round == UNTOLD
    grid.deaf = set()
    other = ArrayRecord({name: value + 1 for name, value in new_model().state_dict().items()})
    strategy = GradientRewardStrategy(new_server(tmp_path))
    strategy.start(grid, other, num_rounds=1)
    state = kept(tmp_path, "ann")
    assert torch.equal(state.arrays["0.weight"], new_model()[0].weight + 1)
    assert (state.run, state.round) == (strategy.model.run, 1)


def test_agents_of_another_run_are_refused_for_good(tmp_path: Path) -> None:
    grid = InProcessGrid(new_app(tmp_path), ["ann", "bob"])
    GradientRewardStrategy(new_server(tmp_path)).start(grid, initial(), num_rounds=2)
    for file in tmp_path.glob("server*"):
        file.unlink()
    grid.connect("cleo")
    strategy = GradientRewardStrategy(new_server(tmp_path))
    strategy.start(grid, initial(), num_rounds=4)
    assert strategy.server.agents == ("cleo",)
    (tmp_path / "agents" / "ann.safetensors").unlink()
    strategy.start(grid, initial(), num_rounds=1)
    assert strategy.server.agents == ("cleo", "ann")


def test_other_initial_arrays_than_those_of_the_file_are_refused(
    flower: tuple[GradientRewardStrategy, InProcessGrid], tmp_path: Path
) -> None:
    strategy, grid = flower
    strategy.start(grid, initial(), num_rounds=1)
    other = ArrayRecord({name: value + 1 for name, value in new_model().state_dict().items()})
    with pytest.raises(
        ValueError, match=r"start\(\): expected the initial_arrays with which .* began, got others"
    ):
        GradientRewardStrategy(new_server(tmp_path)).start(grid, other, num_rounds=1)


# Errors


def test_a_template_without_names_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected a server whose template has names .* 5 elements without"):
        GradientRewardStrategy(cgsv_ext.RewardServer(5))


@pytest.mark.parametrize("name", ["fraction_train", "fraction_evaluate"])
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_fractions_are_from_0_to_1(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"GradientRewardStrategy\(\): expected {name}"):
        GradientRewardStrategy(cgsv_ext.RewardServer(new_model()), **{name: value})


def test_initial_arrays_that_do_not_fit_the_template_are_refused(
    flower: tuple[GradientRewardStrategy, InProcessGrid],
) -> None:
    strategy, grid = flower
    with pytest.raises(ValueError, match=r"start\(\): initial_arrays: expected .* no '0.weight'"):
        strategy.start(grid, ArrayRecord(new_model()[0].state_dict()))


def reply_of(app: ClientApp, grid: InProcessGrid) -> str:
    message = Message(RecordDict({"arrays": initial()}), 101, "train")
    ToAgent(None, 0, names=list(new_model().state_dict())).write(message.content)
    (reply,) = grid.send_and_receive([message])
    return str(reply.error.reason)


def test_an_app_that_does_not_reply_with_its_parameters_is_told(tmp_path: Path) -> None:
    app = ClientApp()

    @app.train(mods=[RewardMod(tmp_path)])
    def train(message: Message, context: object) -> Message:
        return Message(RecordDict(), reply_to=message)

    reason = reply_of(app, InProcessGrid(app, AGENTS))
    assert "expected the app to reply with its parameters as an ArrayRecord 'arrays', got NoneType" in reason


def test_an_app_that_leaves_parameters_out_is_told(tmp_path: Path) -> None:
    app = ClientApp()

    @app.train(mods=[RewardMod(tmp_path)])
    def train(message: Message, context: object) -> Message:
        del message.content["arrays"]["0.bias"]
        return Message(message.content, reply_to=message)

    assert "expected the template's 4 tensors, got no '0.bias'" in reply_of(app, InProcessGrid(app, AGENTS))


def test_a_message_of_another_strategy_is_refused(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    grid = InProcessGrid(app, AGENTS)
    (reply,) = grid.send_and_receive([Message(RecordDict({"arrays": initial()}), 101, "train")])
    assert "expected a message of GradientRewardStrategy" in reply.error.reason
    assert not (tmp_path / "agents").exists()


def test_a_node_without_a_name_is_told_how_to_get_one(tmp_path: Path) -> None:

    def named(**config: object) -> str:
        return node_name(Context(1, 1, config, RecordDict(), {}))

    assert named(agent="ann") == "ann"
    assert named(**{"partition-id": 3}) == "3"
    with pytest.raises(ValueError, match=r"expected the node's configuration to name the agent.*got \['x'\]"):
        named(x=1)


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(ValueError, match="expected an agent's name, got an empty one"):
        file_name("")


def test_an_agents_name_never_leaves_its_folder(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    names = ["../up", "a/b", "..", "ü" * 200, "ü" * 201]
    strategy = GradientRewardStrategy(new_server(tmp_path))

    def learn_anything(model: nn.Module, agent: str, t: int) -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += len(agent)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "learn", learn_anything)
        strategy.start(InProcessGrid(app, names), initial(), num_rounds=1)
    assert set(strategy.server.agents) == set(names)
    assert len(list((tmp_path / "agents").glob("*.safetensors"))) == len(names)
    assert {file.parent for file in tmp_path.rglob("*.safetensors")} == {tmp_path, tmp_path / "agents"}


@pytest.mark.parametrize(
    ("missing", "message"),
    [("flwr", "cgsv_ext.flower: expected Flower.*pip install 'cgsv_ext\\[flower\\]'"), (None, "")],
)
def test_flower_is_imported_where_it_is_asked_for(tmp_path: Path, missing: str | None, message: str) -> None:
    code = "import sys, cgsv_ext\nassert 'flwr' not in sys.modules\n"
    if missing:
        code += "sys.modules['flwr'] = sys.modules['flwr.app'] = None\n"
    command = [sys.executable, "-c", code + "import cgsv_ext.flower"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == (missing is None)
    assert missing is None or re.search(message, done.stderr)
