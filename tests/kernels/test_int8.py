from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kerneldyno.kernels import _int8
from kerneldyno.kernels._onnxgraph import Graph
from kerneldyno.kernels._onnxsession import session
from kerneldyno.kernels.registry import Setup

CPU = torch.device("cpu")


@given(st.integers(1, 40), st.integers(1, 40), st.floats(1e-3, 1e3), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_weights_are_off_by_half_a_step_at_most(rows, columns, scale, seed):
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * scale
    found = _int8.quantized(weight)
    assert found.values.dtype == torch.int8
    error = (found.dequantized() - weight.double()).abs()
    assert bool((error <= found.scales.double()[:, None] * 0.5001).all())
    assert bool((found.values.abs().amax(1) == 127).all())  # every channel uses its whole range


def test_rows_of_zeros_are_fine():
    found = _int8.quantized(torch.zeros(2, 4))
    assert not found.values.any()
    assert torch.isfinite(found.scales).all()
    assert not _int8.int8_linear(torch.zeros(3, 4), found, torch.zeros(2)).any()
    assert not _int8.rounded_per_tensor(torch.zeros(3, 4)).any()


@pytest.mark.parametrize("rows", [1, 16, 17, 50])
def test_linear_is_the_product_of_what_was_rounded(rows):
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(*shape, generator=generator) for shape in ((rows, 64), (24, 64), (24,)))
    integers = _int8.quantized(weight)
    right = _int8.rounded_per_token(x.double()) @ integers.dequantized().t() + bias
    torch.testing.assert_close(_int8.int8_linear(x, integers, bias).double(), right, rtol=1e-5, atol=1e-5)


def test_per_tensor_rounding_is_onnxs():
    x = torch.randn(40, 30, generator=torch.Generator().manual_seed(1)) + 0.3
    graph = Graph()
    values = graph.add("DequantizeLinear", *graph.several(3, "DynamicQuantizeLinear", "x"))
    model = graph.finished({"x": ("float32", x.shape)}, values, "float32", x.shape)
    theirs = session(model, Setup(CPU), ["x"], "y").run({"x": x}, torch.empty_like(x))
    torch.testing.assert_close(theirs.double(), _int8.rounded_per_tensor(x.double()), rtol=1e-6, atol=1e-6)


def saturating(left, right):
    """Pairs of products are added in 16 bit, as machines without VNNI do."""
    products = (left.int()[:, :, None] * right.int()[None]).view(len(left), -1, 2, right.shape[1])
    return products.sum(2).clamp(-(2**15), 2**15 - 1).sum(1).int() - 128 * right.int().sum(0).int()


def test_where_products_saturate_weights_have_fewer_levels(monkeypatch):
    assert _int8.weight_levels(CPU) in (_int8.LEVELS, _int8.FEWER_LEVELS)
    monkeypatch.setattr(_int8, "_onnx_product", saturating)
    assert _int8.weight_levels(CPU) == _int8.FEWER_LEVELS
    weight = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    fewer = _int8.quantized(weight, _int8.FEWER_LEVELS)
    assert int(fewer.values.abs().max()) == _int8.FEWER_LEVELS
    assert ((fewer.dequantized() - weight.double()).abs() <= fewer.scales[:, None] / 2 * 1.001).all()


def test_nothing_is_measured_where_products_are_wrong_all_the_same(monkeypatch):
    monkeypatch.setattr(_int8, "_onnx_product", lambda left, right: saturating(left, right) + 1)
    with pytest.raises(RuntimeError, match="saturate"):
        _int8.weight_levels(CPU)
