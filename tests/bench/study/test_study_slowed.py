"""The plugin of the study: the same kernels under other names, slower by exactly the share, with the same answers."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from kerneldyno.bench.study import pool, slowed
from kerneldyno.bench.study.subjects import SLOWER, SUBJECTS, VARIANTS, planted
from kerneldyno.kernels import registry
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.feedforward.problem import FeedForward
from kerneldyno.kernels.registry import Device, Setup

CPU = Device("cpu")


class Clock:
    """Moves by itself a little with every look."""

    def __init__(self, tick):
        self.now, self.tick, self.looks = 0, tick, 0

    def __call__(self):
        self.now += self.tick
        self.looks += 1
        return self.now


@pytest.mark.parametrize("share", SLOWER.values())
@pytest.mark.parametrize("call", [1_000_000, 3_000_000])
def test_a_slowed_call_takes_its_share_longer_than_that_very_call(share, call):
    clock = Clock(tick=100)

    def run(inputs):
        clock.now += call
        return inputs * 2

    slower = slowed.slowed(run, share, clock)
    for factor in (1, 5):  # a call that takes longer is slowed by more
        clock.now, longer = 0, call * factor
        run_of = slowed.slowed(lambda inputs, span=longer: (setattr(clock, "now", clock.now + span), inputs)[1], share, clock)
        assert run_of(7) == 7
        assert longer * (1 + share) <= clock.now <= longer * (1 + share) + 500
    clock.now = 0
    assert slower(21) == 42
    assert call * (1 + share) <= clock.now <= call * (1 + share) + 500


def test_what_a_run_holds_is_still_told():
    run = registry.holding(lambda inputs: inputs, torch.zeros(4))
    assert slowed.slowed(run, 0.1).weight_bytes == 16


def test_every_variant_declares_what_its_kernel_declares():
    found = registry.load([pool.PLUGIN], declarations_only=True)
    ours = {"name", "family", "build_run", "refuses", "source"}
    same = [item.name for item in dataclasses.fields(registry.Kernel) if item.name not in ours]
    assert {"own_allocator", "prepare", "identified", "requires", "dtypes", "devices", "claim"} <= set(same)
    for name in SUBJECTS:
        for variant in VARIANTS:
            one = found[planted(name, variant)]
            assert {field: getattr(one, field) for field in same if field != "identified"} == {
                field: getattr(found[name], field) for field in same if field != "identified"
            }
            assert (one.identified is None) == (found[name].identified is None)
    assert len([one for one in found.values() if not one.shipped]) == len(SUBJECTS) * len(VARIANTS)


def test_every_other_problem_is_refused():
    own = slowed.every_variant()["attention/sdpa_base"]
    assert own.why_not(Attention(q_len=256), CPU) is None
    assert "sequence length 256 only" in own.why_not(Attention(q_len=128), CPU)
    assert "sequence length 256 only" in own.why_not(Attention(batch=2, q_len=256), CPU)
    assert "for the CPU" in own.why_not(Attention(q_len=256), Device("cuda"))


def test_what_the_shipped_kernel_refuses_is_refused():
    shipped = dataclasses.replace(registry.load()["attention/sdpa"], refuses=lambda problem, device: "not today")
    assert slowed.variant_of(shipped, "copy", 256).why_not(Attention(q_len=256), CPU) == "not today"


def test_all_variants_give_the_shipped_kernel_s_answer():
    problem = FeedForward(batch=1, seq_len=64, dim=16, hidden_dim=32)
    cpu = torch.device("cpu")
    setup, inputs = Setup(cpu, problem.weights(0, cpu), problem.inputs(1, cpu)), problem.inputs(2, cpu)
    found = slowed.every_variant()
    right = registry.load()["feedforward/eager"].build(problem, setup)(inputs)
    for variant in VARIANTS:
        run = found[planted("feedforward/eager", variant)].build(problem, setup)
        assert torch.equal(run(inputs), right)
        assert hasattr(run, "__wrapped__") == (variant in SLOWER)
