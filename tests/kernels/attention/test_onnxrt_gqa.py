"""ONNX Runtime's GroupQueryAttention operator on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from kerneldyno.bench.instruments.memory import peak_of
from kerneldyno.kernels.attention.onnxrt_gqa import Layout, layout, onnxrt_gqa, over_cache
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.registry import Device, Setup

CPU = Device("cpu")
SIZES: dict[str, Any] = {"batch": 3, "heads": 4, "kv_heads": 2, "head_dim": 16}
FORMS: dict[str, dict[str, Any]] = {
    "prompt": {"q_len": 33, "causal": True},
    "prompt, every head its keys": {"q_len": 33, "kv_heads": 4, "causal": True},
    "prompt, both ways": {"q_len": 33},
    "prompt, both ways, padding": {"q_len": 33, "padding": True, "kv_heads": 4},
    "prompt, padding": {"q_len": 33, "causal": True, "padding": True},
    "prompt, window": {"q_len": 33, "causal": True, "window": 7},
    "prompt, softcap": {"q_len": 33, "causal": True, "softcap": 2.0},
    "prompt, softcap, bias": {"q_len": 33, "causal": True, "softcap": 2.0, "bias": "additive"},
    "prompt, mask": {"q_len": 33, "causal": True, "bias": "boolean"},
    "one token": {"q_len": 1, "kv_len": 50},
    "one token, ragged": {"q_len": 1, "kv_len": 50, "ragged": True},
    "one token, ragged, window": {"q_len": 1, "kv_len": 50, "ragged": True, "window": 9, "softcap": 3.0},
    "one token, padding": {"q_len": 1, "kv_len": 50, "padding": True, "causal": True},
    "one token, bias": {"q_len": 1, "kv_len": 50, "bias": "additive"},
    "four tokens": {"q_len": 4, "kv_len": 50, "causal": True},
    "four tokens, window": {"q_len": 4, "kv_len": 50, "causal": True, "window": 9, "softcap": 3.0},
    "four tokens, ragged": {"q_len": 4, "kv_len": 50, "causal": True, "ragged": True},
    "four tokens, ragged, window, mask": {"q_len": 4, "kv_len": 50, "causal": True, "ragged": True, "window": 9, "bias": "boolean"},
    "four tokens, both ways": {"q_len": 4, "kv_len": 50},
    "four tokens, both ways, padding, bias": {"q_len": 4, "kv_len": 50, "padding": True, "bias": "additive"},
    "four tokens, ragged, both ways": {"q_len": 4, "kv_len": 50, "ragged": True},
    "a single token": {"q_len": 1},
}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("fields", FORMS.values(), ids=list(FORMS))
def test_right(fields: dict[str, Any], dtype: str, judge: Callable[..., torch.Tensor]) -> None:
    problem = Attention(**{**SIZES, **fields, "dtype": dtype})
    assert onnxrt_gqa.why_not(problem, CPU) is None
    judge(onnxrt_gqa, problem)


def test_what_it_takes_of_all_cases_is_right(case: dict[str, Any], judge: Callable[..., torch.Tensor]) -> None:
    problem = Attention(**case)
    if sentence := onnxrt_gqa.why_not(problem, CPU):
        pytest.skip(sentence)
    judge(onnxrt_gqa, problem)


def test_awkward_lengths(awkward: dict[str, Any], judge: Callable[..., torch.Tensor]) -> None:
    judge(onnxrt_gqa, Attention(**awkward))


@pytest.mark.parametrize("more", [{}, {"kv_heads": 2}, {"kv_heads": 2, "bias": "additive"}])
def test_strides(judge_strides: Callable[..., None], more: dict[str, Any]) -> None:
    judge_strides(onnxrt_gqa, **more)


@pytest.mark.parametrize("fields", [{}, {"ragged": True}, {"ragged": True, "window": 9}, {"kv_heads": 4, "softcap": 3.0}])
def test_a_last_token_given_apart_changes_neither_answer_nor_cache(fields: dict[str, Any]) -> None:
    """How a GPU decodes."""
    problem = Attention(**{**SIZES, "q_len": 1, "kv_len": 50, **fields})
    setup = Setup(torch.device("cpu"), calibration=problem.inputs(99))
    inputs = problem.inputs(1)
    before = inputs.map(torch.clone)
    found = over_cache(problem, setup, new=1)(inputs)
    torch.testing.assert_close(found.double(), problem.reference(inputs), rtol=0, atol=2e-6)
    assert torch.equal(inputs.k, before.k)
    assert torch.equal(inputs.v, before.v)


@pytest.mark.parametrize("new", [0, 1])
def test_the_cache_is_not_copied(new: int) -> None:
    problem = Attention(heads=4, kv_heads=2, q_len=1, kv_len=16384)
    inputs = problem.inputs(0)
    run = over_cache(problem, Setup(torch.device("cpu"), calibration=problem.inputs(99), arena=False), new)
    peak = peak_of(lambda: run(inputs), torch.device("cpu"))
    if peak.bytes is None:
        pytest.skip(peak.source)
    assert peak.bytes < inputs.k.nbytes / 4


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"q_len": 8, "kv_heads": 4}, Layout(12, 1, 1)),
        ({"q_len": 8}, Layout(3, 4, 2)),
        ({"q_len": 1, "kv_len": 8}, Layout(3, 4, 2)),
        ({"q_len": 2, "kv_len": 8}, Layout(1, 12, 6)),
        ({"q_len": 2, "kv_len": 8, "ragged": True}, Layout(1, 4, 2)),
        ({"q_len": 2, "kv_len": 8, "bias": "additive"}, Layout(1, 4, 2)),
        ({"q_len": 2, "kv_len": 8, "batch": 600}, Layout(1, 4, 2)),
    ],
)
def test_layout(fields: dict[str, Any], expected: Layout) -> None:
    assert layout(Attention(**{**SIZES, **fields})) == expected


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"head_dim": 20}, "head_dim in multiples of 8, not 20"),
        ({"kv_len": 4}, "no more queries than keys, not 8 for 4"),
        ({"window": 3}, "a window before each query only"),
        ({"padding": True, "causal": True, "kv_len": 12}, "counts positions back from each row's own length"),
        ({"padding": True, "causal": True, "window": 3}, "with padding, a window means something else"),
        ({"dtype": "bfloat16"}, "no bfloat16 arithmetic"),
        ({"page_size": 16}, "does not take paged"),
    ],
)
def test_refuses(fields: dict[str, Any], sentence: str) -> None:
    assert sentence in (onnxrt_gqa.why_not(Attention(**{**SIZES, "q_len": 8, **fields}), CPU) or "")


def test_takes_16_bit_only_on_a_gpu() -> None:
    gpu = Device("cuda", capability=(9, 0))
    assert "not float32" in (onnxrt_gqa.why_not(Attention(q_len=8, causal=True), gpu) or "")
    assert onnxrt_gqa.why_not(Attention(q_len=8, causal=True, dtype="bfloat16"), gpu) is None
    assert onnxrt_gqa.family == "onnxrt"
