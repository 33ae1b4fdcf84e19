"""Every mechanism against slow loops over its paper's formulas, and what all of them owe to their agents."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cgsv_ext
from cgsv_ext import reference
from cgsv_ext.fl.mechanism import MECHANISMS, Outcome, Server, download_, eci
from cgsv_ext.fl.mechanism.averaging import normalised_mean
from cgsv_ext.fl.mechanism.coalitions import validate_coalitions
from cgsv_ext.fl.mechanism.proportional import proportional_quotas
from cgsv_ext.fl.presets import preset
from cgsv_ext.fl.seeds import generator

D = 300
LAYERS = [200, 89, 10, 1]
HAS_IMPORTANCE = ["CGSV", "CFFL", "ECI", "DW", "EU"]
SAME_FOR_ALL = ["FedAvg", "FedAvgNormalised", "q-FFL"]
SIZES = (10, 20, 30, 40, 100, 7, 55, 23, 64, 31, 18, 42)


def random_updates(n=5, d=D, seed=0, device="cpu"):
    """Updates that agree in part, of very different lengths."""
    g = generator(seed, "updates")
    x = torch.randn(n, d, generator=g) + torch.randn(d, generator=g)
    return (x * torch.logspace(-2, 1, n)[:, None]).to(device)


def smooth(rows):
    """Something like an accuracy, as a smooth function of the models."""
    direction = torch.linspace(-1, 1, rows.shape[1], dtype=torch.float64, device=rows.device)
    x = rows.double()
    return torch.sigmoid(x @ direction / 3 + (x @ direction.flip(0).sin()) ** 2)


def make(
    name,
    n=5,
    *,
    sizes=SIZES,
    validate=smooth,
    losses=None,
    device="cpu",
    seed=1,
    d=D,
    layers=LAYERS,
    **changes,
):
    experiment = preset("digits", "UNI", n, **changes)
    if losses is None:
        losses = torch.linspace(0.1, 2, n, dtype=torch.float64)
    server = Server(
        experiment,
        torch.tensor(sizes[:n], device=device),
        layers,
        torch.randn(d, generator=generator(seed, "model")).to(device),
        lambda: losses.to(device),
        validate,
        generator(seed, "mechanism"),
    )
    return MECHANISMS[name](server)


def downloads(outcome, n, d=D):
    """v_i, by the very function that hands them out."""
    like = outcome.aggregate if outcome.aggregate is not None else outcome.rewards
    parameters = like.new_zeros(n, d)
    download_(parameters, outcome)
    return parameters


def mask(u, q):
    """The q largest entries of u, by equation (5)."""
    kept = np.argsort(-np.abs(u), kind="stable")[:q]
    v = np.zeros_like(u)
    v[kept] = u[kept]
    return v


def normalised_sum(x, sizes, gamma):
    """Equation (1) weighed by data, agent by agent in float64."""
    u = np.zeros(x.shape[1])
    for row, size in zip(x, sizes, strict=True):
        u += size / sum(sizes) * gamma * row / math.sqrt(row @ row)
    return u


def clamp(x, floor):
    x = [max(floor, x_i) for x_i in x]
    return np.array([x_i / sum(x) for x_i in x])


def assert_paid_by(outcome, x, sizes, gamma, r):
    """What all mechanisms do that replace the ratio of equation (5)."""
    expected = normalised_sum(x, sizes, gamma)
    u = outcome.aggregate.double().numpy()
    np.testing.assert_allclose(u, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(outcome.importance.numpy(), r, rtol=1e-9, atol=1e-12)
    for i, q in enumerate(outcome.quotas.tolist()):
        assert abs(q - math.floor(x.shape[1] * r[i] / max(r))) <= 1
    v = downloads(outcome, len(x))
    for i, q in enumerate(outcome.quotas.tolist()):
        np.testing.assert_array_equal(v[i].double().numpy(), mask(u, q))


# CGSV


@pytest.mark.parametrize("beta", [1.0, 2.0, 50.0, math.inf])
def test_cgsv_is_the_reference_round_after_round(beta, device):
    cgsv = make("CGSV", beta=beta, device=device)
    e, sizes = cgsv.server.experiment, cgsv.server.sizes
    weights, importance = sizes.double() / sizes.sum(), torch.zeros(5, dtype=torch.float64, device=device)
    for t in range(3):
        updates = random_updates(seed=t, device=device)
        given = {"gamma": e.gamma, "alpha": e.alpha, "beta": beta, "floor": e.floor}
        expected = reference.reward_step(updates, importance, weights=weights, **given)
        outcome = cgsv.step(updates)
        torch.testing.assert_close(outcome.aggregate, expected.aggregate)
        torch.testing.assert_close(outcome.importance, expected.importance, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(outcome.weights, weights, rtol=1e-5, atol=1e-7)
        assert (outcome.quotas - expected.quotas).abs().max() <= 1
        kept = reference.download(outcome.aggregate, reference.select(outcome.aggregate, outcome.quotas))
        assert torch.equal(downloads(outcome, 5), kept)
        importance = weights = expected.importance


def masked_by_layers(u, ratios, layers):
    """As the authors' release masks: of each layer all that is not less than its k-th largest magnitude."""
    v = np.zeros((len(ratios), len(u)), u.dtype)
    for i, ratio in enumerate(ratios):
        start = 0
        for size in layers:
            layer = u[start : start + size]
            k = math.ceil(size * ratio)
            if k > 0:
                least = sorted(np.abs(layer))[::-1][min(k, max(size - 1, 1)) - 1]
                v[i, start : start + size] = np.where(np.abs(layer) >= least, layer, 0)
            start += size
    return v


@settings(max_examples=50)
@given(
    n=st.integers(1, 6),
    layers=st.lists(st.integers(1, 30), min_size=1, max_size=5),
    beta=st.sampled_from([1.0, 4.0, 1000.0, math.inf]),
    floor=st.sampled_from([1e-3, 0.0, None]),
    seed=st.integers(0, 1000),
)
def test_masks_by_layers_are_the_releases(n, layers, beta, floor, seed):
    """Updates of few values, so that there are ties at all ranks."""
    d = sum(layers)
    cgsv = make("CGSV", n, masks="layers", beta=beta, floor=floor, layers=layers, d=d)
    whole = make("CGSV", n, beta=beta, floor=floor, layers=layers, d=d)
    for t in range(2):
        g = generator(seed, f"round {t}")
        updates = torch.randint(-2, 3, (n, d), generator=g).float()
        outcome, same = cgsv.step(updates), whole.step(updates)
        assert torch.equal(outcome.aggregate, same.aggregate)
        assert torch.equal(outcome.importance, same.importance)
        r = outcome.importance.numpy()
        reach = [math.tanh(beta * r_i) if r_i > 0 else 0.0 for r_i in r]
        ratios = [t_i / max(reach) if max(reach) > 0 else 0.0 for t_i in reach]
        v = downloads(outcome, n, d).numpy()
        np.testing.assert_array_equal(v, masked_by_layers(outcome.aggregate.numpy(), ratios, layers))
        counts = [sum(min(math.ceil(size * x), max(size - 1, 1)) for size in layers) for x in ratios]
        assert (outcome.quotas - torch.tensor(counts)).abs().max() <= len(layers)
        assert [q == 0 for q in outcome.quotas.tolist()] == [x == 0 for x in ratios]


@pytest.mark.parametrize("beta", [1.0, math.inf])
def test_by_layers_an_agent_of_no_importance_gets_nothing(beta):
    updates = random_updates()
    updates[0] = -updates[4]
    outcome = make("CGSV", masks="layers", floor=0.0, beta=beta).step(updates)
    assert outcome.importance[0] == 0
    assert outcome.quotas[0] == 0
    assert outcome.quotas[1:].min() > 0
    assert downloads(outcome, 5)[0].count_nonzero() == 0


def test_by_layers_nobody_gets_all_without_ties(device):
    v = downloads(make("CGSV", masks="layers", device=device).step(random_updates(device=device)), 5)
    assert (v != 0).sum(1).max() == D - len(LAYERS) + 1  # one short in each layer but that of one entry


# The same for everyone


def test_fedavg_is_the_size_weighted_mean_for_everyone(device):
    updates = random_updates(device=device)
    outcome = make("FedAvg", device=device).step(updates)
    expected = sum(size / 200 * row.double() for size, row in zip(SIZES, updates, strict=False))
    torch.testing.assert_close(outcome.aggregate.double(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(downloads(outcome, 5), outcome.aggregate.expand_as(updates))
    assert not outcome.unit


def test_fedavg_normalised_is_the_size_weighted_mean_of_directions():
    updates = random_updates()
    outcome = make("FedAvgNormalised", gamma=0.7).step(updates)
    expected = normalised_sum(updates.double().numpy(), SIZES[:5], 0.7)
    np.testing.assert_allclose(outcome.aggregate.numpy(), expected, rtol=1e-5, atol=1e-7)
    assert torch.equal(downloads(outcome, 5), outcome.aggregate.expand_as(updates))
    assert outcome.unit


def test_fedavg_normalised_is_cgsvs_first_round_with_all_rewards_equal():
    updates = random_updates()
    first = make("CGSV", beta=math.inf).step(updates)
    assert torch.equal(downloads(first, 5), downloads(make("FedAvgNormalised").step(updates), 5))


@pytest.mark.parametrize("q", [0.0, 0.1, 1.0, 5.0])
def test_qffl_is_q_fedavg(q):
    lr, decay, losses = 0.1, 0.9, torch.tensor([0.3, 2.0, 0.9, 1e-3, 5.0], dtype=torch.float64)
    qffl = make("q-FFL", q=q, lr=lr, decay=decay, losses=losses)
    for t in range(3):
        updates = random_updates(seed=t)
        lipschitz = 1 / (lr * decay**t)
        delta, h = np.zeros(D), 0.0
        for size, loss, row in zip(SIZES, losses.tolist(), updates.double().numpy(), strict=False):
            g, p = -lipschitz * row, size / 200
            delta += p * loss**q * g
            h += p * (q * loss ** (q - 1) * (g @ g) + lipschitz * loss**q)
        outcome = qffl.step(updates)
        np.testing.assert_allclose(outcome.aggregate.numpy(), -delta / h, rtol=2e-5, atol=1e-8)
        again = (outcome.weights[:, None] * updates.double()).sum(0)
        torch.testing.assert_close(outcome.aggregate.double(), again, rtol=1e-5, atol=1e-7)
        assert torch.equal(downloads(outcome, 5), outcome.aggregate.expand_as(updates))


def test_qffl_without_fairness_is_fedavg():
    updates = random_updates()
    expected = make("FedAvg").step(updates)
    outcome = make("q-FFL", q=0.0).step(updates)
    torch.testing.assert_close(outcome.aggregate, expected.aggregate)


def test_qffl_weighs_who_fares_worse():
    updates = torch.nn.functional.normalize(random_updates())
    share = [make("q-FFL", q=q, sizes=[9] * 5).step(updates).weights for q in (0.5, 1.0, 2.0)]
    share = torch.stack([weights / weights.sum() for weights in share])
    assert (share.diff(dim=1) > 0).all(), "losses grow from the first to the last agent"
    assert (share[:, -1].diff() > 0).all(), "the more, the larger q"


@pytest.mark.parametrize("losses", [[1e200] * 5, [1e-200] * 5, [0.0] * 5, [1e-9, 1e9, 1.0, 1.0, 1.0]])
@pytest.mark.parametrize("q", [0.5, 20.0])
def test_qffl_survives_extreme_losses(losses, q):
    outcome = make("q-FFL", q=q, losses=torch.tensor(losses, dtype=torch.float64)).step(random_updates())
    assert outcome.aggregate.isfinite().all()


# Paid by something else than r


@given(
    r=st.lists(st.floats(-1, 1) | st.just(math.nan), min_size=1, max_size=8),
    size=st.integers(1, 10**6),
)
def test_proportional_quotas(r, size):
    quotas = proportional_quotas(torch.tensor(r, dtype=torch.float64), size).tolist()
    finite = [0.0 if math.isnan(x) else x for x in r]
    for x, q in zip(finite, quotas, strict=True):
        assert q == (max(0, math.floor(size * (x / max(finite)))) if max(finite) > 0 else 0)
    assert max(quotas) == (size if max(finite) > 0 else 0)


def test_dw_pays_by_data():
    updates = random_updates()
    outcome = make("DW").step(updates)
    assert_paid_by(outcome, updates.double().numpy(), SIZES[:5], 0.2, np.array(SIZES[:5]) / 200)
    assert outcome.quotas.tolist() == [30, 60, 90, 120, 300]


def test_the_floor_holds_for_every_importance():
    outcome = make("DW", 3, sizes=[1, 10**6, 10**6], floor=0.1).step(random_updates(3))
    np.testing.assert_allclose(outcome.importance.numpy(), clamp([0, 0.5, 0.5], 0.1), atol=1e-5)


def test_eu_pays_by_nearness_to_the_aggregate():
    updates = random_updates()
    x = updates.double().numpy()
    u = normalised_sum(x, SIZES[:5], 0.2)
    distances = [math.sqrt((row - u) @ (row - u)) for row in x]
    nearness = np.array([max(distances) + min(distances) - d for d in distances])
    outcome = make("EU", gamma=0.2, floor=None).step(updates)
    share = torch.tensor(nearness / nearness.sum())
    torch.testing.assert_close(outcome.importance, share, rtol=1e-5, atol=1e-7)
    assert_paid_by(outcome, x, SIZES[:5], 0.2, outcome.importance.numpy())
    expected = [math.floor(D * (1 - (d - min(distances)) / max(distances))) for d in distances]
    assert (outcome.quotas - torch.tensor(expected)).abs().max() <= 1


@pytest.mark.parametrize("scale", [1e-6, 3.0, 1e6])
def test_eu_does_not_depend_on_the_unit_of_length(scale):
    updates = random_updates()
    one = make("EU", gamma=0.2).step(updates)
    other = make("EU", gamma=0.2 * scale).step(updates * scale)
    torch.testing.assert_close(one.importance, other.importance, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("length", "first"), [(1e-4, 4), (1e4, 0)])
def test_what_eu_thinks_near_depends_on_the_lengths_of_the_updates(length, first):
    """All in one direction, from short to long."""
    updates = length * torch.arange(1, 6)[:, None] * torch.ones(5, D)
    assert make("EU", gamma=1.0).step(updates).quotas.argmax() == first


def test_rr_gives_every_agent_its_turn_once_a_cycle_in_an_order_that_varies():
    rr, orders = make("RR", 6), []
    w = rr.server.parameters
    models = w.repeat(6, 1)
    for _ in range(8):
        order = []
        for t in range(6):
            updates = random_updates(6, seed=t)
            outcome = rr.step(updates)
            mean = make("FedAvgNormalised", 6).step(updates).aggregate
            assert torch.equal(outcome.aggregate, mean)
            turn, before = int(outcome.quotas.argmax()), models.clone()
            assert outcome.quotas.tolist() == [D * (i == turn) for i in range(6)]
            download_(models, outcome)
            w += mean
            others = torch.arange(6) != turn
            assert torch.equal(models[others], before[others])
            torch.testing.assert_close(models[turn], w, rtol=0, atol=1e-6)
            order.append(turn)
        assert sorted(order) == list(range(6))
        orders.append(tuple(order))
    assert len(set(orders)) > 4


def test_rr_puts_every_agent_in_every_place():
    n, cycles = 4, 300
    rr, updates = make("RR", n, d=4, layers=[4]), random_updates(n, 4)
    turns = torch.stack([rr.step(updates).quotas.argmax() for _ in range(n * cycles)]).view(cycles, n)
    counts = torch.stack([(turns == i).sum(0) for i in range(n)])
    assert (counts - cycles / n).abs().max() < 5 * math.sqrt(cycles * 3 / 16)


# Coalitions, CFFL and ECI


def worth_of(w, x, sizes, gamma, members):
    """v(S) by its definition, of the model itself."""
    members = sorted(members)
    u = normalised_sum(x[members], [sizes[i] for i in members], gamma) if members else np.zeros(x.shape[1])
    return float(smooth(torch.tensor(w.double().numpy() + u)[None]))


def game(server, updates):
    x, gamma = updates.double().numpy(), server.experiment.gamma
    return lambda members: worth_of(server.parameters, x, SIZES, gamma, members)


def by_permutations(v, n):
    """Shapley values to the letter: the mean marginal contribution over all orders."""
    total = np.zeros(n)
    for order in itertools.permutations(range(n)):
        for k, i in enumerate(order):
            total[i] += v(order[: k + 1]) - v(order[:k])
    return total / math.factorial(n)


def average(r, x, alpha, floor):
    return clamp(alpha * r + (1 - alpha) * x, floor)


def test_coalitions_are_worth_their_models_accuracy():
    server, updates = make("ECI").server, random_updates()
    v = game(server, updates)
    sets = [s for k in range(6) for s in itertools.combinations(range(5), k)]
    members = torch.tensor([[i in s for i in range(5)] for s in sets])
    found = validate_coalitions(server, updates, normalised_mean(server, updates), members)
    np.testing.assert_allclose(found.numpy(), [v(s) for s in sets], rtol=1e-5)


def test_the_grand_coalition_is_the_servers_next_model():
    eci_, updates, seen = make("ECI"), random_updates(), []
    eci_.server.validate = lambda rows: (seen.append(rows), smooth(rows))[1]
    outcome = eci_.step(updates)
    rows = torch.cat(seen)
    torch.testing.assert_close(rows[0], eci_.server.parameters, rtol=0, atol=0)
    torch.testing.assert_close(rows[-1], eci_.server.parameters + outcome.aggregate)
    assert max(len(part) for part in seen) <= 64


def test_cffl_by_its_formulas():
    cffl, c = make("CFFL"), np.zeros(5)
    for t in range(4):
        updates = random_updates(seed=t)
        v, everyone = game(cffl.server, updates), set(range(5))
        lost = np.array([v(everyone) - v(everyone - {i}) for i in range(5)])
        sharp = np.sinh(5 * lost / np.abs(lost).sum())
        c = average(c, sharp / np.abs(sharp).sum(), 0.5, 1e-3)
        outcome = cffl.step(updates)
        np.testing.assert_allclose(outcome.importance.numpy(), c, rtol=1e-3, atol=1e-4)
        assert_paid_by(outcome, updates.double().numpy(), SIZES[:5], 0.2, outcome.importance.numpy())


def test_eci_by_all_permutations():
    index, r = make("ECI", 4, alpha=0.8), np.zeros(4)
    for t in range(3):
        updates = random_updates(4, seed=t)
        phi = by_permutations(game(index.server, updates), 4)
        r = average(r, phi / np.abs(phi).sum(), 0.8, 1e-3)
        outcome = index.step(updates)
        np.testing.assert_allclose(outcome.importance.numpy(), r, rtol=1e-3, atol=1e-4)
        assert_paid_by(outcome, updates.double().numpy(), SIZES[:4], 0.2, outcome.importance.numpy())


def random_game(n, seed=0):
    """v in a table of all coalitions, and what was asked of it."""
    table, asked = torch.rand(1 << n, generator=generator(seed, "game"), dtype=torch.float64), []

    def worth(members):
        asked.append(members)
        return table[(members.long() << torch.arange(n)).sum(1)]

    return worth, table, asked


@pytest.mark.parametrize("n", [1, 2, 3, 5, 6])
def test_exact_shapley_values(n):
    worth, table, _ = random_game(n)
    phi = eci.exact(worth, n)
    expected = by_permutations(lambda s: float(table[sum(1 << i for i in s)]), n)
    np.testing.assert_allclose(phi.numpy(), expected, atol=1e-12)
    torch.testing.assert_close(phi.sum(), table[-1] - table[0])


@pytest.mark.parametrize("n", [1, 3, 12])
@pytest.mark.parametrize("permutations", [1, 2, 7, 16])
def test_sampled_values_are_efficient_and_value_no_coalition_twice(n, permutations):
    worth, table, asked = random_game(n)
    phi = eci.sampled(worth, n, permutations, generator(0, "permutations"))
    torch.testing.assert_close(phi.sum(), table[-1] - table[0])
    members = torch.cat(asked)
    assert len(members.unique(dim=0)) == len(members) <= permutations * (n - 1) + 2


@pytest.mark.parametrize("permutations", [1, 16])
def test_sampled_values_of_an_additive_game_are_exact(permutations):
    value = torch.randn(12, generator=generator(0, "game"), dtype=torch.float64)
    phi = eci.sampled(lambda s: s.double() @ value + 3, 12, permutations, generator(1, "permutations"))
    torch.testing.assert_close(phi, value)


def test_sampled_values_approach_the_exact_ones():
    worth, _, _ = random_game(6)
    expected = eci.exact(worth, 6)
    errors = []
    for permutations in (20, 2000):
        trials = [eci.sampled(worth, 6, permutations, generator(s, "permutations")) for s in range(16)]
        errors.append((torch.stack(trials) - expected).square().mean().sqrt())
    assert errors[1] < 0.02
    assert 5 < errors[0] / errors[1] < 20, "a tenth of the error for a hundred times the permutations"


def test_opposite_orders_settle_a_game_of_pairs():
    """Where only pairs matter, a permutation and its reverse give the exact value."""
    g = generator(0, "game")
    pairs = torch.randn(10, 10, generator=g, dtype=torch.float64)

    def worth(members):
        x = members.double()
        return ((x @ pairs) * x).sum(1)

    phi = eci.sampled(worth, 10, 2, generator(5, "permutations"))
    torch.testing.assert_close(phi, eci.exact(worth, 10))


def test_eci_samples_from_ten_agents_on():
    for n, most in ((9, 2**9), (10, 16 * 9 + 2)):
        rows = []
        index = make(
            "ECI", n, validate=lambda models, rows=rows: (rows.append(len(models)), smooth(models))[1]
        )
        index.step(random_updates(n))
        assert sum(rows) <= most
        assert (sum(rows) == 2**9) == (n == 9)


@pytest.mark.parametrize("name", ["CFFL", "ECI"])
def test_a_round_in_which_nobody_makes_a_difference_changes_no_importance(name):
    level = [False]
    mechanism = make(name, validate=lambda rows: smooth(rows) * 0 if level[0] else smooth(rows))
    before = mechanism.step(random_updates()).importance
    level[0] = True
    torch.testing.assert_close(mechanism.step(random_updates(seed=1)).importance, before)


@pytest.mark.parametrize("name", ["CFFL", "ECI"])
def test_who_does_harm_is_paid_least(name):
    """Agents 0 and 1 go where accuracy falls, the others where it rises."""
    direction = torch.ones(D)
    updates = torch.stack([-direction, -2 * direction, *[direction + 0.1 * x for x in torch.eye(3, D)]])
    mechanism = make(name, sizes=[50] * 5, validate=lambda rows: torch.sigmoid(rows.double().mean(1)))
    for _ in range(30):
        outcome = mechanism.step(updates)
    r = outcome.importance
    assert r[:2].max() < 0.01
    assert r[2:].min() > 0.2


# What all owe to their agents


@pytest.mark.parametrize("name", [name for name in MECHANISMS if name != "RR"])
def test_identical_agents_fare_alike(name):
    mechanism = make(name, sizes=[20, 30, 30, 40, 50], losses=torch.tensor([0.5, 1, 1, 2, 3]))
    for t in range(3):
        updates = random_updates(seed=t)
        updates[2] = updates[1]
        outcome = mechanism.step(updates)
        v = downloads(outcome, 5)
        if outcome.importance is not None:
            # CFFL and ECI see two models of the same agents summed in two orders.
            torch.testing.assert_close(outcome.importance[1], outcome.importance[2], rtol=1e-4, atol=1e-6)
        if name not in ("CFFL", "ECI"):
            assert torch.equal(v[1], v[2])


@pytest.mark.parametrize("name", [name for name in MECHANISMS if name != "RR"])
def test_the_order_of_agents_does_not_matter(name):
    order = torch.tensor([3, 0, 4, 2, 1])
    losses = torch.linspace(0.1, 2, 5, dtype=torch.float64)
    one = make(name)
    other = make(name, sizes=torch.tensor(SIZES[:5])[order].tolist(), losses=losses[order])
    for t in range(3):
        updates = random_updates(seed=t)
        a, b = one.step(updates), other.step(updates[order])
        if a.aggregate is not None:
            torch.testing.assert_close(a.aggregate, b.aggregate, rtol=1e-5, atol=1e-6)
            assert (a.quotas[order] - b.quotas).abs().max() <= 1
        else:
            assert torch.equal(a.rewards[order], b.rewards)
        if a.importance is not None:
            torch.testing.assert_close(a.importance[order], b.importance, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", MECHANISMS)
@pytest.mark.parametrize("n", [5, 12])
def test_nothing_given_is_changed(name, n, device):
    mechanism = make(name, n, device=device)
    updates, w = random_updates(n, device=device), mechanism.server.parameters.clone()
    given = updates.clone()
    outcome = mechanism.step(updates)
    assert torch.equal(updates, given)
    assert torch.equal(mechanism.server.parameters, w)
    for value in (outcome.aggregate, outcome.rewards, outcome.importance, outcome.quotas, outcome.weights):
        assert value is None or value.device == updates.device


@pytest.mark.parametrize("name", MECHANISMS)
def test_what_is_reported(name):
    outcome = make(name).step(random_updates())
    assert (outcome.importance is not None) == (name in HAS_IMPORTANCE)
    assert (outcome.rewards is not None) == (name in [*SAME_FOR_ALL, "RR", "standalone"])
    if name == "standalone":
        assert outcome.aggregate is None
        return
    assert outcome.aggregate.shape == (D,)
    assert (outcome.quotas.shape, outcome.quotas.dtype) == ((5,), torch.int64)
    assert (downloads(outcome, 5) != 0).sum(1).tolist() == outcome.quotas.tolist()
    assert outcome.weights.dtype == torch.float64
    if name != "q-FFL":
        torch.testing.assert_close(outcome.weights.sum(), torch.tensor(1.0, dtype=torch.float64))


def test_standalone_agents_keep_their_own_updates():
    updates = random_updates()
    assert torch.equal(downloads(make("standalone").step(updates), 5), updates)


def test_selections_and_written_rewards_download_the_same():
    step = cgsv_ext.reward_step(random_updates(), torch.arange(5.0))
    parts, whole = random_updates(seed=1), random_updates(seed=1)
    download_(parts, Outcome(step.aggregate, selection=step.selection))
    download_(whole, Outcome(step.aggregate, rewards=step.rewards))
    assert torch.equal(parts, whole)


@pytest.mark.parametrize("name", MECHANISMS)
def test_only_its_settings_matter(name):
    every = {field for kind in MECHANISMS.values() for field in kind.settings}
    other = {"gamma": 0.9, "alpha": 0.5, "beta": 3.0, "floor": 0.2, "masks": "layers", "q": 3.0}
    assert every == other.keys()

    def outcomes(**changes):
        mechanism = make(name, **changes)
        return [mechanism.step(random_updates(seed=t)) for t in range(2)]

    usual = outcomes()
    for field in every:
        changed = outcomes(**{field: other[field]})
        same = all(torch.equal(downloads(a, 5), downloads(b, 5)) for a, b in zip(usual, changed, strict=True))
        assert same == (field not in MECHANISMS[name].settings), field


# State


@pytest.mark.parametrize("name", MECHANISMS)
@pytest.mark.parametrize("n", [3, 11])
def test_a_resumed_mechanism_goes_on_with_the_same_bits(name, n):
    whole, begun, resumed = make(name, n), make(name, n), make(name, n, seed=1)
    for t in range(4):
        whole.step(random_updates(n, seed=t))
        begun.step(random_updates(n, seed=t))
    state = begun.state_dict()
    kept = {key: value.clone() for key, value in state.items()}
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    begun.step(random_updates(n, seed=9))  # the copy does not go on with it
    resumed.load_state_dict(state)
    for t in range(4, 8):
        expected, got = whole.step(random_updates(n, seed=t)), resumed.step(random_updates(n, seed=t))
        assert torch.equal(downloads(got, n), downloads(expected, n))
        for field in ("aggregate", "importance", "quotas", "weights"):
            a, b = getattr(got, field), getattr(expected, field)
            assert (a is None and b is None) or torch.equal(a, b), field
    assert all(torch.equal(state[key], kept[key]) for key in kept), "the state is not written to"


def test_the_state_of_another_mechanism_is_refused():
    with pytest.raises(ValueError, match=r"expected the state of ECI, .*index.*got .*importance"):
        make("ECI").load_state_dict(make("CGSV").state_dict())


# What should not happen, and does


CASES = {
    "all zero": lambda x: x * 0,
    "one zero": lambda x: torch.cat([x[:1] * 0, x[1:]]),
    "one nan": lambda x: torch.cat([x[:1] * math.nan, x[1:]]),
    "a nan entry": lambda x: torch.where(torch.arange(x.numel()).view_as(x) == 3, math.nan, x),
    "one inf": lambda x: torch.cat([x[:1] * math.inf, x[1:]]),
    "all nan": lambda x: x * math.nan,
    "cancelling": lambda x: torch.where(torch.arange(len(x))[:, None] % 2 == 0, x[:1], -x[:1]),
    "all alike": lambda x: x[:1].expand_as(x).contiguous(),
    "tiny": lambda x: x * 1e-36,
    "huge": lambda x: x * 1e30,
}
WORTH = {
    "smooth": smooth,
    "all equal": lambda rows: torch.full_like(rows[:, 0], 0.7, dtype=torch.float64),
    "the more the worse": lambda rows: 1 - (rows - make("ECI", 1).server.parameters).norm(dim=1).double(),
    "perfect": lambda rows: torch.ones_like(rows[:, 0], dtype=torch.float64),
}


@pytest.mark.parametrize("floor", [1e-3, None])
@pytest.mark.parametrize("n", [1, 2, 6, 11])
@pytest.mark.parametrize("name", MECHANISMS)
def test_degenerate_rounds_stay_finite(name, n, floor):
    for case, distort in CASES.items():
        for kind, validate in WORTH.items():
            if kind != "smooth" and name not in ("CFFL", "ECI"):
                continue
            losses = torch.linspace(0, 2, n)
            mechanism = make(name, n, floor=floor, validate=validate, losses=losses)
            for t in range(3):
                x = distort(random_updates(n, seed=t))
                where = f"{case}, {kind}, round {t}"
                outcome = mechanism.step(x)
                v = downloads(outcome, n)
                if name == "standalone":
                    assert torch.equal(v.nan_to_num(7), x.nan_to_num(7)), where
                    continue
                assert outcome.aggregate.isfinite().all(), where
                assert v.isfinite().all(), where
                assert outcome.quotas.min() >= 0, where
                assert outcome.quotas.max() <= D, where
                assert outcome.weights.isfinite().all(), where
                if outcome.importance is not None:
                    total = outcome.importance.sum().item()
                    assert outcome.importance.min() >= 0 or (name, floor) == ("CGSV", None), where
                    assert total == pytest.approx(1) or (total == 0 and floor is None), where


@pytest.mark.parametrize("name", ["FedAvg", "FedAvgNormalised", "q-FFL", "CFFL", "ECI", "DW", "EU"])
@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_an_agent_without_a_finite_update_might_as_well_not_be_there(name, wrong):
    losses = torch.linspace(0.1, 2, 5, dtype=torch.float64)
    all_of_them, others = make(name), make(name, 4, sizes=SIZES[1:], losses=losses[1:])
    for t in range(3):
        updates = random_updates(seed=t)
        updates[0, 7] = wrong
        a, b = all_of_them.step(updates), others.step(updates[1:])
        torch.testing.assert_close(a.aggregate, b.aggregate)
        assert a.weights[0] == 0
        if a.importance is not None:
            # The floor that the agent is left with comes out of the others' share.
            assert a.importance[0] < 0.05
            r = a.importance[1:] / a.importance[1:].sum()
            torch.testing.assert_close(r, b.importance, rtol=0.05, atol=0.01)


@pytest.mark.parametrize("name", ["FedAvg", "FedAvgNormalised", "q-FFL"])
def test_a_zero_update_counts_in_a_mean_of_raw_updates_and_has_no_direction(name):
    updates = random_updates() * (torch.arange(5) != 4)[:, None]
    outcome = make(name, q=0.0).step(updates)
    without = make(name, 4, q=0.0).step(updates[:4])
    share = 1.0 if name == "FedAvgNormalised" else 0.5
    torch.testing.assert_close(outcome.aggregate, share * without.aggregate)


def test_an_agent_with_a_loss_that_is_not_finite_takes_no_part_in_qffl():
    losses = torch.tensor([math.nan, 1.0, math.inf, 2.0, 3.0])
    outcome = make("q-FFL", losses=losses).step(random_updates())
    assert (outcome.weights == 0).tolist() == [True, False, True, False, False]


def test_experiments_know_the_masks():
    with pytest.raises(ValueError, match="masks"):
        replace(preset("digits", "UNI", 5), masks="rows")
