"""The plants themselves: enough of them, named apart, wrong only where they say so."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch

from kerneldyno.bench.gate.examine import complete
from kerneldyno.bench.selftest import approximations, cheats, deferring, mistakes
from kerneldyno.bench.selftest.plants import SHORT_TOKENS, by_name, planted, slug
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.registry import Device, Setup

FEWEST = {"attention": 60, "gradients": 33, "feedforward": 30, "layer": 50, "approximations": 15, "cheats": 40}
MODULES = sorted({module for modules in mistakes.MODULES.values() for module in modules})


def plants_of(section):
    return [plant for name in mistakes.MODULES[section] for plant in import_module(f"kerneldyno.bench.selftest.{name}").plants()]


@pytest.mark.parametrize("section", FEWEST)
def test_there_are_enough_faults(section):
    assert len([plant for plant in plants_of(section) if not plant.right]) >= FEWEST[section]


@pytest.mark.parametrize("module", MODULES)
def test_names_tell_plants_apart(module):
    plants = import_module(f"kerneldyno.bench.selftest.{module}").plants()
    assert len(by_name(plants)) == len(plants)


@pytest.mark.parametrize("section", FEWEST)
def test_each_plant_is_tried_in_short_and_in_long(section):
    for plant in plants_of(section):
        everywhere, brief = plant.places(short=False), plant.places(short=True)
        assert everywhere, plant.title
        assert set(brief) <= set(everywhere)
        assert brief or plant.beyond, plant.title
        assert all(problem.shape[1] <= SHORT_TOKENS for problem in brief)


def test_attention_is_tried_in_long_contexts_and_in_all_dtypes():
    places = {problem for plant in plants_of("attention") for problem in plant.problems}
    assert max(problem.kv_len for problem in places) == 32768
    assert {problem.dtype for problem in places} == {"float32", "bfloat16", "float16"}
    assert {"causal", "padding", "bias", "mask"} <= set().union(*(problem.features for problem in places))


@pytest.mark.parametrize("section", ["attention", "gradients", "feedforward", "layer"])
def test_every_kernel_takes_the_problems_it_is_planted_at(section):
    for plant in plants_of(section):
        for problem in plant.places(short=False):
            assert plant.kernel.why_not(problem, Device("cpu")) is None, (plant.title, problem.label)


def test_what_only_exists_on_a_gpu_says_so():
    (plant,) = [plant for plant in deferring.plants() if plant.only_on == "cuda"]
    assert plant.kernel.why_not(plant.problems[0], Device("cpu")) == "runs on cuda only, not on cpu"


def test_twins_are_refused():
    one = planted("a fault", lambda problem, setup: None, [Attention(q_len=8)])
    with pytest.raises(ValueError, match="attention/a_fault"):
        by_name([one, one])


def test_titles_become_names():
    assert slug("output × 1.05, no scale") == "output_1_05_no_scale"


def wrong_by(plant):
    """How far a plant is from the reference at its first short problem, relative to the largest right value."""
    problem = plant.places(short=True)[0]
    setup = complete(problem, Setup(torch.device("cpu")), 0)
    inputs = problem.inputs(0)
    with torch.no_grad():
        output = plant.kernel.build(problem, setup)(inputs)
        right = problem.reference(inputs, setup.weights)
    return float((output.double() - right).abs().nan_to_num(nan=torch.inf).max() / right.abs().max())


HIDDEN_FROM_RANDOM_INPUTS = (
    "a tile is lost in 1 call of",
    "blind rows of a mask are NaN",
    "first tile of keys from the previous call",
    "last row not written",
    "maximum of the first tile only",
    "NaN where the first tile of keys is hidden",
    "no maximum subtracted",
    "one maximum for all rows",
    "softcap lifts hidden keys",
    "storage offset ignored",
    "strides ignored",
    "tokens past the last whole tile",
    "workspace not zeroed",
    "wrong unless the length is a multiple of 128",
    "norm statistics in float16",
    "variance from squares",
)
"""Right in a first call on random inputs: what makes them wrong is a probe's business."""


@pytest.mark.parametrize("section", ["attention", "feedforward", "layer"])
def test_every_fault_is_one_and_what_is_right_is(section):
    for plant in plants_of(section):
        if not plant.places(short=True):
            continue
        if plant.right:
            assert wrong_by(plant) < 1e-5, plant.title
        elif not plant.title.startswith(HIDDEN_FROM_RANDOM_INPUTS):
            assert wrong_by(plant) > 1e-6, plant.title


def test_impostors_among_approximations_claim_what_the_shipped_kernel_claims():
    faults = [plant for plant in approximations.plants() if not plant.right and plant.kernel.approximate]
    assert len(faults) >= 12
    assert all(plant.kernel.claim for plant in faults)


def test_honest_work_is_honest():
    (honest,) = [plant for plant in cheats.plants() if plant.right]
    assert wrong_by(honest) < 1e-5
