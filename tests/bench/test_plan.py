"""Planning: filters, axes, order, refusals; driven by the shipped declarations, without torch."""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerneldyno.bench import plan
from kerneldyno.bench.plan import UsageError
from kerneldyno.kernels import presets, registry
from kerneldyno.kernels.registry import Device

CPU = Device("cpu", name="test")
GPU = Device("cuda", name="test", capability=(9, 0), memory_bytes=1 << 36)


@pytest.fixture(scope="module")
def kernels():
    return registry.load(declarations_only=True)


@pytest.fixture(scope="module")
def types(kernels):
    return {kernel.operator: kernel.problem for kernel in kernels.values()}


def make(kernels, types, shapes, device=CPU, **options):
    problems = plan.problems(shapes, types, device)
    return plan.make(list(kernels.values()), problems, device, seed=0, **options)


@pytest.mark.parametrize("name", presets.names())
@pytest.mark.parametrize("device", [CPU, GPU], ids=str)
def test_every_preset_makes_a_plan(kernels, types, name, device):
    made = make(kernels, types, presets.preset(name, device.kind).problems, device)
    assert made.groups
    assert len({case.id for case in made.cases}) == len(made.cases)
    assert all(case.flops > 0 and case.min_bytes > 0 for case in made.cases)


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_the_default_sweep_is_as_large_as_promised(kernels, types, kind):
    device = CPU if kind == "cpu" else GPU
    preset = presets.preset("default", kind)
    made = make(kernels, types, preset.problems, device, at_most=preset.at_most)
    assert len(made.groups) >= 12
    assert {group.operator for group in made.groups} == {"attention", "feedforward", "layer"}
    flex = [case for group in made.groups for case in group.cases if case.kernel == "attention/flex"]
    assert len(flex) <= 2


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_kernels_at_several_shares_are_measured_once_and_everywhere_in_their_own_preset(kernels, types, kind):
    device = CPU if kind == "cpu" else GPU
    many = {name for name in kernels if any(fnmatch.fnmatchcase(name, glob) for glob in presets.APPROXIMATIONS)}
    assert {"attention/pruned_25", "layer/pruned_heads_50_activations"} <= many
    for name, most in (("smoke", 0), ("default", 1), ("compare", 1), ("approximations", 99)):
        preset = presets.preset(name, kind)
        made = make(kernels, types, preset.problems, device, at_most=preset.at_most)
        planned = [case.kernel for group in made.groups for case in group.cases if case.kernel in many]
        assert max((planned.count(kernel) for kernel in many), default=0) <= most
        if name == "approximations":
            assert {"attention/pruned_25", "layer/pruned_heads_50_activations"} <= set(planned)
            inputs = {(case.problem.get("structured", False), case.problem["q_len"] > 1) for case in made.cases if "q_len" in case.problem}
            assert len(inputs) == 4  # prefill and decode, random and structured


def test_smoke_leaves_flex_out_and_says_why(kernels, types):
    preset = presets.preset("smoke", "cpu")
    made = make(kernels, types, preset.problems, at_most=preset.at_most)
    assert all(case.kernel != "attention/flex" for group in made.groups for case in group.cases)
    (flex,) = [case for case in made.cases if case.kernel == "attention/flex"]
    assert "--kernels" in made.skipped[flex.id]


def test_triton_kernels_are_skipped_with_a_reason_on_a_cpu(kernels, types):
    made = make(kernels, types, presets.STARTING_POINTS)
    fused = [case for case in made.cases if case.family == "fused"]
    assert {case.operator for case in fused} == {"attention", "feedforward", "layer"}
    assert all("cuda only" in made.skipped[case.id] for case in fused)


def test_a_plan_survives_the_manifest(kernels, types):
    from kerneldyno.bench.manifest import PROTOCOLS, Manifest, Settings

    made = make(kernels, types, presets.STARTING_POINTS)
    manifest = Manifest(
        version="0", created="", settings=Settings(protocol=PROTOCOLS["smoke"]), environment=None, cases=made.cases, skipped=made.skipped
    )
    again = plan.of_manifest(manifest)
    assert [group.id for group in again.groups] == [group.id for group in made.groups]
    assert [[case.id for case in group.cases] for group in again.groups] == [[case.id for case in group.cases] for group in made.groups]


def test_select_by_globs(kernels):
    assert {k.name for k in plan.select(kernels, ["sdpa"])} == {"attention/sdpa", "layer/sdpa"}
    assert {k.name for k in plan.select(kernels, ["attention/sdpa*"])} >= {"attention/sdpa", "attention/sdpa_math"}
    assert {k.operator for k in plan.select(kernels, [], ["layer"])} == {"layer"}


@pytest.mark.parametrize(
    ("globs", "operators", "named"),
    [(["attention/nosuch"], [], "attention/nosuch"), ([], ["convolution"], "convolution")],
)
def test_select_names_what_it_does_not_know(kernels, globs, operators, named):
    with pytest.raises(UsageError, match=named):
        plan.select(kernels, globs, operators)


def test_axes_multiply_and_keep_lengths_consistent():
    shapes = plan.shapes([], ["attention"], {"batch": [1, 4], "seq_len": [128, 256]})
    assert sorted((f["batch"], f["q_len"]) for _, f in shapes) == [(1, 128), (1, 256), (4, 128), (4, 256)]
    decode = presets.Preset("x", "", (presets.attention(q_len=1, kv_len=2048),))
    ((_, fields),) = plan.shapes([decode], ["attention"], {"seq_len": [4096]})
    assert (fields["q_len"], fields["kv_len"]) == (1, 4096)


def test_heads_and_their_groups_may_be_given_in_any_order():
    for axes in ({"heads": [8], "kv_heads": [2, 4]}, {"kv_heads": [2, 4], "heads": [8]}):
        found = plan.shapes([], ["attention"], axes)
        assert [(fields["heads"], fields["kv_heads"]) for _, fields in found] == [(8, 2), (8, 4)]


def test_an_axis_that_makes_problems_equal_does_not_repeat_them():
    assert len(plan.shapes([presets.PRESETS["seed"]], ["feedforward"], {"seq_len": [64]})) == 1


def test_impossible_shapes_are_refused_with_the_value(types):
    with pytest.raises(UsageError, match="-3"):
        plan.problems([presets.attention(batch=-3, q_len=16, heads=8, head_dim=64)], types, CPU)
    with pytest.raises(UsageError, match="5"):
        plan.problems([presets.attention(batch=1, q_len=16, heads=8, kv_heads=5, head_dim=64)], types, CPU)


def test_direction_backward_leaves_out_operators_without_one(types):
    found = plan.problems([(op, {**f, "direction": "backward"}) for op, f in presets.STARTING_POINTS], types, CPU)
    assert [problem.operator for problem in found] == ["attention", "feedforward"]


def test_the_baseline_is_one_that_takes_the_problem(kernels, types):
    made = make(kernels, types, presets.STARTING_POINTS)
    baselines = {case.operator: case.baseline for case in made.cases}
    assert baselines["attention"] == "attention/sdpa"
    without_compiler = {name: kernel for name, kernel in kernels.items() if kernel.family != "compiled"}
    made = make(without_compiler, types, presets.STARTING_POINTS)
    assert {case.baseline for case in made.cases if case.operator == "layer"} == {"layer/eager"}


def test_the_order_alternates_operators_and_starts_in_the_middle(kernels, types):
    made = make(kernels, types, presets.preset("default", "cpu").problems)
    assert {group.operator for group in made.groups[:3]} == {"attention", "feedforward", "layer"}
    sizes = sorted({group.cases[0].flops for group in made.groups if group.operator == "feedforward"})
    first = next(group for group in made.groups if group.operator == "feedforward")
    assert first.cases[0].flops not in (sizes[0], sizes[-1])


@given(st.integers(1, 60))
def test_coarse_to_fine_keeps_everything(count):
    items = list(range(count))
    assert sorted(plan._coarse_to_fine(items)) == items
