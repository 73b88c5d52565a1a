"""cuDNN's attention: what its graph is asked and what is refused, against a stand-in that does what the frontend's documentation says.

cuDNN runs on GPUs only: tests marked gpu, in test_gpu.py, call the real one.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kerneldyno.kernels.attention.cudnn import _bound, _Planned, band, cudnn, options
from kerneldyno.kernels.attention.problem import Attention, AttentionInputs
from kerneldyno.kernels.registry import Device, NotAsNamed, Setup, Trace

CPU = torch.device("cpu")
CUDA = Setup(torch.device("cuda"))
HOPPER, AMPERE, TURING, BLACKWELL = (Device("cuda", capability=number) for number in ((9, 0), (8, 0), (7, 5), (10, 0)))


class Place:
    """A tensor of a graph."""

    def __init__(self, shape: list[int], stride: list[int]) -> None:
        self.shape, self.stride = shape, stride

    def set_output(self, _: bool) -> Place:
        return self

    def set_dim(self, shape: list[int]) -> Place:
        self.shape = shape
        return self

    def set_stride(self, stride: list[int]) -> Place:
        self.stride = stride
        return self


class Graph:
    """An sdpa graph as docs/operations/Attention.md describes it, in float64 on any device."""

    def __init__(self, **given: Any) -> None:
        assert set(given) == {"io_data_type", "intermediate_data_type", "compute_data_type", "handle"}
        self.built = False

    def tensor_like(self, tensor: torch.Tensor) -> Place:
        assert tensor.dim() == 4
        return Place(list(tensor.shape), list(tensor.stride()))

    def sdpa(self, **node: Any) -> tuple[Place, None]:
        self.node, self.output = node, Place([], [])
        assert not node["generate_stats"]
        return self.output, None

    def build(self, heuristics: list[str]) -> None:
        assert heuristics == ["A", "FALLBACK"]
        self.built = True

    def get_workspace_size(self) -> int:
        return 0

    def execute(self, pack: dict[Place, torch.Tensor], workspace: torch.Tensor, handle: Any) -> None:
        assert self.built
        assert workspace.dtype == torch.uint8
        for place, tensor in pack.items():
            assert place.shape == list(tensor.shape)
            assert place.stride == list(tensor.stride())
        tensors = {name: pack[place] for name, place in self.node.items() if isinstance(place, Place)}
        pack[self.output].copy_(self._attend(**tensors))

    def _attend(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        bias: torch.Tensor | None = None,
        seq_len_q: torch.Tensor | None = None,
        seq_len_kv: torch.Tensor | None = None,
        paged_attention_k_table: torch.Tensor | None = None,
        paged_attention_v_table: torch.Tensor | None = None,
    ) -> torch.Tensor:
        if paged_attention_k_table is not None and paged_attention_v_table is not None:
            most = self.node["paged_attention_max_seq_len_kv"]
            tables = (paged_attention_k_table, paged_attention_v_table)
            k, v = (pool[table[:, 0, :, 0]].transpose(1, 2).flatten(2, 3)[:, :, :most] for pool, table in zip((k, v), tables, strict=True))
            assert self.node["use_padding_mask"]
        assert self.node.get("use_padding_mask", False) == (seq_len_kv is not None)
        wide = [tensor.double().repeat_interleave(q.shape[1] // tensor.shape[1], 1) for tensor in (q, k, v)]
        scores = wide[0] @ wide[1].mT * self.node["attn_scale"]
        scores = scores if bias is None else scores + bias
        row, column = torch.arange(q.shape[2])[:, None], torch.arange(k.shape[2])
        if self.node["diagonal_alignment"] == "BOTTOM_RIGHT":  # "aligned with the actual sequence length"
            row = row + (k.shape[2] - q.shape[2] if seq_len_kv is None or seq_len_q is None else seq_len_kv - seq_len_q)
        hidden = torch.zeros_like(scores, dtype=torch.bool)
        if seq_len_kv is not None:
            hidden = hidden | (column >= seq_len_kv)
        if (left := self.node.get("diagonal_band_left_bound")) is not None:  # "columns at or before row_idx - left_bound"
            hidden = hidden | (column <= row - left)
        if (right := self.node.get("diagonal_band_right_bound")) is not None:  # "columns beyond row_idx + right_bound"
            hidden = hidden | (column > row + right)
        return torch.softmax(scores.masked_fill(hidden, -torch.inf), -1) @ wide[2]  # NaN where nothing is seen


FRONTEND = SimpleNamespace(
    pygraph=Graph,
    data_type=SimpleNamespace(BFLOAT16="bf16", HALF="fp16", FLOAT="fp32"),
    diagonal_alignment=SimpleNamespace(TOP_LEFT="TOP_LEFT", BOTTOM_RIGHT="BOTTOM_RIGHT"),
    heur_mode=SimpleNamespace(A="A", FALLBACK="FALLBACK"),
)


def answer(problem: Attention, inputs: AttentionInputs) -> torch.Tensor:
    tensors = _bound(problem, CPU)(inputs)
    return _Planned(FRONTEND, None, problem, tensors)(tensors)


def taken(problem: Attention) -> bool:
    assert cudnn.refuses is not None
    return problem.features <= cudnn.accepts and cudnn.refuses(problem, HOPPER) is None


def test_right(case: dict[str, Any]) -> None:
    problem = Attention(**case, dtype="float16")
    if not taken(problem):
        pytest.skip(f"attention/cudnn does not take {problem.label}")
    inputs = problem.inputs(1)
    found = answer(problem, inputs)
    assert found.dtype == torch.float16
    assert (found - problem.reference(inputs)).abs().max() < 2e-3


@st.composite
def problems(draw: Any) -> Attention:
    q_len, kv_len = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    ragged = q_len <= kv_len and draw(st.booleans())
    return Attention(
        batch=draw(st.integers(1, 3)),
        heads=4,
        kv_heads=draw(st.sampled_from([1, 2, 4])),
        q_len=q_len,
        kv_len=kv_len,
        head_dim=8,
        causal=draw(st.booleans()),
        padding=not ragged and draw(st.booleans()),
        window=draw(st.integers(0, 14)),
        bias=draw(st.sampled_from(["none", "additive"])),
        ragged=ragged,
        page_size=draw(st.sampled_from([0, 0, 4])),
        dtype="float16",
    )


@settings(max_examples=200, deadline=None)
@given(problem=problems())
def test_whatever_is_taken_is_asked_rightly(problem: Attention) -> None:
    if not taken(problem):
        return
    inputs = problem.inputs(0)
    found = answer(problem, inputs)
    assert (found - problem.reference(inputs)).abs().max() < 5e-3  # NaN, where a query saw nothing, is not less
    seen = band(problem)
    if seen.ends and seen.right is not None:  # what the frontend's support surface rejects
        assert problem.bias == "none"
        assert problem.q_len <= problem.kv_len


@pytest.mark.parametrize(
    ("fields", "left", "right", "ends"),
    [
        ({}, None, None, False),
        ({"causal": True}, None, 0, False),
        ({"causal": True, "kv_len": 80}, None, 0, True),
        ({"window": 9}, 9, 8, False),
        ({"window": 9, "causal": True}, 9, 0, False),
        ({"window": 9, "causal": True, "q_len": 1, "kv_len": 80}, 9, 0, True),
        ({"causal": True, "q_len": 1, "kv_len": 80, "ragged": True}, None, None, False),
        ({"causal": True, "ragged": True}, None, 0, True),
        ({"causal": True, "padding": True}, None, 0, False),
    ],
)
def test_bands(fields: dict[str, Any], left: int | None, right: int | None, ends: bool) -> None:
    seen = band(Attention(**{"q_len": 64, **fields}))
    assert (seen.left, seen.right, seen.ends) == (left, right, ends)


def test_options() -> None:
    assert options(Attention(q_len=8)) == {"generate_stats": False, "attn_scale": 0.125}
    asked = options(Attention(q_len=1, kv_len=50, page_size=16, window=7, ragged=True))
    assert asked["use_padding_mask"]
    assert asked["paged_attention_max_seq_len_kv"] == 50
    assert (asked["diagonal_band_left_bound"], asked["diagonal_band_right_bound"]) == (7, 6)


def test_nothing_is_copied() -> None:
    problem = Attention(batch=2, q_len=1, kv_len=50, page_size=16, ragged=True)
    inputs = problem.inputs(0)
    tensors = _bound(problem, CPU)(inputs)
    assert inputs.lengths is not None
    assert inputs.block_table is not None
    for name, tensor in {
        "q": inputs.q,
        "k": inputs.k,
        "v": inputs.v,
        "seq_len_kv": inputs.lengths,
        "paged_attention_k_table": inputs.block_table,
    }.items():
        assert tensors[name].data_ptr() == tensor.data_ptr(), name
    assert tensors["paged_attention_v_table"].shape == (2, 1, 4, 1)
    assert tensors["seq_len_q"].flatten().tolist() == [1, 1]


def test_without_the_package() -> None:
    if importlib.util.find_spec("cudnn") is not None:
        pytest.skip("the package is installed here")
    assert cudnn.why_not(Attention(q_len=8, dtype="bfloat16"), HOPPER) == "needs the Python package cudnn, which is not installed"


@pytest.mark.parametrize(
    ("fields", "device", "sentence"),
    [
        ({"causal": True, "kv_heads": 2, "kv_len": 512}, HOPPER, None),
        ({"causal": True, "head_dim": 256}, HOPPER, None),
        ({"head_dim": 256, "q_len": 1, "kv_len": 99}, HOPPER, None),
        ({"head_dim": 256, "q_len": 1, "kv_len": 99}, BLACKWELL, "up to 128, not 256"),
        ({"head_dim": 256, "q_len": 1, "kv_len": 99}, AMPERE, "up to 128, not 256"),
        ({"head_dim": 20}, HOPPER, "multiples of 8 up to 256, not 20"),
        ({}, TURING, "compute capability 8.0"),
        ({"kv_len": 1}, HOPPER, "a single key"),
        ({"causal": True, "kv_len": 100}, HOPPER, "at most as many queries as keys, not 256→100"),
        ({"kv_len": 100}, HOPPER, None),
        ({"padding": True, "causal": True}, HOPPER, None),
        ({"padding": True, "causal": True, "kv_len": 512}, HOPPER, "padding with causal for equal lengths only"),
        ({"padding": True, "window": 9}, HOPPER, "padding with a window"),
        ({"bias": "additive", "causal": True}, HOPPER, None),
        ({"bias": "additive", "causal": True, "kv_len": 512}, HOPPER, "bias with causal and window for equal lengths only"),
        ({"bias": "boolean"}, HOPPER, "does not take mask"),
        ({"softcap": 9.0}, HOPPER, "does not take softcap"),
        ({"direction": "backward"}, HOPPER, "no backward direction"),
        ({"page_size": 16, "ragged": True, "causal": True}, HOPPER, None),
        ({"dtype": "float32"}, HOPPER, "takes bfloat16, float16, not float32"),
    ],
)
def test_refusals(fields: dict[str, Any], device: Device, sentence: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace(name=name))
    found = cudnn.why_not(Attention(**{"q_len": 256, "dtype": "bfloat16", **fields}), device)
    assert found is None if sentence is None else sentence in (found or "")


def test_what_ran() -> None:
    judge: Callable[..., str] | None = cudnn.identified
    assert judge is not None
    own = "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7_64x128x128_4x1x1_kernel0_0"
    assert judge(None, CUDA, Trace({"aten::empty": 1, own: 1})) == f"cuDNN ({own})"
    assert judge(None, CUDA, Trace({"aten::empty": 1, "another": 1})) == "cuDNN (torch multiplied nothing)"
    assert judge(None, CUDA, Trace({"aten::empty": 1}, device_watched=False)).startswith("not seen: ")
    with pytest.raises(NotAsNamed, match="beside cuDNN"):
        judge(None, CUDA, Trace({own: 1, "aten::bmm": 1}, product_flops=9))
