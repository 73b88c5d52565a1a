"""Gradients of the feed-forward network: the right ones, those of some rows, and the kernels that have them through autograd."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch

from kerneldyno.bench.gate.errors import WrongOutput
from kerneldyno.bench.gate.truth import Truth
from kerneldyno.bench.gate.verify import verify
from kerneldyno.kernels import registry
from kerneldyno.kernels.feedforward import _backward
from kerneldyno.kernels.feedforward.problem import FeedForward
from kerneldyno.kernels.registry import Gradients, Setup

KERNELS = registry.load()
EAGER = KERNELS["feedforward/eager"]
CPU = torch.device("cpu")
SHORT = FeedForward(batch=2, seq_len=7, dim=12, hidden_dim=20, direction="backward")
VARIANTS = [
    {},
    {"activation": "gelu", "bias": False},
    {"activation": "gelu_tanh", "norm": "rmsnorm", "residual": True},
    {"activation": "silu", "norm": "rmsnorm", "gated": True, "bias": False},
    {"activation": "silu", "norm": "none", "gated": True, "residual": True},
]


def by_hand(problem, inputs, weights):
    """Autograd of the formula in one piece, in float64."""
    given = weights.map(lambda tensor: tensor.double().requires_grad_())
    x = inputs.x.double().requires_grad_()
    output = problem.formula(x, given)
    found = torch.autograd.grad(output, [x, *given.tensors().values()], inputs.grad.double())
    return output.detach(), dict(zip(["x", *given.tensors()], found, strict=True))


@pytest.mark.parametrize("fields", VARIANTS)
def test_gradients_are_those_of_the_formula_whole_or_in_blocks(fields, monkeypatch):
    problem = replace(SHORT, **fields)
    inputs, weights = problem.inputs(1), problem.weights(2)
    output, right = by_hand(problem, inputs, weights)
    for hidden in (2**23, 60):  # three tokens at a time
        monkeypatch.setattr(_backward, "BLOCK_HIDDEN", hidden)
        found = problem.gradients(inputs, weights)
        torch.testing.assert_close(found.output, output, rtol=1e-12, atol=1e-12)
        assert set(found.by_name) == {"x", *weights.tensors()}
        for name, gradient in right.items():
            torch.testing.assert_close(found.by_name[name], gradient, rtol=1e-11, atol=1e-12)


def test_naive_gradients_are_in_the_problems_dtype():
    problem = replace(SHORT, dtype="bfloat16")
    found = problem.gradients(problem.inputs(0), problem.weights(1), naive=True)
    assert {tensor.dtype for tensor in (found.output, *found.by_name.values())} == {torch.bfloat16}


def test_inputs_of_the_forward_direction_hold_no_gradient():
    forward = replace(SHORT, direction="forward")
    assert forward.inputs(0).grad is None
    assert torch.equal(forward.inputs(0).x, SHORT.inputs(0).x)
    with pytest.raises(ValueError, match="the inputs hold no grad"):
        SHORT.gradients(forward.inputs(0), SHORT.weights(0))


def test_gradients_of_some_rows_are_those_of_a_gradient_that_is_zero_elsewhere():
    rows = torch.tensor([0, 3, 6])
    inputs, weights = SHORT.inputs(0), SHORT.weights(1)
    grad = torch.zeros_like(inputs.grad)
    grad[:, rows] = inputs.grad[:, rows]
    inputs = inputs.replace(grad=grad)
    whole, some = SHORT.gradients(inputs, weights), SHORT.at(rows).gradients(inputs, weights)
    torch.testing.assert_close(some.by_name["x"], whole.by_name["x"][:, rows])
    torch.testing.assert_close(some.output, whole.output[:, rows])
    for name in weights.tensors():
        torch.testing.assert_close(some.by_name[name], whole.by_name[name])


def test_tokens_in_another_order_have_the_same_gradients():
    inputs, weights = SHORT.inputs(0), SHORT.weights(1)
    clothed, back = SHORT.disguised(inputs, 5)
    assert not torch.equal(clothed.x, inputs.x)
    plain, found = SHORT.gradients(inputs, weights), back(SHORT.gradients(clothed, weights))
    torch.testing.assert_close(found.output, plain.output)
    for name, gradient in plain.by_name.items():
        torch.testing.assert_close(found.by_name[name], gradient, rtol=1e-11, atol=1e-12)


def test_work_and_bytes():
    forward = replace(SHORT, direction="forward")
    assert SHORT.flops() == 3 * forward.flops()
    assert SHORT.min_bytes() == 2 * forward.min_bytes()
    assert SHORT.label == f"{forward.label} fwd+bwd"


@pytest.mark.parametrize("fields", VARIANTS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_eager_has_right_gradients(fields, dtype, verified):
    verified(EAGER, replace(SHORT, batch=1, seq_len=1, dtype=dtype, **fields))
    verified(EAGER, replace(SHORT, seq_len=43, dim=52, hidden_dim=75, dtype=dtype, **fields))


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # raised by inductor's own imports
@pytest.mark.parametrize("name", ["compiled", "compiled_tuned"])
def test_compiled_has_right_gradients(name, verified):
    """One variant, with the most in it: each takes seconds to compile."""
    fields = {"activation": "silu", "norm": "layernorm", "gated": True, "residual": True}
    verified(KERNELS[f"feedforward/{name}"], replace(SHORT, seq_len=43, dim=52, hidden_dim=75, **fields))


def test_tokens_at_the_kink_of_a_relu_have_no_say():
    """Where a ReLU sees what may round to either side of 0, a neuron more or less is no error."""
    problem = replace(SHORT, seq_len=40, norm="none")
    inputs, weights = problem.inputs(0), problem.weights(1)
    hidden = torch.nn.functional.linear(inputs.x[1, 5].double(), weights.w1.double(), weights.b1.double())
    near = weights.b1.clone()
    near[3] -= float(hidden[3])  # now 0, but for rounding
    found = problem.decided(inputs, weights.replace(b1=near))
    assert found.grad[1, 5].count_nonzero() == 0
    kept = torch.ones(2, 40, dtype=torch.bool)
    kept[1, 5] = False
    assert torch.equal(found.grad[kept], inputs.grad[kept])
    assert torch.equal(problem.decided(inputs, weights).grad, inputs.grad)
    rows = torch.tensor([2, 5])
    assert problem.at(rows).decided(inputs, weights.replace(b1=near)).grad[1, 5].count_nonzero() == 0
    for other in (replace(problem, activation="silu"), replace(problem, dtype="bfloat16")):
        assert other.decided(inputs, weights) is inputs


def judged(change):
    """What the gate says of eager's gradients after a change, of all rows and of some."""
    for flops in (1e9, 1e4):
        problem = replace(SHORT, batch=1, seq_len=600)
        weights = problem.weights(3)
        setup = Setup(CPU, weights)
        truth = Truth.of(problem, problem.inputs(1), weights, flops=flops)
        assert (truth.rows is None) == (flops == 1e9)
        answer = EAGER.build(problem, setup)(truth.inputs)
        verify(answer, EAGER, setup, truth)
        change(answer.by_name)
        with pytest.raises(WrongOutput) as caught:
            verify(Gradients(answer.output, answer.by_name), EAGER, setup, truth)
        yield str(caught.value)


@pytest.mark.parametrize(
    ("name", "at", "place"),
    [
        ("b1", (4,), "place 4"),
        ("w1", (3, 5), "row 3, column 5"),
        ("norm_weight", (2,), "place 2"),
        ("x", (0, 599, 1), "row 599, feature 1"),
    ],
)
def test_one_number_of_a_gradient_is_seen_and_named(name, at, place):
    def change(by_name):
        by_name[name][at] += 1 + by_name[name].abs().max()

    for said in judged(change):
        assert f"the grad {name} is off from float64 at " in said
        assert place in said


def test_a_missing_gradient_is_named():
    for said in judged(lambda by_name: by_name.pop("w2")):
        assert said == "grad w2 is missing"


def test_gradients_lie_in_memory_of_their_own():
    """The second bias of a single token has the output's gradient as its own."""
    problem = replace(SHORT, batch=1, seq_len=1, norm="none", residual=True)
    inputs = problem.inputs(0)
    found = EAGER.build(problem, Setup(CPU, problem.weights(1)))(inputs)
    places = [tensor.untyped_storage().data_ptr() for tensor in (found.output, *found.by_name.values(), inputs.grad, inputs.x)]
    assert len(set(places)) == len(places)
