"""Which cells a comparison has, from what real kernels declare."""

from __future__ import annotations

import pytest

from kerneldyno.bench.compare.cells import CANARIES, planned
from kerneldyno.bench.compare.contestants import Contestants, two_kernels
from kerneldyno.bench.comparison import Side
from kerneldyno.bench.messages import Source
from kerneldyno.bench.plan import UsageError
from kerneldyno.kernels import registry
from kerneldyno.kernels.registry import Device

CPU = Device("cpu", name="a processor")


@pytest.fixture(scope="module")
def kernels():
    return registry.load(declarations_only=True)


@pytest.fixture(scope="module")
def shapes(kernels):
    attention, feedforward = kernels["attention/sdpa"].problem, kernels["feedforward/eager"].problem
    plain = {"batch": 1, "heads": 2, "head_dim": 16, "dtype": "float32"}
    networks = [feedforward(batch=1, seq_len=length, dim=32, hidden_dim=64, dtype="float32") for length in (8, 16)]
    return [*(attention(q_len=length, **plain) for length in (16, 32, 64)), attention(q_len=32, bias="additive", **plain), *networks]


def contestants(kernels, names, *, base=None, **more):
    return Contestants(
        form="commits",
        base=Side(label="main"),
        candidate=Side(label="worktree"),
        base_kernels=kernels if base is None else base,
        candidate_kernels=kernels,
        pairs=tuple((name, name) for name in names),
        sources=dict.fromkeys(("base", "candidate", "copy"), Source()),
        **more,
    )


def test_every_pair_meets_at_every_problem_of_its_operator(kernels, shapes):
    found = planned(contestants(kernels, ["attention/sdpa", "feedforward/eager"]), shapes, CPU, seed=0)
    compared = [cell for cell in found.cells if cell.compared]
    assert len(compared) == 4 + 2
    assert {cell.operator for cell in compared} == {"attention", "feedforward"}
    assert all(cell.base and cell.candidate and cell.base != cell.candidate for cell in compared)
    assert len({cell.id for cell in compared}) == len(compared)
    ids = {case.id for case in found.cases}
    assert {case for cell in found.cells for case in (cell.base, cell.candidate, cell.copy) if case} == ids


def test_the_first_cells_are_canaries_too(kernels, shapes):
    found = planned(contestants(kernels, ["attention/sdpa"]), shapes, CPU, seed=0)
    assert [cell.copy is not None for cell in found.cells] == [True] * CANARIES + [False]
    sides = {case.id: case.side for case in found.cases}
    assert {sides[cell.copy] for cell in found.cells if cell.copy} == {"copy"}


def test_too_few_cells_get_canaries_beside_them(kernels, shapes):
    found = planned(contestants(kernels, ["attention/sdpa"]), shapes[:1], CPU, seed=0)
    beside = [cell for cell in found.cells if not cell.compared]
    assert len(beside) == CANARIES - 1
    assert len({cell.base_kernel for cell in beside} | {"attention/sdpa"}) == CANARIES
    assert all(cell.candidate is None and cell.base and cell.copy for cell in beside)


def test_what_cannot_share_a_process_is_no_canary(kernels, shapes):
    apart = contestants(kernels, ["attention/sdpa"], adjacent={"attention/sdpa": "a custom operator"})
    found = planned(apart, shapes, CPU, seed=0)
    assert all(cell.copy is None and cell.adjacent for cell in found.cells if cell.compared)
    assert sum(cell.copy is not None for cell in found.cells) == CANARIES
    assert all(cell.base_kernel != "attention/sdpa" for cell in found.cells if cell.copy)


def test_a_side_that_lacks_the_kernel_says_so(kernels, shapes):
    old = {name: kernel for name, kernel in kernels.items() if name != "attention/sdpa"}
    (new,) = [one for one in planned(contestants(kernels, ["attention/sdpa"], base=old), shapes[:1], CPU, seed=0).cells if one.compared]
    assert (new.base, new.reason) == (None, "base: there is no attention/sdpa")
    broken = contestants(kernels, ["attention/sdpa"], broken={"attention/sdpa": "sdpa.py does not parse"})
    (lost,) = [one for one in planned(broken, shapes[:1], CPU, seed=0).cells if one.compared]
    assert lost.candidate is None
    assert lost.broken
    assert "does not parse" in lost.reason


def test_a_problem_that_neither_side_takes_is_no_cell(kernels, shapes):
    found = planned(contestants(kernels, ["attention/sdpa_flash", "attention/fused"]), shapes, CPU, seed=0)
    assert {cell.candidate_kernel for cell in found.cells if cell.compared} <= {"attention/sdpa_flash"}
    alone = planned(contestants(kernels, ["attention/fused"]), shapes, CPU, seed=0)
    assert alone.cells == []
    assert alone.nowhere == {"attention/fused": "runs on cuda only, not on cpu"}


def test_kernels_that_are_slow_to_build_are_measured_at_few_problems(kernels, shapes):
    found = planned(contestants(kernels, ["attention/flex", "attention/sdpa"]), shapes, CPU, seed=0, at_most=[("*/flex", 1)])
    assert sum(cell.candidate_kernel == "attention/flex" for cell in found.cells) == 1


def test_two_kernels_by_name(kernels):
    found = two_kernels("sdpa_math", "attention/eager", ())
    assert found.pairs == (("attention/sdpa_math", "attention/eager"),)
    assert found.operators == {"attention"}
    with pytest.raises(UsageError, match="exactly one kernel"):
        two_kernels("attention/sdpa*", "attention/eager", ())
