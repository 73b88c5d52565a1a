"""Who gets joules: kinds of shapes, the first group of each, and the time that is left."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from kerneldyno.bench import finalists
from kerneldyno.bench.manifest import PROTOCOLS, Settings
from kerneldyno.bench.plan import Group, make
from kerneldyno.kernels import registry
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.feedforward.problem import FeedForward
from kerneldyno.kernels.layer.problem import Layer
from kerneldyno.kernels.registry import Device

SETTINGS = Settings(protocol=PROTOCOLS["default"])


def group_of(problem) -> Group:
    kernels = [kernel for name, kernel in registry.load().items() if name.endswith("/eager")]
    return make(kernels, [problem], Device("cpu"), seed=0).groups[0]


@pytest.mark.parametrize(
    ("problem", "kind"),
    [
        (Attention(q_len=1, kv_len=2048), "decode"),
        (Attention(q_len=16, kv_len=17), "decode"),
        (Attention(q_len=17, kv_len=2048), "prefill"),
        (Attention(q_len=16), "prefill"),  # its own keys only: short, but no cache
        (Attention(batch=64, q_len=512), "prefill"),
        (FeedForward(batch=64, seq_len=1, dim=64, hidden_dim=128), "decode"),
        (FeedForward(batch=1, seq_len=16, dim=64, hidden_dim=128), "decode"),
        (FeedForward(batch=1, seq_len=17, dim=64, hidden_dim=128), "prefill"),
        (Layer(batch=2, seq_len=8, dim=64, heads=4, hidden_dim=128), "decode"),
        (Layer(batch=2, seq_len=512, dim=64, heads=4, hidden_dim=128), "prefill"),
    ],
)
def test_kinds_of_shapes(problem, kind) -> None:
    assert finalists.shape_class(group_of(problem).cases[0]) == kind


def test_the_first_group_of_each_operator_and_kind_is_chosen() -> None:
    shapes = [
        Attention(q_len=512),
        Attention(q_len=128),
        Attention(q_len=1, kv_len=512),
        Attention(q_len=4, kv_len=512),
        FeedForward(seq_len=64, dim=64, hidden_dim=128),
    ]
    groups = [group_of(problem) for problem in shapes]
    assert finalists.joule_groups(groups) == {groups[0].id, groups[2].id, groups[4].id}


def test_what_is_asked_of_a_worker() -> None:
    groups = [group_of(Attention(q_len=512)), group_of(Attention(q_len=128))]
    first, second = (group.id for group in groups)

    def asked(group: str, spent_s: float = 0.0, **changes):
        return finalists.asked(msgspec.structs.replace(SETTINGS, **changes), groups, group, spent_s)

    assert asked(first) == ("finalists", None)
    assert asked(second) == ("none", None)
    assert asked("") == ("none", None)
    assert asked(second, energy="on") == ("all", None)
    assert asked(first, energy="off") == ("none", None)
    assert asked(first, protocol=PROTOCOLS["smoke"]) == ("none", None)
    assert asked(first, protocol=PROTOCOLS["smoke"], energy="on") == ("all", None)
    assert asked(first, budget_s=400.0) == ("finalists", 100.0)
    assert asked(first, spent_s=70.0, budget_s=400.0) == ("finalists", 30.0)
    assert asked(first, spent_s=170.0, budget_s=400.0, energy="on") == ("all", 0.0)


def test_two_exact_kernels_and_one_approximate_are_finalists() -> None:
    order, number = finalists.ranking([3.0, 1.0, 2.0, 0.5, 0.6, 4.0], [False, False, False, True, True, False])
    assert (order[:number], order[number:]) == ([1, 2, 3], [4, 0, 5])


@pytest.mark.parametrize(
    ("latency_s", "approximate", "expected"),
    [([], [], ([], 0)), ([1.0], [False], ([0], 1)), ([2.0, 1.0], [True, True], ([1, 0], 1))],
)
def test_few_kernels_are_finalists_all_the_same(latency_s, approximate, expected) -> None:
    assert finalists.ranking(latency_s, approximate) == expected


def test_choosing_loads_no_torch() -> None:
    code = "import sys; from kerneldyno.bench import finalists, windows; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"
