"""Models live in the rows of one matrix, and batched training is N separate trainings."""

from dataclasses import replace

import pytest
import torch

from cgsv_ext.fl import CLA_10, FIGURE_2
from cgsv_ext.fl.agent import accuracy
from cgsv_ext.fl.model import MLP
from cgsv_ext.fl.seeds import generator
from cgsv_ext.fl.server import federation
from cgsv_ext.fl.threads import one_thread

pytestmark = pytest.mark.usefixtures("on_one_thread")
MODELS = [MLP(64, 64, 10), MLP(7, 3), MLP(5, 4, 6, 2)]


@pytest.fixture
def on_one_thread():
    with one_thread():
        yield


def random_rows(model, agents=3):
    return torch.randn(agents, model.numel, generator=generator(0, "rows"), dtype=torch.float64)


@pytest.mark.parametrize("model", MODELS)
def test_layers_cover_the_matrix_and_share_its_memory(model):
    matrix = random_rows(model)
    layers = model.layers(matrix)
    assert torch.equal(torch.cat([layer.flatten(1) for layer in layers], dim=1), matrix)
    for value, layer in enumerate(layers):
        layer.fill_(value)
    expected = torch.cat(
        [torch.full((size,), float(k), dtype=torch.float64) for k, size in enumerate(model.sizes)]
    )
    assert torch.equal(matrix, expected.expand_as(matrix))


@pytest.mark.parametrize("model", MODELS)
def test_batched_logits_are_those_of_the_modules(model):
    matrix = random_rows(model)
    x = torch.randn(3, 11, model.widths[0], generator=generator(0, "x"), dtype=torch.float64)
    expected = torch.stack([model.module(row)(x[i]) for i, row in enumerate(matrix)])
    torch.testing.assert_close(model.logits(model.layers(matrix), x), expected)


def test_writing_the_matrix_changes_the_module_and_back():
    model = MODELS[0]
    matrix = random_rows(model)
    module = model.module(matrix[1])
    x = torch.randn(2, 64, dtype=torch.float64)
    matrix[1].zero_()
    assert torch.equal(module(x), torch.zeros(2, 10, dtype=torch.float64))
    with torch.no_grad():
        module[2].bias.fill_(3.0)
    assert torch.equal(matrix[1, -10:], torch.full((10,), 3.0, dtype=torch.float64))


def test_initial_parameters_have_the_bounds_of_linear_layers():
    model = MLP(64, 16, 10)
    weight, bias, last, last_bias = model.layers(model.initial(generator(0, "model"))[None])
    for tensor, bound in [(weight, 1 / 8), (bias, 1 / 8), (last, 1 / 4), (last_bias, 1 / 4)]:
        assert tensor.abs().max() <= bound
        assert tensor.abs().max() > 0.7 * bound


@pytest.mark.parametrize("experiment", [FIGURE_2, replace(CLA_10, partition="POW")])
def test_batched_training_equals_the_plain_loop(experiment):
    batched, looped = federation(experiment, 1), federation(experiment, 1)
    start = batched.parameters.clone()
    batched.train(20, 32, 0.1, generator(1, "batches"))
    looped.train_one_by_one(20, 32, 0.1, generator(1, "batches"))
    assert (batched.parameters - start).norm(dim=1).min() > 0.1
    torch.testing.assert_close(batched.parameters, looped.parameters, rtol=1e-4, atol=1e-5)


def test_plain_loop_is_sgd_on_each_agents_own_batches():
    agents = federation(FIGURE_2, 1)
    x, y = agents.draw(32, generator(1, "batches"))
    expected = []
    for i, row in enumerate(agents.parameters.clone()):
        module = agents.model.module(row)
        optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
        torch.nn.functional.cross_entropy(module(x[i]), y[i]).backward()
        optimizer.step()
        expected.append(row)
    agents.train_one_by_one(1, 32, 0.5, generator(1, "batches"))
    torch.testing.assert_close(agents.parameters, torch.stack(expected))


def test_batches_come_from_each_agents_own_samples_and_labels():
    """Label every sample by its agent, then see whose samples each agent draws."""
    agents = federation(replace(FIGURE_2, partition="POW"), 1)
    agents._labels = torch.repeat_interleave(torch.arange(5), agents.sizes)
    _, owner = agents.draw(2000, generator(1, "batches"))
    assert torch.equal(owner, torch.arange(5)[:, None].expand(5, 2000))
    agents._labels = torch.cat([torch.arange(size) for size in agents.sizes.tolist()])
    _, place = agents.draw(20000, generator(1, "batches"))
    for row, size in zip(place, agents.sizes.tolist(), strict=True):
        assert len(row.unique()) == size


def test_accuracy_counts_right_labels():
    agents = federation(FIGURE_2, 1)
    rows = random_rows(agents.model, 4).float()
    found = accuracy(agents.model, rows, agents.data)
    for row, share in zip(rows, found.tolist(), strict=True):
        guess = agents.model.module(row)(agents.data.test_x).argmax(1)
        assert share == (guess == agents.data.test_y).double().mean().item()
