"""What a test may ask for, and how it is told what it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from kerneldyno.bench.environment import DeviceError, find_devices
from kerneldyno.bench.onekernel import CannotRunError, ask
from kerneldyno.bench.plan import UsageError
from kerneldyno.kernels.registry import KernelFileError

PLUGIN = Path(__file__).with_name("broken_kernels.py")


def axes(problem, kernel="attention/sdpa"):
    return {name: value for name, (value,) in ask(kernel, problem, device="cpu").options.axes.items()}


def test_fields_left_out_are_those_of_the_seed():
    assert axes({"batch": 3}) == {
        "batch": 3, "heads": 8, "kv_heads": 8, "q_len": 512, "kv_len": 512, "head_dim": 64, "causal": False, "padding": False,
        "bias": "none", "dtype": "float32", "direction": "forward",
    }  # fmt: skip
    assert axes({"seq_len": 7}, "layer/eager")["seq_len"] == 7


def test_the_order_of_fields_does_not_matter():
    found = axes({"kv_heads": 2, "kv_len": 100, "heads": 4, "q_len": 1, "dtype": "bf16"})
    assert (found["heads"], found["kv_heads"], found["q_len"], found["kv_len"], found["dtype"]) == (4, 2, 1, 100, "bfloat16")
    assert axes({"seq_len": 60}) == axes({"q_len": 60, "kv_len": 60})


def test_a_problem_object_is_taken_as_it_is():
    from kerneldyno.kernels.attention.problem import Attention

    problem = Attention(batch=2, heads=4, kv_heads=1, q_len=3, kv_len=9, causal=True)
    assert axes(problem) == problem.fields()
    with pytest.raises(UsageError, match="layer/eager is for layer: it cannot be given a problem of attention"):
        ask("layer/eager", problem)


@pytest.mark.parametrize(
    ("kernel", "problem", "message"),
    [
        ("attention/nothing", {}, "there is no kernel 'attention/nothing': choose from attention/"),
        ("sdpa", {}, "there is no kernel 'sdpa'"),
        ("attention/sdpa", {"length": 3}, "'length' is not a field of attention: choose from "),
        ("attention/sdpa", {"batch": 0}, "attention: batch"),
        ("attention/sdpa", {"batch": "two"}, "attention: batch"),
        ("attention/sdpa", {"dtype": "float8"}, "float8"),
        ("layer/eager", {"direction": "backward"}, "direction"),
    ],
)
def test_mistakes_are_told_in_a_sentence(kernel, problem, message):
    with pytest.raises(UsageError) as caught:
        ask(kernel, problem, device="cpu")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_does_not_run_here_says_why():
    with pytest.raises(CannotRunError, match=r"^attention/fused runs on cuda only, not on cpu$"):
        ask("attention/fused", {}, device="cpu")
    with pytest.raises(DeviceError, match="'tpu' is unknown"):
        ask("attention/sdpa", {}, device="tpu")
    absent = f"cuda:{len(find_devices())}"
    with pytest.raises(CannotRunError, match=absent):
        ask("attention/sdpa", {}, device=absent)


def test_kernels_of_a_file():
    assert ask("attention/good", {}, load=[PLUGIN], device="cpu").options.kernels == ("attention/good",)
    with pytest.raises(KernelFileError, match=r"--load none\.py: there is no such file"):
        ask("attention/good", {}, load=[Path("none.py")], device="cpu")
