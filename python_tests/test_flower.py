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
from hypothesis import given, settings
from hypothesis import strategies as st
from in_process_grid import InProcessGrid
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

import cgsv_ext
from cgsv_ext.flower import GradientRewardStrategy, RewardMod
from cgsv_ext.flower.agent import UNTOLD, AgentState
from cgsv_ext.flower.mod import node_name
from cgsv_ext.flower.records import STATE, UPDATE, Order

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

    def own(message: Message) -> nn.Module:
        found = model()
        found.load_state_dict(message.content["arrays"].to_torch_state_dict())
        return found

    @app.train(mods=[mod])
    def train(message: Message, context: object) -> Message:
        local = own(message)
        learn(local, context.node_config["agent"], message.content["config"]["server-round"])
        content = {"arrays": ArrayRecord(local.state_dict()), "metrics": MetricRecord({"loss": 0.5})}
        return Message(RecordDict(content), reply_to=message)

    @app.evaluate(mods=[mod])
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


def test_rounds_wait_for_enough_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flwr.serverapp.strategy import strategy_utils

    strategy = GradientRewardStrategy(new_server(tmp_path), min_available_nodes=4)
    grid = InProcessGrid(new_app(tmp_path), AGENTS)
    monkeypatch.setattr(strategy_utils, "sleep", lambda seconds: grid.connect("dora"))
    monkeypatch.setitem(globals(), "AGENTS", (*AGENTS, "dora"))
    result = strategy.start(grid, initial(), num_rounds=1)
    assert "dora/loss" in result.train_metrics_clientapp[1]


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
            "restarted": st.sets(st.sampled_from(AGENTS)),
            "server restarts": st.booleans(),
            "evaluate": st.booleans(),
        }
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=20)
@given(FAULTS)
def test_whatever_fails_each_reward_arrives_once(rounds: list[dict[str, object]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, paid = Path(name), Paid()
        grid = InProcessGrid(new_app(folder), AGENTS)
        strategy = GradientRewardStrategy(paid.watch(new_server(folder)))
        for faults in [*rounds, *[None] * 3]:
            grid.down, grid.deaf = set(), set()
            if faults is not None:
                for agent in faults["restarted"]:
                    grid.restart(agent)
                grid.down = {grid.node(agent) for agent in faults["down"]}
                grid.deaf = {grid.node(agent) for agent in faults["deaf"]}
                if faults["server restarts"]:
                    strategy = GradientRewardStrategy(paid.watch(new_server(folder)))
            # The last rounds evaluate, so that everything arrives.
            strategy.fraction_evaluate = 1.0 if faults is None or faults["evaluate"] else 0.0
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
    assert "expected a round up to 0, the last this server knows of, got 3" in caplog.text
    assert all(torch.equal(parameters(tmp_path, agent), before[agent]) for agent in AGENTS)


def message_of(since: int, round: int, value: float) -> Order:
    size = cgsv_ext.Template(new_model()).size
    flat = torch.full((size,), value)
    return Order("ann", round, True, [], cgsv_ext.encode(cgsv_ext.Reward(round, since, flat, flat)))


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


@pytest.mark.parametrize("thief", ["ann", "cleo"])
def test_a_name_stays_with_the_node_it_is_known_from(
    flower: tuple[GradientRewardStrategy, InProcessGrid], thief: str, caplog: pytest.LogCaptureFixture
) -> None:
    strategy, grid = flower
    strategy.start(grid, initial(), num_rounds=1)
    node = grid.node(thief)

    def steal(reply: Message) -> Message:
        if reply.metadata.src_node_id == node:
            reply.content[STATE]["agent"] = "bob"
        return reply

    grid.tamper = steal
    result = strategy.start(grid, initial(), num_rounds=1)
    assert "another that says it is 'bob'" in caplog.text
    assert f"{thief}/loss" not in result.train_metrics_clientapp[1]
    assert "bob/loss" in result.train_metrics_clientapp[1]
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
    for _ in range(4):  # the app draws its data by Flower's round, which begins at 1 each time
        expected = strategy.start(grid, initial(), num_rounds=1)
    for _ in range(4):
        grid = InProcessGrid(new_app(parts), AGENTS)  # all nodes are new ones
        resumed = GradientRewardStrategy(new_server(parts))
        found = resumed.start(grid, initial(), num_rounds=1)
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
    strategy.start(grid, initial(), num_rounds=3 - lost)
    file = tmp_path / "server.safetensors.model"
    older = file.read_bytes()
    if lost:
        strategy.start(grid, initial(), num_rounds=lost)
        file.write_bytes(older)
        file.with_name(f"{file.name}.previous").unlink()
    fresh = GradientRewardStrategy(new_server(tmp_path))
    found = fresh.start(grid, initial(), num_rounds=0).arrays.to_torch_state_dict()
    values = torch.cat([value.reshape(-1) for value in found.values()])
    assert ("is lost" in caplog.text) == (lost == 2)
    wanted = {0: strategy._model.values, 1: strategy._model.values, 2: initial().to_torch_state_dict()}[lost]
    assert torch.equal(values, torch.cat([value.reshape(-1) for value in wanted.values()]))


def test_other_initial_arrays_than_those_of_the_file_are_refused(
    flower: tuple[GradientRewardStrategy, InProcessGrid], tmp_path: Path
) -> None:
    strategy, grid = flower
    strategy.start(grid, initial(), num_rounds=1)
    other = ArrayRecord({name: value + 1 for name, value in new_model().state_dict().items()})
    with pytest.raises(
        ValueError, match=r"start\(\): expected the initial_arrays of the rounds in .*, got others"
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
    message.content[STATE] = ConfigRecord(
        {"round": 0, "train": True, "names": list(new_model().state_dict())}
    )
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


def test_an_agents_name_never_leaves_its_folder(tmp_path: Path) -> None:
    app = new_app(tmp_path)
    names = ["../up", "a/b", "..", "ü"]
    strategy = GradientRewardStrategy(new_server(tmp_path))

    def learn_anything(model: nn.Module, agent: str, t: int) -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += len(agent)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "learn", learn_anything)
        strategy.start(InProcessGrid(app, names), initial(), num_rounds=1)
    assert set(strategy.server.agents) == set(names)
    assert len(list((tmp_path / "agents").iterdir())) == len(names)


@pytest.mark.parametrize(
    ("missing", "message"),
    [("flwr", "cgsv_ext.flower: expected Flower.*pip install 'cgsv_ext\\[flower\\]'"), (None, "")],
)
def test_flower_is_imported_where_it_is_asked_for(missing: str | None, message: str) -> None:
    code = "import sys, cgsv_ext\nassert 'flwr' not in sys.modules\n"
    if missing:
        code += "sys.modules['flwr'] = sys.modules['flwr.app'] = None\n"
    done = subprocess.run(
        [sys.executable, "-c", code + "import cgsv_ext.flower"], capture_output=True, text=True, check=False
    )
    assert (done.returncode == 0) == (missing is None)
    assert missing is None or re.search(message, done.stderr)
