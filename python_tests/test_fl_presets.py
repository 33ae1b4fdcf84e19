"""Presets are complete, and settings that make no sense are refused with a reason."""

import typing
from dataclasses import fields, replace

import pytest

from cgsv_ext.fl.experiment import RULES, Experiment
from cgsv_ext.fl.mechanism import MECHANISMS
from cgsv_ext.fl.presets import CLA_10, DEMO, FIGURE_2, datasets, preset, sections

PARTITIONS = ("UNI", "POW", "CLA", "DIR", "NOI")
PAPER = {  # §4.2 and the authors' release
    "mnist": ("cnn", 32, "SGD", 1e-3, 0.955, 0.5, 600),
    "cifar10": ("cnn", 128, "SGD", 0.015, 0.977, 0.15, 2000),
    "mr": ("text-cnn", 128, "Adam", 5e-5, 0.977, 1.0, None),
    "sst": ("text-cnn", 256, "Adam", 1e-4, 0.977, 1.0, None),
}


@pytest.mark.parametrize("dataset", ["digits", *PAPER])
@pytest.mark.parametrize("partition", PARTITIONS)
@pytest.mark.parametrize("agents", [3, 5, 10, 20, 100])
def test_every_partition_of_every_dataset_has_a_preset_for_every_size(dataset, partition, agents):
    e = preset(dataset, partition, agents)
    assert (e.dataset, e.partition, e.agents, e.title) == (dataset, partition, agents, partition)
    assert (e.alpha, e.beta, e.floor, e.masks) == (0.95, 1.0, 1e-3, "whole")
    if dataset in PAPER:
        found = (e.model, e.batch_size, e.optimizer, e.lr, e.decay, e.gamma, e.samples)
        assert found == PAPER[dataset]
        assert (e.rounds, e.epochs, e.steps) == (200, 3, None)


def test_digits_settings_are_those_fixed_before_any_result():
    found = {p: preset("digits", p, 10) for p in PARTITIONS}
    assert {e.model for e in found.values()} == {"mlp"}
    assert {(e.batch_size, e.rounds, e.steps, e.lr, e.gamma, e.samples) for e in found.values()} == {
        (32, 60, 5, 0.1, 0.2, None),
        (64, 60, 25, 0.01, 0.25, None),  # POW
        (32, 40, 60, 0.3, 0.5, 120),  # CLA
    }
    assert preset("digits", "POW", 5).rounds == 100
    assert preset("digits", "CLA", 20).samples == 60


@pytest.mark.parametrize("dataset", ["digits", "mnist", "cifar10"])
def test_figure_2_has_its_label_noise(dataset):
    e = preset(dataset, "figure-2")
    assert (e.partition, e.agents, e.noise) == ("NOI", 5, (0.2, 0.4, 0.6, 0.0, 0.0))
    assert sections(dataset)["figure-2"] == 5
    assert preset(dataset, "figure-2", 5) == e


def test_the_demo_runs_figure_2_and_classes():
    assert DEMO == (FIGURE_2, CLA_10)
    assert (CLA_10.partition, CLA_10.agents) == ("CLA", 10)


def test_changes_win_over_the_file():
    e = preset("digits", "POW", 5, rounds=7, noise=[0.1] * 5, adversaries=["noise"])
    assert (e.rounds, e.noise, e.adversaries, e.lr) == (7, (0.1,) * 5, ("noise",), 0.01)


def test_steps_take_the_place_of_epochs_and_the_reverse():
    assert preset("mnist", "UNI", 5, steps=4).epochs is None
    assert preset("digits", "UNI", 5, epochs=4).steps is None


def test_every_dataset_of_the_file_can_be_read():
    from cgsv_ext.fl.data import DATASETS

    assert set(datasets()) == set(DATASETS)


def test_every_setting_has_a_rule_and_a_default_that_obeys_it():
    assert set(RULES) == {f.name for f in fields(Experiment)}
    for kind in MECHANISMS.values():
        assert set(kind.settings) <= set(RULES)


WRONG = [
    ("dataset", "imagenet", "among digits, mnist"),
    ("model", "transformer", "among .*mlp"),
    ("partition", "uni", "among UNI, POW"),
    ("adversaries", ("angel",), "among noise"),
    ("adversaries", ["noise"], "a tuple of names"),
    ("agents", 0, "at least 1"),
    ("agents", 2.5, "an integer"),
    ("rounds", True, "an integer"),
    ("batch_size", 0, "at least 1"),
    ("lr", 0.0, "above 0"),
    ("lr", float("nan"), "finite"),
    ("lr", float("inf"), "finite"),
    ("gamma", -1.0, "above 0"),
    ("optimizer", "adam", "SGD or Adam"),
    ("decay", 1.5, "at most 1"),
    ("decay", 0.0, "above 0"),
    ("samples", 0, "at least 1"),
    ("exponent", -1.0, "at least 0"),
    ("concentration", 0.0, "above 0"),
    ("noise", (0.1, 0.2), "one share for each of 5 agents, got 2"),
    ("noise", (0.1, 0.2, 0.3, 0.4, 1.5), r"shares in \[0, 1\]"),
    ("alpha", 1.1, r"in \[0, 1\]"),
    ("beta", 0.0, "above 0"),
    ("floor", -1e-3, "at least 0"),
    ("masks", "layer", "whole or layers"),
    ("q", -1.0, "at least 0"),
    ("steps", None, "either steps or epochs"),
    ("epochs", 3, "either steps or epochs"),
    ("steps", 0, "at least 1"),
]


@pytest.mark.parametrize(("name", "value", "text"), WRONG)
def test_a_setting_that_makes_no_sense_is_refused(name, value, text):
    with pytest.raises(ValueError, match=rf"Experiment: expected .*{text}"):
        replace(preset("digits", "UNI", 5), **{name: value})


def test_infinite_beta_and_no_floor_are_the_papers_limits():
    e = preset("digits", "UNI", 5, beta=float("inf"), floor=None)
    assert (e.beta, e.floor) == (float("inf"), None)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("imagenet", "UNI", 5), "dataset among digits"),
        (("digits", "uni", 5), "partition among UNI"),
        (("digits", "UNI"), "a number of agents"),
        (("digits", "figure-2", 10), "expected 5 agents for figure-2, got 10"),
    ],
)
def test_a_preset_that_is_not_there_is_named(arguments, text):
    with pytest.raises(ValueError, match=rf"preset\(\): .*{text}"):
        preset(*arguments)


def test_a_field_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="'learning_rate'"):
        preset("digits", "UNI", 5, learning_rate=1)


def test_agents_have_names_of_their_own():
    e = preset("digits", "UNI", 2, adversaries=("noise", "copier", "noise"))
    assert e.agent_names == ["A1", "A2", "noise 1", "copier", "noise 2"]


def test_types_of_all_fields_are_known():
    assert set(typing.get_type_hints(Experiment)) >= {f.name for f in fields(Experiment)}
