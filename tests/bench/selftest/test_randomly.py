"""Random problems: the same for a seed, awkward, possible, and right kernels pass them."""

from __future__ import annotations

import pytest

from kerneldyno.bench.selftest import randomly
from kerneldyno.bench.selftest.context import Context
from kerneldyno.kernels.attention.problem import EVERYTHING
from kerneldyno.kernels.registry import OPERATORS, Device


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_seed_gives_the_same_problems_however_many(operator):
    assert randomly.problems(operator, 5, 3) == randomly.problems(operator, 20, 3)[:5]
    assert randomly.problems(operator, 20, 3) != randomly.problems(operator, 20, 4)
    assert len(set(randomly.problems(operator, 200, 0))) > 150


def test_all_features_of_attention_are_drawn():
    drawn = randomly.problems("attention", 200, 0)
    assert set().union(*(problem.features for problem in drawn)) == set(EVERYTHING)
    assert {problem.direction for problem in drawn} == {"forward", "backward"}
    assert {problem.head_dim for problem in drawn} == set(randomly.HEAD_DIMS)
    assert any(problem.cross for problem in drawn)
    assert any(problem.grouped for problem in drawn)


def test_every_quick_kernel_here_takes_part_and_slow_ones_in_some():
    from kerneldyno.kernels import registry

    context = Context(Device("cpu"))
    kernels = registry.load()
    drawn = randomly.problems("attention", 100, 0)
    jobs = list(randomly._jobs("attention", kernels.values(), drawn, 4, context))
    named = {name for job in jobs for _, name in job.kernels}
    assert {"attention/eager", "attention/sdpa", "attention/onnxrt", "attention/int8", "attention/pruned"} <= named
    assert sum("attention/compiled" in {name for _, name in job.kernels} for job in jobs) <= 4


def test_right_kernels_pass(monkeypatch):
    monkeypatch.setattr(randomly, "FEW_PROBLEMS", 2)
    found = list(randomly.findings(Context(Device("cpu"), seed=5, short=True)))
    assert len(found) > 15
    assert [item for item in found if item.alarm] == []
    assert "(seed 5)" in found[0].where
