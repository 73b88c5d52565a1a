"""The gate: right kernels pass, planted faults do not, and the accidents that look like speed are named."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from kerneldyno.bench import check
from kerneldyno.bench.check import Truth, WrongOutput
from kerneldyno.kernels import registry
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.registry import Setup

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def kernels():
    return registry.load()


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def truth_of(problem, seed=0):
    return Truth(problem, problem.inputs(seed, CPU), problem.weights(seed + 3, CPU))


PROBLEMS = [
    Attention(batch=2, heads=4, q_len=129, head_dim=64),
    Attention(batch=2, heads=4, q_len=129, head_dim=64, causal=True, dtype="bfloat16"),
    Attention(batch=2, heads=4, kv_heads=2, q_len=65, kv_len=127, head_dim=32, padding=True, dtype="float16"),
]


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.label)
@pytest.mark.parametrize("name", ["attention/eager", "attention/sdpa"])
def test_right_kernels_pass(kernels, problem, name):
    truth = truth_of(problem)
    setup = Setup(CPU)
    run = kernels[name].build(problem, setup)
    answer = check.behaves(run, truth, problem.inputs(1, CPU))
    verified = check.verify(answer, kernels[name], setup, truth)
    assert 0 <= verified.errors.rms_ratio <= verified.errors.max_ratio * 100
    assert verified.distance is None


FAULTS = {
    "scaled": lambda q, k, v, right: right * 1.05,
    "zeros": lambda q, k, v, right: torch.zeros_like(right),
    "one head off": lambda q, k, v, right: torch.cat([right[:, :1] * 1.1, right[:, 1:]], 1),
    "one batch row off": lambda q, k, v, right: torch.cat([right[:1], right[1:].roll(1, -1)], 0),
    "last row missing": lambda q, k, v, right: torch.cat([right[:, :, :-1], torch.zeros_like(right[:, :, -1:])], 2),
    "mean of v": lambda q, k, v, right: v.mean(2, keepdim=True).expand_as(right).clone(),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("problem", PROBLEMS[:2], ids=lambda p: p.label)
def test_planted_faults_are_caught(kernels, fault, problem):
    truth = truth_of(problem)
    right = problem.reference(truth.inputs).to(getattr(torch, problem.dtype))
    wrong = FAULTS[fault](truth.inputs.q, truth.inputs.k, truth.inputs.v, right)
    with pytest.raises(WrongOutput, match="times that of the plain formula"):
        check.verify(wrong, kernels["attention/eager"], Setup(CPU), truth)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda out: out.double(), "not float32"),
        (lambda out: out[:, :, 1:], "shape"),
        (lambda out: torch.where(out > 0, torch.nan, out), "NaN or infinite"),
        (lambda out: out.numpy(), "not a tensor"),
        (lambda out: None, "not a tensor"),
    ],
)
def test_malformed_answers_are_named(kernels, change, message):
    problem = PROBLEMS[0]
    truth = truth_of(problem)
    out = problem.reference(truth.inputs).float()
    with pytest.raises(WrongOutput, match=message):
        check.verify(change(out), kernels["attention/eager"], Setup(CPU), truth)


def correct(inputs):
    return torch.nn.functional.scaled_dot_product_attention(inputs.q, inputs.k, inputs.v)


def memoized_by_pointer():
    seen = {}

    def run(inputs):
        key = inputs.q.data_ptr()
        if key not in seen:
            seen[key] = correct(inputs)
        return seen[key].clone()

    return run


def one_buffer():
    buffer = None

    def run(inputs):
        nonlocal buffer
        out = correct(inputs)
        if buffer is None:
            buffer = out
        buffer.copy_(out)
        return buffer

    return run


def in_place(inputs):
    out = correct(inputs)
    inputs.q.add_(1)
    return out


def input_memory(inputs):
    inputs.q.view(-1)
    return inputs.v


def global_dtype(inputs):
    torch.set_default_dtype(torch.float64)
    return correct(inputs)


def random_state(inputs):
    torch.rand(1)
    return correct(inputs)


CHEATS = {
    "memoized": (memoized_by_pointer(), "memoized"),
    "one buffer": (one_buffer(), "same buffer"),
    "in place": (in_place, "changes its input q"),
    "input memory": (input_memory, "memory of its inputs"),
    "default dtype": (global_dtype, "default dtype"),
    "random state": (random_state, "random state"),
}


@pytest.mark.parametrize("name", CHEATS)
def test_cheats_are_caught(name):
    problem = PROBLEMS[0]
    truth = truth_of(problem)
    run, message = CHEATS[name]
    try:
        with pytest.raises(WrongOutput, match=message):
            check.behaves(run, truth, problem.inputs(1, CPU))
    finally:
        torch.set_default_dtype(torch.float32)


def test_inputs_are_as_before_after_the_check(kernels):
    problem = PROBLEMS[0]
    truth = truth_of(problem)
    before = truth.inputs.map(torch.clone)
    check.behaves(kernels["attention/sdpa"].build(problem, Setup(CPU)), truth, problem.inputs(1, CPU))
    assert all(torch.equal(a, b) for a, b in zip(truth.inputs.tensors().values(), before.tensors().values(), strict=True))


def test_gradients_are_checked_by_name(kernels):
    problem = dataclasses.replace(PROBLEMS[0], direction="backward")
    truth = truth_of(problem)
    setup = Setup(CPU)
    answer = kernels["attention/sdpa"].build(problem, setup)(truth.inputs)
    check.verify(answer, kernels["attention/sdpa"], setup, truth)
    answer.by_name["k"].mul_(1.2)
    with pytest.raises(WrongOutput, match="grad k"):
        check.verify(answer, kernels["attention/sdpa"], setup, truth)


def test_gradients_that_are_exactly_zero_leave_room_for_rounding(kernels):
    problem = Attention(batch=1, heads=2, q_len=5, kv_len=1, head_dim=16, direction="backward")
    truth = truth_of(problem)
    setup = Setup(CPU)
    answer = kernels["attention/sdpa"].build(problem, setup)(truth.inputs)
    assert not truth.expected["grad q"].any()
    check.verify(answer, kernels["attention/sdpa"], setup, truth)


def test_an_approximate_kernel_is_held_to_its_claim(kernels):
    problem = Attention(batch=1, heads=4, q_len=64, head_dim=32)
    truth = truth_of(problem)
    setup = Setup(CPU, calibration=problem.inputs(2, CPU))
    pruned = kernels["attention/pruned"]
    answer = pruned.build(problem, setup)(truth.inputs)
    verified = check.verify(answer, pruned, setup, truth)
    assert verified.distance.relative_rms > 0.1
    assert verified.distance.cosine < 1
    with pytest.raises(WrongOutput, match="claims"):
        check.verify(problem.reference(truth.inputs).float(), pruned, setup, truth)
