"""ONNX Runtime sessions: torch's memory in and out, quiet, and never somewhere else than asked."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from kerneldyno.kernels import _onnxsession
from kerneldyno.kernels._onnxgraph import Graph
from kerneldyno.kernels._onnxsession import LARGE_BYTES, constant, model, session, value
from kerneldyno.kernels.registry import Setup

onnx = pytest.importorskip("onnx")
CPU = Setup(torch.device("cpu"))


def one_node(operator: str, dtype: str, a: list[int | str], b: list[int | str], out: list[int | str], **attributes: Any) -> Any:
    node = onnx.helper.make_node(operator, ["a", "b"], ["c"], **attributes)
    return model([node], [value("a", dtype, a), value("b", dtype, b)], value("c", dtype, out))


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "int32", "int64"])
def test_reads_and_writes_torch_memory(dtype: str) -> None:
    a, b = (torch.arange(12).reshape(shape).to(getattr(torch, dtype)) for shape in ((3, 4), (4, 3)))
    loaded = session(one_node("MatMul", dtype, [3, 4], [4, 3], [3, 3]), CPU, ["a", "b"], "c")
    out = torch.empty(3, 3, dtype=a.dtype)
    assert loaded.run({"a": a, "b": b}, out) is out
    assert torch.equal(out, a @ b)


def test_reads_bfloat16_and_bool() -> None:
    node = onnx.helper.make_node("Where", ["m", "a", "b"], ["c"])
    cast = onnx.helper.make_node("Cast", ["c"], ["d"], to=1)
    widened = [onnx.helper.make_node("Cast", [x], [f"{x}w"], to=1) for x in "ab"]
    node.input[1:] = ["aw", "bw"]
    inputs = [value("m", "bool", [4]), value("a", "bfloat16", [4]), value("b", "bfloat16", [4])]
    loaded = session(model([*widened, node, cast], inputs, value("d", "float32", [4])), CPU, ["m", "a", "b"], "d")
    a, b, m = torch.tensor([1, 2, 3, 4.0]).bfloat16(), -torch.ones(4).bfloat16(), torch.tensor([True, False, True, False])
    assert loaded.run({"m": m, "a": a, "b": b}, torch.empty(4)).tolist() == [1, -1, 3, -1]


def test_makes_strided_feeds_contiguous_and_leaves_them_alone() -> None:
    loaded = session(one_node("Sub", "float32", ["n", 3], ["n", 3], ["n", 3]), CPU, ["a", "b"], "c")
    a, b = torch.randn(3, 5).t(), torch.randn(1, 3).expand(5, 3)
    assert torch.equal(loaded.run({"a": a, "b": b}, torch.empty(5, 3)), a - b)
    assert a.stride() == (1, 5)
    assert b.stride() == (0, 1)
    a, b = torch.randn(2, 3), torch.randn(2, 3)  # another size, in the same session
    assert torch.equal(loaded.run({"a": a, "b": b}, torch.empty(2, 3)), a - b)


def test_several_outputs_and_a_feed_that_is_updated_in_place() -> None:
    """As a cache is: the graph's output is the memory of its input."""
    nodes = [onnx.helper.make_node("Add", ["a", "b"], ["d"]), onnx.helper.make_node("Neg", ["d"], ["c"])]
    given, added = [value("a", "float32", [3]), value("b", "float32", [3])], value("d", "float32", [3])
    loaded = session(model(nodes, given, value("c", "float32", [3]), beside=[added]), CPU, ["a", "b"], "c")
    a, b = torch.tensor([1.0, 2, 3]), torch.tensor([10.0, 20, 30])
    assert loaded.run({"a": a, "b": b}, torch.empty(3), {"d": a}).tolist() == [-11, -22, -33]
    assert a.tolist() == [11, 22, 33]


def test_a_younger_opset_when_asked_for() -> None:
    node = onnx.helper.make_node("Neg", ["a"], ["c"])
    graph = model([node], [value("a", "float32", [3])], value("c", "float32", [3]), opset=24)
    assert [(item.domain, item.version) for item in graph.opset_import] == [("", 24), ("com.microsoft", 1)]
    assert session(graph, CPU, ["a"], "c").run({"a": torch.ones(3)}, torch.empty(3)).tolist() == [-1, -1, -1]


def test_constants_of_every_dtype_travel_with_the_graph() -> None:
    weights = torch.tensor([[1, -128], [127, 5]], dtype=torch.int8)
    node = onnx.helper.make_node("MatMulInteger", ["a", "w", "zero"], ["c"])
    graph = model(
        [node],
        [value("a", "uint8", [2, 2])],
        value("c", "int32", [2, 2]),
        [constant("w", weights.t()), constant("zero", torch.tensor(3, dtype=torch.uint8))],
    )
    a = torch.tensor([[3, 255], [0, 4]], dtype=torch.uint8)
    found = session(graph, CPU, ["a"], "c").run({"a": a}, torch.empty(2, 2, dtype=torch.int32))
    assert torch.equal(found, (a.int() - 3) @ weights.t().int())


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint8"])
def test_large_tensors_stand_beside_the_graph_and_are_read_where_they_are(dtype: str) -> None:
    weight = torch.randint(0, 100, (300, 256)).to(getattr(torch, dtype))
    assert weight.nbytes >= LARGE_BYTES
    g = Graph()
    widened = g.cast(g.add("Transpose", g.constant(weight), perm=[1, 0]), "float32")
    written = g.finished(
        {"x": ("float32", (3, 256))}, g.add("Gemm", "x", g.add("Transpose", widened, perm=[1, 0]), transB=1), "float32", (3, 300)
    )
    assert [tensor.data_ptr() for tensor in written.tensors.values()] == [weight.data_ptr()]
    assert written.model.ByteSize() < 2000
    x = torch.randint(-9, 9, (3, 256)).float()
    loaded = session(written, CPU, ["x"], "y")
    del written, g
    gc.collect()
    assert torch.equal(loaded.run({"x": x}, torch.empty(3, 300)), x @ weight.float().t())


def test_large_bfloat16_tensors_keep_their_bits() -> None:
    weight = torch.randn(300, 256).bfloat16()
    g = Graph()
    written = g.finished({"x": ("float32", (1,))}, g.add("Add", g.cast(g.constant(weight), "float32"), "x"), "float32", (300, 256))
    assert torch.equal(session(written, CPU, ["x"], "y").run({"x": torch.zeros(1)}, torch.empty(300, 256)), weight.float())


def test_what_is_strided_or_small_is_copied() -> None:
    g = Graph()
    g.constant(torch.randn(256, 300).t())
    g.constant(torch.randn(4, 4))
    written = g.finished({"x": ("float32", (4, 4))}, g.add("Neg", "x"), "float32", (4, 4))
    assert [tensor.shape for tensor in written.tensors.values()] == [(300, 256)]
    assert all(tensor.is_contiguous() for tensor in written.tensors.values())


@pytest.mark.parametrize("arena", [True, False])
def test_options_keep_it_quiet_beside_torch(arena: bool) -> None:
    import onnxruntime

    options = _onnxsession._options(onnxruntime, Setup(torch.device("cpu"), arena=arena))
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.intra_op_num_threads == torch.get_num_threads()
    assert options.inter_op_num_threads == 1
    assert options.enable_cpu_mem_arena is arena
    assert options.enable_mem_pattern is arena


def test_a_profile_is_written_when_the_session_goes(tmp_path: Path) -> None:
    profiled = Setup(torch.device("cpu"), profile=tmp_path)
    a, b = torch.randn(3, 4), torch.randn(4, 3)
    sessions = [session(one_node("MatMul", "float32", [3, 4], [4, 3], [3, 3]), profiled, ["a", "b"], "c") for _ in range(2)]
    for loaded in sessions:
        loaded.run({"a": a, "b": b}, torch.empty(3, 3))
    del loaded
    sessions.clear()
    profiles = [json.loads(path.read_text()) for path in tmp_path.rglob("*.json")]
    assert len(profiles) == 2  # of the same second, in files of their own
    for events in profiles:
        nodes = [event["args"] for event in events if event["cat"] == "Node" and "op_name" in event["args"]]
        assert [(node["op_name"], node["provider"]) for node in nodes] == [("MatMul", "CPUExecutionProvider")]
        assert sum(event["name"] == "model_run" for event in events) == 1


def test_no_profile_is_written_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    monkeypatch.chdir(tmp_path)
    assert _onnxsession._options(onnxruntime, CPU).enable_profiling is False
    session(one_node("MatMul", "float32", [3, 4], [4, 3], [3, 3]), CPU, ["a", "b"], "c")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_kernel_is_an_error_in_a_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match=r"ONNX Runtime cannot run this graph on CPUExecutionProvider: .*MatMul"):
        session(one_node("MatMul", "bfloat16", [3, 4], [4, 3], [3, 3]), CPU, ["a", "b"], "c")
    captured = capfd.readouterr()
    assert captured.out == ""


def test_a_provider_other_than_asked_is_an_error() -> None:
    fake = SimpleNamespace(InferenceSession=lambda *_, **__: SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"]))
    with pytest.raises(RuntimeError, match="asked for CUDAExecutionProvider and chose CPUExecutionProvider"):
        _onnxsession._load(fake, b"", None, "CUDAExecutionProvider", {})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_cuda_is_in_step_with_torchs_stream() -> None:
    setup = Setup(torch.device("cuda"))
    loaded = session(one_node("MatMul", "float32", [512, 512], [512, 512], [512, 512]), setup, ["a", "b"], "c")
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    for place in (torch.cuda.default_stream(), stream):
        with torch.cuda.stream(place):
            a = torch.randn(512, 512, device="cuda")
            torch.cuda._sleep(10_000_000)  # type: ignore[no-untyped-call] # what is queued before must be waited for
            b = a + 1
            out = loaded.run({"a": a, "b": b}, torch.empty_like(a))
            right = a.double() @ b.double()
            torch.testing.assert_close(out.double(), right, rtol=0, atol=1e-2)
