"""flash-attn 2 and 3: what they are asked and what they refuse, against stand-ins that do what the packages' documentation says.

The packages run on GPUs only: tests marked gpu, in test_gpu.py, call the real ones.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kerneldyno.kernels.attention import _flash_calls, flash_attn2, flash_attn3
from kerneldyno.kernels.attention._flash_calls import from_cache, ran_package, window_size
from kerneldyno.kernels.attention.problem import Attention, AttentionInputs
from kerneldyno.kernels.registry import Device, Kernel, NotAsNamed, Setup, Trace, differentiated

TWO, THREE = flash_attn2.flash_attn2, flash_attn3.flash_attn3
MODULES = {TWO.name: "flash_attn", THREE.name: "flash_attn_interface"}
BOTH = pytest.mark.parametrize("kernel", [TWO, THREE], ids=["2", "3"])
HOPPER, AMPERE, TURING = (Device("cuda", capability=number) for number in ((9, 0), (8, 0), (7, 5)))
CUDA = Setup(torch.device("cuda"))
PAGE = 256


class Documented:
    """What flash_attn_func and flash_attn_with_kvcache document, in float64 on any device; `clipped` is done to windows first."""

    def __init__(self, table: str, clipped: Callable[..., tuple[int, int]], *, page: int = 1) -> None:
        self.table, self.clipped, self.page = table, clipped, page
        self.called: list[str] = []

    def flash_attn_func(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **given: Any) -> torch.Tensor:
        self.called.append("plain")
        return self._attend(q, k, v, torch.full((q.shape[0],), k.shape[1]), **given)

    def flash_attn_with_kvcache(
        self, q: torch.Tensor, k_cache: torch.Tensor, v_cache: torch.Tensor, cache_seqlens: torch.Tensor | None = None, **given: Any
    ) -> torch.Tensor:
        self.called.append("cached")
        table = given.pop(self.table, None)
        k, v = k_cache, v_cache
        if table is not None:
            assert table.dtype == torch.int32
            assert k.shape[1] % self.page == 0
            k, v = (pool[table].flatten(1, 2) for pool in (k, v))  # [batch, pages · page, heads, head_dim]
        if cache_seqlens is None:
            cache_seqlens = torch.full((q.shape[0],), k.shape[1], dtype=torch.int32)
        assert cache_seqlens.dtype == torch.int32
        return self._attend(q, k, v, cache_seqlens, **given)

    def _attend(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        lengths: torch.Tensor,
        softmax_scale: float,
        causal: bool = False,
        window_size: tuple[int, int] = (-1, -1),
        softcap: float = 0.0,
    ) -> torch.Tensor:
        """Query i attends to keys in [i + length - seqlen_q - left, i + length - seqlen_q + right], ends included."""
        assert q.stride(-1) == k.stride(-1) == v.stride(-1) == 1
        left, right = self.clipped(*window_size, q.shape[1], k.shape[1])
        if causal and q.shape[1] > 1:
            right = 0
        wide = [tensor.transpose(1, 2).double() for tensor in (q, k, v)]
        wide[1:] = [tensor.repeat_interleave(q.shape[2] // k.shape[2], 1) for tensor in wide[1:]]
        scores = wide[0] @ wide[1].mT * softmax_scale
        scores = softcap * (scores / softcap).tanh() if softcap > 0 else scores
        position = torch.arange(q.shape[1])[:, None] + lengths.view(-1, 1, 1, 1) - q.shape[1]
        key = torch.arange(k.shape[1])
        seen = key < lengths.view(-1, 1, 1, 1)
        seen = seen & (key >= position - left) if left >= 0 else seen
        seen = seen & (key <= position + right) if right >= 0 else seen
        weights = scores.masked_fill(~seen, -1e300).softmax(-1).masked_fill(~seen, 0)
        return (weights @ wide[2]).transpose(1, 2).to(q.dtype)


def clipped_by_two(left: int, right: int, seqlen_q: int, seqlen_k: int) -> tuple[int, int]:
    return -1 if left >= seqlen_k else left, -1 if right >= seqlen_k else right


def clipped_by_three(left: int, right: int, seqlen_q: int, seqlen_k: int) -> tuple[int, int]:
    return -1 if left >= seqlen_k - 1 else left, -1 if right >= seqlen_q - 1 else right


def documented(kernel: Kernel) -> Documented:
    return Documented("block_table", clipped_by_two, page=PAGE) if kernel is TWO else Documented("page_table", clipped_by_three)


@pytest.fixture(autouse=True)
def packages(monkeypatch: pytest.MonkeyPatch) -> dict[str, Documented]:
    made = {kernel.name: documented(kernel) for kernel in (TWO, THREE)}
    by_module = {MODULES[name]: package for name, package in made.items()}
    for module in (flash_attn2, flash_attn3):
        monkeypatch.setattr(module, "import_module", by_module.__getitem__)
    return made


def taken(kernel: Kernel, problem: Attention) -> bool:
    assert kernel.refuses is not None
    return problem.features <= kernel.accepts and kernel.refuses(problem, HOPPER) is None


@BOTH
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_right(kernel: Kernel, dtype: str, case: dict[str, Any], judge: Callable[..., torch.Tensor]) -> None:
    problem = Attention(**case, dtype=dtype)
    if not taken(kernel, problem):
        pytest.skip(f"{kernel.name} does not take {problem.label}")
    judge(kernel, problem)


@BOTH
def test_gradients_are_right(kernel: Kernel, backward_case: dict[str, Any], judge: Callable[..., torch.Tensor]) -> None:
    problem = Attention(**backward_case, dtype="bfloat16")
    if not taken(kernel, problem):
        pytest.skip(f"{kernel.name} does not take {problem.label}")
    judge(kernel, problem)


@BOTH
@pytest.mark.parametrize("lengths", [{"ragged": True}, {"padding": True}, {}])
@pytest.mark.parametrize("q_len", [1, 3])
def test_pages(kernel: Kernel, lengths: dict[str, bool], q_len: int, judge: Callable[..., torch.Tensor]) -> None:
    """The last page reaches beyond the keys, with numbers in it that belong to nobody."""
    sizes: dict[str, Any] = {"batch": 3, "heads": 4, "kv_heads": 2, "q_len": q_len, "kv_len": 300, "head_dim": 16}
    judge(kernel, Attention(**sizes, **lengths, page_size=PAGE, causal="padding" not in lengths, dtype="bfloat16"))


SIZES = st.integers(1, 12)


@st.composite
def problems(draw: Any) -> Attention:
    q_len, kv_len = draw(SIZES), draw(SIZES)
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
        softcap=draw(st.sampled_from([0.0, 3.0])),
        ragged=ragged,
        page_size=draw(st.sampled_from([0, 0, 5])),
    )


@settings(max_examples=150, deadline=None)
@given(problem=problems(), kernel=st.sampled_from([TWO, THREE]))
def test_whatever_is_taken_is_asked_rightly(problem: Attention, kernel: Kernel) -> None:
    """Also windows wider than the cache, which the packages take for none, and rows that end everywhere."""
    if not taken(kernel, replace(problem, page_size=0)):
        return
    package = documented(kernel)
    package.page = 1  # pages this small are refused, but count as others do
    run = _flash_calls.through(problem, Setup(torch.device("cpu")), package.flash_attn_func, package.flash_attn_with_kvcache, package.table)
    inputs = problem.inputs(0)
    assert (run(inputs) - problem.reference(inputs)).abs().max() < 1e-5
    assert package.called == ["cached" if from_cache(problem) else "plain"]


def test_the_window_that_flash_attn_2_clips_wrongly() -> None:
    """Why it is refused: a window of kv_len is no window to it, but queries before the first key do not see them all."""
    problem = Attention(heads=1, q_len=10, kv_len=4, window=5, head_dim=8)
    inputs, package = problem.inputs(0), documented(TWO)
    found = package.flash_attn_func(
        *_flash_calls._tokens_first(inputs), softmax_scale=problem.scale, window_size=window_size(problem)
    ).transpose(1, 2)
    assert (found - problem.reference(inputs)).abs().max() > 0.1
    assert not taken(TWO, problem)
    assert taken(THREE, problem)


@pytest.mark.parametrize(
    ("fields", "window", "cached"),
    [
        ({}, (-1, -1), False),
        ({"causal": True}, (-1, -1), False),
        ({"window": 9}, (8, 8), False),
        ({"window": 9, "causal": True}, (8, 0), False),
        ({"window": 1, "causal": True}, (0, 0), False),
        ({"kv_len": 80}, (-1, -1), True),
        ({"kv_len": 50}, (-1, -1), False),
        ({"kv_len": 80, "direction": "backward"}, (-1, -1), False),
        ({"padding": True}, (-1, -1), True),
        ({"kv_len": 80, "ragged": True}, (-1, -1), True),
        ({"page_size": 256}, (-1, -1), True),
    ],
)
def test_windows_and_functions(fields: dict[str, Any], window: tuple[int, int], cached: bool) -> None:
    problem = Attention(**{"q_len": 64, **fields})
    assert window_size(problem) == window
    assert from_cache(problem) == cached


@BOTH
def test_nothing_is_copied_but_what_must_be(kernel: Kernel) -> None:
    problem = Attention(batch=2, heads=4, q_len=5, kv_len=9, head_dim=8)
    inputs = problem.inputs(0)
    for given_, tensor in zip(_flash_calls._tokens_first(inputs), (inputs.q, inputs.k, inputs.v), strict=True):
        assert given_.data_ptr() == tensor.data_ptr()
        assert given_.shape == tensor.transpose(1, 2).shape
    apart: AttentionInputs = inputs.replace(k=inputs.k.mT.contiguous().mT)
    assert _flash_calls._tokens_first(apart)[1].stride(-1) == 1


def test_an_output_with_its_log_sum_exp() -> None:
    """Early versions of flash-attn 3 give both."""
    problem = Attention(q_len=5, head_dim=8, direction="backward", causal=True)
    package, inputs = documented(THREE), problem.inputs(0)
    run = _flash_calls.through(
        problem, Setup(torch.device("cpu")), lambda *args, **given: (package.flash_attn_func(*args, **given), None), None, "page_table"
    )
    found = differentiated(run)(inputs)
    assert (found.output - problem.reference(inputs)).abs().max() < 1e-5


@BOTH
def test_without_the_package(kernel: Kernel) -> None:
    if importlib.util.find_spec(MODULES[kernel.name]) is not None:
        pytest.skip("the package is installed here")
    problem = Attention(q_len=8, dtype="bfloat16")
    assert kernel.why_not(problem, HOPPER) == f"needs the Python package {MODULES[kernel.name]}, which is not installed"
    assert kernel.why_not(problem, Device("cpu")) == "runs on cuda only, not on cpu"


@pytest.mark.parametrize(
    ("kernel", "fields", "device", "sentence"),
    [
        (TWO, {"causal": True, "kv_heads": 2, "window": 9, "softcap": 5.0}, HOPPER, None),
        (TWO, {"causal": True, "direction": "backward"}, AMPERE, None),
        (TWO, {}, TURING, "compute capability 8.0"),
        (TWO, {"head_dim": 264}, HOPPER, "head_dim up to 256, not 264"),
        (TWO, {"head_dim": 20}, HOPPER, None),
        (TWO, {"page_size": 16}, HOPPER, "pages of multiples of 256 tokens, not 16"),
        (TWO, {"page_size": 512, "ragged": True, "causal": True, "q_len": 1, "kv_len": 700}, HOPPER, None),
        (TWO, {"padding": True}, HOPPER, None),
        (TWO, {"padding": True, "causal": True}, HOPPER, "takes padding without causal or window only"),
        (TWO, {"padding": True, "causal": True, "q_len": 1, "kv_len": 99}, HOPPER, None),
        (TWO, {"padding": True, "direction": "backward"}, HOPPER, "no backward direction for lengths"),
        (TWO, {"window": 9, "kv_len": 100}, HOPPER, "for q_len up to kv_len only"),
        (TWO, {"bias": "additive"}, HOPPER, "does not take bias"),
        (TWO, {"bias": "boolean"}, HOPPER, "does not take mask"),
        (TWO, {"dtype": "float32"}, HOPPER, "takes bfloat16, float16, not float32"),
        (THREE, {"page_size": 16, "ragged": True, "causal": True}, HOPPER, None),
        (THREE, {}, AMPERE, r"compute capability 9.0 (Hopper), not 8.0"),
        (THREE, {"head_dim": 20}, HOPPER, "multiples of 8, not 20"),
        (THREE, {"padding": True, "window": 9}, HOPPER, "flash-attn 3 takes padding without causal or window only"),
    ],
)
def test_refusals(kernel: Kernel, fields: dict[str, Any], device: Device, sentence: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace(name=name))
    found = kernel.why_not(Attention(**{"q_len": 256, "dtype": "bfloat16", **fields}), device)
    assert found is None if sentence is None else sentence in (found or "")


def test_a_flash_attn_4_alone_is_no_flash_attn_2(monkeypatch: pytest.MonkeyPatch) -> None:
    """It brings a package flash_attn with nothing but flash_attn.cute in it."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace() if name == "flash_attn" else None)
    assert TWO.why_not(Attention(q_len=8, dtype="bfloat16"), HOPPER) == "needs the Python package flash_attn_2_cuda, which is not installed"


def said(kernel: Kernel, *operators: str, **other: Any) -> str:
    assert kernel.identified is not None
    return kernel.identified(None, CUDA, Trace(dict.fromkeys(operators, 1), **other))


def test_what_ran() -> None:
    assert said(TWO, "flash_attn::_flash_attn_forward", "aten::empty") == "flash-attn 2 (flash_attn::_flash_attn_forward)"
    splits = "void flash::flash_fwd_splitkv_kernel<flash::Flash_fwd_kernel_traits<128, 64, 128>>(flash::Flash_fwd_params)"
    assert said(TWO, splits) == "flash-attn 2 (flash_fwd)"
    assert said(THREE, "flash_attn_3::fwd").startswith("flash-attn 3 (flash_attn_3::fwd")
    assert said(TWO, "aten::empty", device_watched=False).startswith("not seen: ")
    with pytest.raises(NotAsNamed, match="flash-attn 2 did not run"):
        said(TWO, splits.replace("flash::flash_fwd", "pytorch_flash::flash_fwd"))
    with pytest.raises(NotAsNamed, match="flash-attn 3 did not run"):
        said(THREE, "flash_attn::_flash_attn_forward")
    with pytest.raises(NotAsNamed, match="beside flash-attn 3"):
        said(THREE, "flash_attn_3::fwd", "aten::bmm", product_flops=9)
    assert ran_package("x", ("x::",), "x_kernel")(None, CUDA, Trace({"x::f": 1})) == "x (x::f)"
