"""Models live in the rows of one matrix, and N of them at once are N models."""

from __future__ import annotations

import pytest
import torch
from fl_models import IMAGES, SMALL, rows, samples
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import vector_to_parameters

from cgsv_ext.fl import Dataset
from cgsv_ext.fl.model import MLP, MODELS, TextCNN
from cgsv_ext.fl.model.cnn import cifar_cnn, mnist_cnn
from cgsv_ext.fl.model.ways import FASTEST_ON_CPU
from cgsv_ext.fl.seeds import generator
from cgsv_ext.fl.threads import one_thread


@pytest.fixture(autouse=True)
def on_one_thread():
    with one_thread():
        yield


def dataset(shape, classes, vocabulary=0):
    x, y = torch.zeros(1, *shape), torch.zeros(1, dtype=torch.int64)
    return Dataset("some", x, y, x, y, x, y, classes=classes, vocabulary=vocabulary)


@pytest.mark.parametrize(
    ("name", "shape", "numel"),
    [
        ("mlp", (1, 8, 8), 64 * 64 + 64 + 640 + 10),
        ("cnn", (1, 8, 8), 1_898),
        ("cnn", (1, 32, 32), 104_242),
        ("cnn", (3, 32, 32), 121_182),
    ],
)
def test_numbers_of_parameters(name, shape, numel):
    model = MODELS[name](dataset(shape, 10))
    assert model.numel == sum(model.sizes) == numel
    assert model.initial(generator(0, "model")).shape == (numel,)


@settings(max_examples=25)
@given(st.integers(1, 50), st.integers(1, 9))
def test_numbers_of_parameters_of_texts(vocabulary, classes):
    model = MODELS["text-cnn"](dataset((5,), classes, vocabulary))
    assert model.numel == 300 * vocabulary + 3 * (128 * 300 * 3 + 128) + 384 * classes + classes


def test_every_model_has_a_way():
    assert {model.name for model in SMALL.values()} == set(FASTEST_ON_CPU)


def test_images_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"cnn\(\): expected images of shape .*, got \(1, 28, 28\)"):
        MODELS["cnn"](dataset((1, 28, 28), 10))


def test_texts_too_short_for_the_kernels_are_refused():
    with pytest.raises(ValueError, match=r"TextCNN\(\): expected texts of at least 3 tokens, got 2"):
        MODELS["text-cnn"](dataset((2,), 2, 10))


@pytest.mark.parametrize("name", SMALL)
def test_layers_cover_the_matrix_and_share_its_memory(name):
    model, matrix = SMALL[name], rows(name, 2)
    layers = model.layers(matrix)
    assert torch.equal(torch.cat([layer.flatten(1) for layer in layers], dim=1), matrix)
    for value, layer in enumerate(layers):
        layer.fill_(value)
    expected = torch.arange(len(layers)).repeat_interleave(torch.tensor(model.sizes)).double()
    assert torch.equal(matrix, expected.expand_as(matrix))


@pytest.mark.parametrize("name", SMALL)
def test_last_layer_is_that_of_the_classes(name):
    model, matrix = SMALL[name], rows(name, 1)
    *_, weight, bias = model.module(matrix[0]).parameters()
    assert torch.equal(matrix[0, model.last_layer], torch.cat([weight.detach().flatten(), bias.detach()]))


@pytest.mark.parametrize("way", ["stacked", "vmap", "loop", None])
@pytest.mark.parametrize("name", SMALL)
def test_logits_of_all_are_those_of_the_modules(name, way):
    model, matrix = SMALL[name], rows(name, 3)
    x = samples(name, 3, 4)
    expected = torch.stack([model.module(row)(x[i]) for i, row in enumerate(matrix)])
    torch.testing.assert_close(model.logits(model.layers(matrix), x, way), expected)


@pytest.mark.parametrize("name", ["mlp", "digits-cnn", "text-cnn"])
@pytest.mark.parametrize("way", ["stacked", "vmap", "loop"])
def test_gradients_of_all_are_those_of_the_modules(name, way):
    model, matrix = SMALL[name], rows(name, 3)
    x, layers = samples(name, 3, 4), [layer.requires_grad_() for layer in model.layers(rows(name, 3))]
    model.logits(layers, x, way).square().sum().backward()
    found = torch.cat([layer.grad.flatten(1) for layer in layers], dim=1)
    for i, row in enumerate(matrix):
        module = model.module(row)
        module(x[i]).square().sum().backward()
        torch.testing.assert_close(found[i], torch.cat([p.grad.flatten() for p in module.parameters()]))


def test_writing_the_matrix_changes_the_module_and_back():
    model, matrix = SMALL["mlp"], rows("mlp", 3)
    module = model.module(matrix[1])
    x = samples("mlp", 2)
    matrix[1].zero_()
    assert torch.equal(module(x), torch.zeros(2, 10, dtype=torch.float64))
    with torch.no_grad():
        module[-1].bias.fill_(3.0)
    assert torch.equal(matrix[1, -10:], torch.full((10,), 3.0, dtype=torch.float64))


def test_modules_of_two_rows_share_nothing():
    model, matrix = SMALL["text-cnn"], rows("text-cnn", 2)
    before = matrix[0].clone()
    with torch.no_grad():
        for parameter in model.module(matrix[1]).parameters():
            parameter.zero_()
    assert torch.equal(matrix[0], before)
    assert not matrix[1].any()


@pytest.mark.parametrize("name", SMALL)
def test_initial_parameters_are_spread_as_torch_spreads_them(name):
    model = SMALL[name]
    layers = model.layers(model.initial(generator(0, "model")))
    if name == "text-cnn":
        table = TextCNN(1000, 2, 5).layers(TextCNN(1000, 2, 5).initial(generator(0, "model")))[0]
        assert table.std().item() == pytest.approx(1, abs=0.01)
        assert table.mean().item() == pytest.approx(0, abs=0.01)
        layers = layers[1:]
    for weight, bias in zip(layers[::2], layers[1::2], strict=True):
        bound = weight[0].numel() ** -0.5
        both = torch.cat([weight.flatten(), bias])
        assert both.abs().max() <= bound
        assert both.numel() < 50 or both.abs().max() > 0.9 * bound
        assert bias.unique().numel() == bias.numel()


def mnist_as_released():
    return nn.Sequential(
        *(nn.Conv2d(1, 64, 3), nn.Tanh(), nn.MaxPool2d(2), nn.Conv2d(64, 16, 7), nn.Tanh(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(256, 200), nn.Tanh(), nn.Linear(200, 10)),
    )


def cifar_as_released():
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(800, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )


@pytest.mark.parametrize(
    ("build", "name", "released"),
    [(mnist_cnn, "mnist-cnn", mnist_as_released), (cifar_cnn, "cifar-cnn", cifar_as_released)],
)
def test_networks_are_those_of_the_release(build, name, released):
    """There, the activation comes before the pooling: the same function, and the same gradient."""
    row, x = rows(name, 1)[0], samples(name, 3)
    theirs, ours = released().double(), build(10).module(row)
    vector_to_parameters(row, theirs.parameters())
    torch.testing.assert_close(ours(x), theirs(x))
    for net in (ours, theirs):
        net(x).square().sum().backward()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


def test_text_network_is_kims():
    """Every feature is the greatest response of one kernel to any words in a row."""
    model, row, x = SMALL["text-cnn"], rows("text-cnn", 1)[0], samples("text-cnn", 4)
    table, *convolutions, weight, bias = model.layers(row)
    features = []
    for kernel, shift in zip(convolutions[::2], convolutions[1::2], strict=True):
        k = kernel.shape[2]
        windows = torch.stack([table[x[:, i : i + k]] for i in range(6 - k + 1)], dim=1)
        responses = torch.einsum("bwkd,odk->bwo", windows, kernel) + shift
        features.append(responses.amax(1).clamp(min=0))
    torch.testing.assert_close(model.module(row)(x), torch.cat(features, 1) @ weight.mT + bias)


@settings(max_examples=25)
@given(st.lists(st.integers(1, 6), min_size=2, max_size=4), st.integers(1, 4), st.integers(1, 3))
def test_perceptrons_of_any_widths(widths, agents, batch):
    model = MLP(*widths)
    matrix = torch.randn(agents, model.numel, dtype=torch.float64)
    x = torch.randn(agents, batch, widths[0], dtype=torch.float64)
    expected = torch.stack([model.module(row)(x[i]) for i, row in enumerate(matrix)])
    torch.testing.assert_close(model.logits(model.layers(matrix), x), expected)


@pytest.mark.parametrize("name", ["mlp", "text-cnn", *IMAGES])
def test_width_is_that_of_the_widest_activation(name):
    """What bounds the memory of an evaluation."""
    found, model = [], SMALL[name]
    module = model.module(rows(name, 1)[0])
    for step in module.modules():
        step.register_forward_hook(lambda _, inputs, out: found.extend([inputs[0].numel(), out.numel()]))
    module(samples(name, 1))
    assert max(found) == model.width
