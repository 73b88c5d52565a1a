"""ONNX Runtime sessions that run where they were asked to, keep quiet between calls and share torch's memory."""

from __future__ import annotations

import contextlib
import io
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx

    from .registry import Device, Problem, Setup

OPSET = 23
IR_VERSIONS = {23: 11, 24: 12}
"""By opset, the one that it came with: what the onnx package writes by default may be newer than the runtime reads."""

ELEMENT_TYPES = {
    "torch.float32": 1,
    "torch.uint8": 2,
    "torch.int8": 3,
    "torch.int32": 6,
    "torch.int64": 7,
    "torch.bool": 9,
    "torch.float16": 10,
    "torch.float64": 11,
    "torch.bfloat16": 16,
}
"""ONNX element types (TensorProto.DataType) by the name of torch's dtype."""

LARGE_BYTES = 2**16
"""From here on a tensor stands beside its graph: written into it, it is copied four times on its way into the runtime."""


@dataclass(frozen=True)
class Written:
    """A graph, and the large tensors that it refers to by name instead of holding them."""

    model: onnx.ModelProto
    tensors: Mapping[str, torch.Tensor]
    """On the host and contiguous; the runtime reads them where they are, as long as it lives."""

    @property
    def graph(self) -> onnx.GraphProto:
        """The nodes, and what goes in and out."""
        return self.model.graph


def refusal(problem: Problem, device: Device) -> str | None:
    """What ONNX Runtime does not take: bfloat16 on a CPU."""
    if device.kind == "cpu" and problem.dtype == "bfloat16":
        return "ONNX Runtime's CPU provider has no bfloat16 arithmetic: choose float32 or float16"
    return None


class Session:
    """One loaded graph; reads and writes torch tensors in place."""

    def __init__(
        self, runtime: Any, device: torch.device, inputs: Sequence[str], output: str, beside: Mapping[str, Any] | None = None
    ) -> None:
        """`beside`: what the runtime reads where it is, and which must live as long."""
        self._runtime = runtime
        self._beside = beside
        self._binding = runtime.io_binding()
        self._device = device
        self._index = device.index or 0
        self._types = {getattr(torch, name.removeprefix("torch.")): number for name, number in ELEMENT_TYPES.items()}
        self._inputs = tuple(inputs)
        self._output = output

    def run(self, feeds: Mapping[str, torch.Tensor], out: torch.Tensor, beside: Mapping[str, torch.Tensor] | None = None) -> torch.Tensor:
        """Compute into `out`, which the caller allocates afresh for every call, and return it.

        `beside`: where the graph's further outputs go, by name; a cache that a graph updates in place is a feed and among
        these. All outputs must be contiguous. Feeds that are not are copied first: that copy is part of the kernel's cost.
        """
        held = {name: feeds[name].contiguous() for name in self._inputs}  # keeps the copies alive until the call is over
        for name, tensor in held.items():
            self._binding.bind_input(name, *self._described(tensor))
        for name, tensor in {self._output: out, **(beside or {})}.items():
            self._binding.bind_output(name, *self._described(tensor))
        self._call()
        return out

    def _described(self, tensor: torch.Tensor) -> tuple[str, int, int, list[int], int]:
        return self._device.type, self._index, self._types[tensor.dtype], list(tensor.shape), tensor.data_ptr()

    def _call(self) -> None:
        self._runtime.run_with_iobinding(self._binding)


class _CudaSession(Session):
    """Runs on a stream of its own that is ordered before and after torch's current one, without waiting on the host.

    ONNX Runtime takes a stream only when it is created, and not the default one (whose handle is zero): work that it put
    on a stream unknown to torch would escape the events that time it.
    """

    def __init__(self, runtime: Any, device: torch.device, inputs: Sequence[str], output: str, stream: torch.cuda.Stream) -> None:
        import onnxruntime

        super().__init__(runtime, device, inputs, output)
        self._stream = stream
        self._options = onnxruntime.RunOptions()
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def _call(self) -> None:
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        self._runtime.run_with_iobinding(self._binding, self._options)
        current.wait_stream(self._stream)


def session(model: onnx.ModelProto | Written, setup: Setup, inputs: Sequence[str], output: str) -> Session:
    """Load `model` for `setup.device`; `inputs` and `output` are the names that `Session.run` binds.

    Raises RuntimeError when ONNX Runtime cannot run the whole graph on that device: nothing falls back to another.
    """
    import onnxruntime

    written = model if isinstance(model, Written) else Written(model, {})
    serialized = written.model.SerializeToString()
    options = _options(onnxruntime, setup)
    beside = {name: _value_of(onnxruntime, tensor) for name, tensor in written.tensors.items()}
    if beside:
        options.add_external_initializers(list(beside), list(beside.values()))
    if setup.device.type != "cuda":
        runtime = _load(onnxruntime, serialized, options, "CPUExecutionProvider", {})
        return Session(runtime, setup.device, inputs, output, beside)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
        onnxruntime.preload_dlls()
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    device = torch.empty(0, device=setup.device).device  # with its index
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    provider_options = {
        "device_id": str(device.index),
        "arena_extend_strategy": "kSameAsRequested",
        "user_compute_stream": str(stream.cuda_stream),
        "use_tf32": "0",  # on by default, and three decimal digits short of float32
    }
    runtime = _load(onnxruntime, serialized, options, "CUDAExecutionProvider", provider_options)
    return _CudaSession(runtime, device, inputs, output, stream)  # it has copied all tensors to the device


def _value_of(onnxruntime: Any, tensor: torch.Tensor) -> Any:
    """The tensor as the runtime's own, in the same memory."""
    words = tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor  # numpy knows no bfloat16
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(words.numpy(), ELEMENT_TYPES[str(tensor.dtype)])


def _options(onnxruntime: Any, setup: Setup) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised; it need not be printed as well
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    # threads that spin after a call slow down whatever is measured next by 2-4 x
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not setup.arena:
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
    if setup.profile is not None:
        options.enable_profiling = True  # written when the session goes; sessions of the same second would share a file
        options.profile_file_prefix = str(Path(tempfile.mkdtemp(dir=setup.profile), "session"))
    return options


def _load(onnxruntime: Any, serialized: bytes, options: Any, provider: str, provider_options: dict[str, str]) -> Any:
    try:
        runtime = onnxruntime.InferenceSession(serialized, options, providers=[(provider, provider_options)])
    except Exception as error:
        first_line = str(error).splitlines()[0]
        raise RuntimeError(f"ONNX Runtime cannot run this graph on {provider}: {first_line}") from error
    found = runtime.get_providers()[0]
    if found != provider:
        raise RuntimeError(f"ONNX Runtime was asked for {provider} and chose {found}: install its CUDA libraries or run on the CPU")
    return runtime


def value(name: str, dtype: str, shape: Sequence[int | str]) -> Any:
    """An input or output of a graph; `dtype` as torch calls it ("float32"), a size that varies as a word."""
    from onnx import helper

    return helper.make_tensor_value_info(name, ELEMENT_TYPES[f"torch.{dtype}"], list(shape))


def constant(name: str, tensor: torch.Tensor) -> Any:
    """A tensor that the graph carries along (an initializer), of any dtype that ONNX knows."""
    from onnx import helper

    raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return helper.make_tensor(name, ELEMENT_TYPES[str(tensor.dtype)], list(tensor.shape), raw, raw=True)


def declared(name: str, tensor: torch.Tensor) -> Any:
    """A tensor that a graph refers to by name, and that `session` is given beside it."""
    from onnx import TensorProto

    found = TensorProto(name=name, data_type=ELEMENT_TYPES[str(tensor.dtype)], dims=tensor.shape, data_location=TensorProto.EXTERNAL)
    for key, text in (("location", "beside"), ("offset", "0"), ("length", str(tensor.numel() * tensor.element_size()))):
        found.external_data.add(key=key, value=text)
    return found


def model(
    nodes: Sequence[Any],
    inputs: Sequence[Any],
    output: Any,
    constants: Sequence[Any] = (),
    *,
    beside: Sequence[Any] = (),
    opset: int = OPSET,
) -> onnx.ModelProto:
    """A model of `nodes` (onnx.helper.make_node), with the opsets of ONNX and of ONNX Runtime's own operators.

    `beside`: outputs after the first. `opset`: one of IR_VERSIONS.
    """
    from onnx import helper

    graph = helper.make_graph(list(nodes), "kerneldyno", list(inputs), [output, *beside], list(constants))
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSIONS[opset])
