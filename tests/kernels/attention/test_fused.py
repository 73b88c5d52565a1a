"""Our Triton kernels without a GPU: through the whole gate in the interpreter, and what they take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from kerneldyno.kernels._cards import H100, Card
from kerneldyno.kernels.attention._on_device import started
from kerneldyno.kernels.attention.fused import device_kernel, fused, ran
from kerneldyno.kernels.attention.problem import Attention, AttentionInputs
from kerneldyno.kernels.registry import Device, NotAsNamed, Setup, Trace

HOPPER = Device("cuda", capability=(9, 0))


@pytest.mark.slow
@pytest.mark.parametrize("part", ["few", pytest.param("all", marks=pytest.mark.exhaustive)])
def test_passes_the_gate_in_the_interpreter(part: str, told: Callable[..., list[dict[str, Any]]]) -> None:
    found = told("gate_fused.py", part, interpreted=True)
    assert len(found) == {"few": 7, "all": 50}[part]
    assert [case for case in found if case["wrong"]] == []
    assert all(case["probes"] >= (7 if "bwd" in case["label"] else 12) and not case["left out"] for case in found), found


@pytest.mark.parametrize(
    ("changes", "device", "sentence"),
    [
        ({}, HOPPER, None),
        ({"causal": True, "padding": True, "kv_heads": 2, "kv_len": 7}, Device("cuda", capability=(8, 6)), None),
        ({"bias": "additive", "window": 7, "softcap": 30.0, "ragged": True, "page_size": 16}, HOPPER, None),
        ({"bias": "boolean"}, HOPPER, None),
        ({}, Device("cpu"), "runs on cuda only, not on cpu"),
        ({}, Device("cuda", capability=(7, 5)), "compute capability 8.0 and newer, not 7.5"),
        ({"head_dim": 8}, HOPPER, "takes head_dim from 16 to 256, not 8"),
        ({"head_dim": 257}, HOPPER, "takes head_dim from 16 to 256, not 257"),
        ({"direction": "backward", "causal": True, "softcap": 5.0, "bias": "boolean"}, HOPPER, None),
    ],
)
def test_refusals(changes: dict[str, Any], device: Device, sentence: str | None) -> None:
    found = fused.why_not(Attention(**{"q_len": 64, **changes}), device)
    assert found is None if sentence is None else sentence in (found or "")


@pytest.mark.parametrize(
    ("changes", "name", "tile"),
    [
        ({"q_len": 17}, "prefill_kernel", "32×32 w4 s2"),
        ({"q_len": 4096, "causal": True, "dtype": "float16"}, "prefill_kernel", "128×128 w8 s3 ahead"),
        ({"q_len": 4096, "head_dim": 36, "dtype": "float16"}, "prefill_kernel", "128×32 w8 s2"),  # rows begin anywhere
        ({"q_len": 16, "kv_len": 4096}, "split_kernel", "16×32 w4 s3"),
        ({"q_len": 512, "page_size": 16, "dtype": "bfloat16"}, "split_kernel", "64×64 w4 s3"),
    ],
)
def test_which_kernel_is_meant_for_what(changes: dict[str, Any], name: str, tile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Card, "of", lambda device: H100)
    problem = Attention(**changes)
    assert device_kernel(problem) == name
    setup = Setup(torch.device("cuda"))
    assert ran(problem, setup, Trace({f"{name}_0d1": 1})) == f"Triton: {name} {tile}, default"
    unseen = ran(problem, setup, Trace(device_watched=False))
    assert unseen.startswith("not seen")
    assert tile not in unseen
    with pytest.raises(NotAsNamed, match="did not run"):
        ran(problem, setup, Trace({"some_other_kernel": 1}))
    monkeypatch.setattr("kerneldyno.kernels.attention.fused.precision", lambda: "tf32")
    in_tf32 = ", in TF32" if problem.dtype == "float32" else ""
    assert ran(problem, setup, Trace({name: 1})) == f"Triton: {name} {tile}, default{in_tf32}"


def test_backward_its_own_kernel_has_to_run_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Card, "of", lambda device: H100)
    problem, setup = Attention(q_len=64, direction="backward"), Setup(torch.device("cuda"))
    said = ran(problem, setup, Trace({"prefill_kernel": 1, "keys_kernel": 1}))
    assert said == "Triton: prefill_kernel, keys_kernel 32×32 w4 s2, default; backward 32×32 w8 s2, default"
    with pytest.raises(NotAsNamed, match="keys_kernel did not run"):
        ran(problem, setup, Trace({"prefill_kernel": 1}))


def test_the_first_call_belongs_to_the_build() -> None:
    calls: list[AttentionInputs] = []

    def attend(inputs: AttentionInputs) -> torch.Tensor:
        calls.append(inputs)
        return inputs.q

    first, second = (Attention(q_len=3).inputs(seed) for seed in (1, 2))
    run = started(attend, first)
    assert calls == [first]
    assert run(second) is second.q
    assert calls == [first, second]
