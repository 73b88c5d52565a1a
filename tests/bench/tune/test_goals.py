"""What there is to tune: keys, who stands for them, candidates that can be told apart and stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerneldyno.bench.launch import Options
from kerneldyno.bench.plan import UsageError
from kerneldyno.bench.tune import goals, prune
from kerneldyno.kernels import _tuned, registry
from kerneldyno.kernels._cards import CARDS, H100
from kerneldyno.kernels.attention import _decode_tuning
from kerneldyno.kernels.feedforward import _fused_tuning

KERNELS = registry.load(declarations_only=True)
DEVICE, CARD = goals.card_named("sm_90")


def found(**options: Any) -> list[goals.Goal]:
    return goals.goals(goals.Asked(Options(**options)), DEVICE, CARD).found


def test_problems_with_one_key_are_tuned_once_at_the_largest() -> None:
    lengths = [2048, 4096, 8192]
    chosen = found(
        kernels=("attention/fused",), axes={"q_len": lengths, "heads": [16], "batch": [4], "head_dim": [128], "dtype": ["bfloat16"]}
    )
    assert [(goal.key.length, goal.problem.q_len, goal.shared) for goal in chosen] == [("≤4k", 4096, 2), ("≤16k", 8192, 1)]
    assert all(goal.key.architecture == "sm_90" and goal.key.function == "prefill_kernel" for goal in chosen)


def test_a_feed_forward_network_has_a_choice_for_each_matrix() -> None:
    shape = {"seq_len": [4096], "dim": [4096], "hidden_dim": [14336], "gated": [True], "activation": ["silu"]}
    chosen = found(kernels=("feedforward/fused",), axes=shape)
    assert [goal.key.size for goal in chosen] == ["4096→16384 gated", "16384→4096"]
    square = found(kernels=("feedforward/fused",), axes={"seq_len": [512], "dim": [512], "hidden_dim": [512]})
    assert [goal.key.size for goal in square] == ["512→512"]


def test_what_needs_other_registers_is_a_choice_of_its_own() -> None:
    shape = {"seq_len": [20_000], "dim": [512], "hidden_dim": [2048], "bias": [False, True], "activation": ["gelu", "relu"]}
    traits = {(goal.key.size, goal.key.traits) for goal in found(kernels=("feedforward/fused",), axes=shape)}
    wide, narrow = "512→2048", "2048→512"
    assert traits == {(wide, ""), (wide, "bias"), (wide, "gelu"), (wide, "gelu, bias"), (narrow, ""), (narrow, "bias")}


def test_too_few_tokens_for_the_largest_tiles_are_a_choice_of_their_own() -> None:
    axes = {"seq_len": [300, 512, 1000], "dim": [4096], "hidden_dim": [4096], "bias": [False], "dtype": ["bfloat16"]}
    traits = {(goal.problem.seq_len, goal.key.traits) for goal in found(kernels=("feedforward/fused",), axes=axes)}
    assert traits == {(300, "fewest tiles"), (512, "few tiles"), (1000, "")}


def test_odd_rows_are_not_built_with_a_candidate_for_others() -> None:
    axes = {"seq_len": [512], "dim": [500], "hidden_dim": [512]}
    (goal,) = found(kernels=("feedforward/fused",), axes=axes)
    assert goal.key.size == "512→512"
    pin = _tuned.Pin.of(goal.key, goal.task.default)
    first, second = _fused_tuning.linears(goal.problem)
    assert pin.fits(_fused_tuning.key(second, goal.problem, H100))
    assert not pin.fits(_fused_tuning.key(first, goal.problem, H100))


def test_few_queries_do_not_take_what_many_were_measured_with() -> None:
    axes = {"batch": [16], "heads": [32], "q_len": [20, 64, 65, 4096], "kv_len": [4096], "head_dim": [128], "causal": [True]}
    chosen = found(kernels=("attention/fused",), axes={**axes, "dtype": ["bfloat16"]})
    assert [(goal.key.traits, goal.problem.q_len, goal.shared) for goal in chosen] == [("few queries", 64, 2), ("", 4096, 2)]


def test_candidates_for_odd_rows_of_the_decode_kernel_are_those_that_are_launched() -> None:
    axes = {"q_len": [1], "kv_len": [4096], "heads": [32], "kv_heads": [8], "head_dim": [100], "dtype": ["bfloat16"]}
    (goal,) = found(kernels=("attention/fused",), axes=axes)
    tiles = [goal.task.default, *goal.task.candidates]
    assert len(tiles) > 5
    assert [_decode_tuning.launched(tile, goal.problem) for tile in tiles] == tiles


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"kernels": ("attention/eager",)},
            "no chosen kernel offers a choice: choose from attention/fused, attention/fused_hopper, feedforward/fused",
        ),
        (
            {"kernels": ("attention/fused",), "axes": {"head_dim": [36], "q_len": [64], "dtype": ["float16"]}},
            "leaves attention/fused a choice",
        ),
        ({"kernels": ("attention/fused",), "axes": {"head_dim": [300]}}, "leaves attention/fused a choice"),
        ({"presets": ("nonsense",)}, "--preset 'nonsense' is unknown"),
    ],
)
def test_where_there_is_nothing_to_tune_it_says_so(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        found(**options)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("text", ["sm_90", "90", "SM90", "9.0"])
def test_architectures_may_be_written_in_several_ways(text: str) -> None:
    assert goals.card_named(text)[1] == H100


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--arch 'sm_75' is unknown: choose from sm_80, "):
        goals.card_named("sm_75")


problems = st.one_of(
    st.builds(
        KERNELS["attention/fused"].problem,
        batch=st.sampled_from([1, 16]),
        heads=st.sampled_from([8, 32]),
        kv_heads=st.sampled_from([2, 8]),
        q_len=st.sampled_from([1, 4, 40, 512, 4096]),
        kv_len=st.sampled_from([60, 1000, 32768]),
        head_dim=st.sampled_from([16, 40, 64, 80, 128, 192, 256]),
        causal=st.booleans(),
        bias=st.sampled_from(["none", "additive", "boolean"]),
        window=st.sampled_from([0, 128]),
        page_size=st.sampled_from([0, 16]),
        dtype=st.sampled_from(["float32", "bfloat16"]),
    ),
    st.builds(
        KERNELS["feedforward/fused"].problem,
        seq_len=st.sampled_from([1, 100, 4096]),
        dim=st.sampled_from([64, 768, 4096]),
        hidden_dim=st.sampled_from([128, 3072, 14336]),
        gated=st.booleans(),
        dtype=st.sampled_from(["float32", "bfloat16"]),
    ),
)


@settings(deadline=None, max_examples=60)
@given(problems, st.sampled_from(sorted(CARDS)))
def test_candidates_can_be_told_apart_stored_and_built(problem: Any, arch: str) -> None:
    kernel = KERNELS[f"{problem.operator}/fused"]
    assert kernel.tuning is not None
    for task in kernel.tuning(problem, CARDS[arch]):
        goal = goals.Goal(kernel, problem, task, 1)
        tiles = (task.default, *task.candidates)
        assert len(goals.texts(goal)) == len(tiles)
        assert all(_tuned.made(type(tile), _tuned.stored(tile), "here") == tile for tile in tiles)
        assert task.why_not(task.default) is None, "arithmetic must not leave out what is launched today"
        sieved = prune.by_arithmetic(goal)
        assert sieved.kept[0] == str(task.default)
        assert len(sieved.kept) + len(sieved.left_out) == len(tiles)
        for form in task.forms(tiles[-1]):
            assert form.name in (task.key.function, "linear_split_kernel")
            assert f"sm_{form.capability[0]}{form.capability[1]}" == arch


def test_a_kernel_of_a_plugin_may_offer_choices_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # it counts processes there
    chosen = found(
        load=(Path(__file__).with_name("simulated_device.py"),), kernels=("attention/simulated",), axes={"q_len": [70], "head_dim": [16]}
    )
    assert [len(goal.task.candidates) for goal in chosen] == [7]
