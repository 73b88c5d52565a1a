"""Writing ONNX graphs node by node: the pieces that feed-forward networks and layers are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._onnxsession import ELEMENT_TYPES, LARGE_BYTES, Written, constant, declared, model, value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from ._int8 import Int8Weight

CONTRIB = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""


class Graph:
    """A graph that grows: each method appends nodes and returns the name of their result. Matrices are [tokens, features]."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._beside: dict[str, torch.Tensor] = {}
        self._quantized: dict[str, list[str]] = {}

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """One node with one output; an empty name leaves an optional input out."""
        return self.several(1, operator, *inputs, **attributes)[0]

    def several(self, outputs: int, operator: str, *inputs: str, **attributes: Any) -> list[str]:
        """One node with so many outputs."""
        from onnx import helper

        names = [f"{operator.lower()}{len(self._nodes)}_{i}" for i in range(outputs)]
        self._nodes.append(helper.make_node(operator, list(inputs), names, **attributes))
        return names

    def constant(self, tensor: torch.Tensor | None) -> str:
        """A tensor that the graph carries along; no tensor gives no name."""
        if tensor is None:
            return ""
        name = f"constant{len(self._constants)}"
        if tensor.numel() * tensor.element_size() < LARGE_BYTES:
            self._constants.append(constant(name, tensor))
        else:
            self._beside[name] = tensor.detach().cpu().contiguous()
            self._constants.append(declared(name, tensor))
        return name

    def linear(self, x: str, weight: torch.Tensor, bias: torch.Tensor | None = None) -> str:
        """x weightᵀ + bias."""
        return self.add("Gemm", x, self.constant(weight), *([self.constant(bias)] if bias is not None else []), transB=1)

    def product(self, x: str, weight: torch.Tensor) -> str:
        """x weightᵀ, for an operator that adds the bias itself."""
        return self.add("MatMul", x, self.constant(weight.t()))

    def layer_norm(self, x: str, weight: torch.Tensor | None, bias: torch.Tensor | None, epsilon: float) -> str:
        """LayerNorm over the features; mean and variance in float32."""
        return self.add("LayerNormalization", x, self.constant(weight), self.constant(bias), epsilon=epsilon)

    def rms_norm(self, x: str, weight: torch.Tensor | None, epsilon: float) -> str:
        """RMSNorm over the features, in float32 within."""
        return self.add("RMSNormalization", x, self.constant(weight), epsilon=epsilon)

    def activation(self, name: str, x: str) -> str:
        """The activation function of that name, as the feed-forward problem calls it."""
        if name == "relu":
            return self.add("Relu", x)
        if name == "silu":
            return self.add("Mul", x, self.add("Sigmoid", x))
        return self.add("Gelu", x, approximate="tanh" if name == "gelu_tanh" else "none")

    def cast(self, x: str, dtype: str) -> str:
        """x in another dtype, as torch calls it."""
        return self.add("Cast", x, to=ELEMENT_TYPES[f"torch.{dtype}"])

    def int8_linear(self, x: str, weight: Int8Weight, bias: torch.Tensor | None = None) -> str:
        """x weightᵀ + bias in integers: x (float32) is quantized to 8 bit with one scale per tensor, anew in every call."""
        if x not in self._quantized:
            self._quantized[x] = self.several(3, "DynamicQuantizeLinear", x)
        values, scale, zero = self._quantized[x]
        products = self.cast(self.add("MatMulInteger", values, self.constant(weight.values.t()), zero), "float32")
        result = self.add("Mul", products, self.add("Mul", scale, self.constant(weight.scales)))
        return result if bias is None else self.add("Add", result, self.constant(bias.float()))

    def reshaped(self, x: str, *shape: int) -> str:
        """x with other dimensions, not copied."""
        import torch

        return self.add("Reshape", x, self.constant(torch.tensor(shape)))

    def finished(self, inputs: Mapping[str, tuple[str, Sequence[int]]], result: str, dtype: str, shape: Sequence[int]) -> Written:
        """The model with these inputs (name: dtype and shape), whose output "y" is what `result` names."""
        from onnx import helper

        nodes = [*self._nodes, helper.make_node("Identity", [result], ["y"])]
        given = [value(name, *described) for name, described in inputs.items()]
        return Written(model(nodes, given, value("y", dtype, shape), self._constants), self._beside)
