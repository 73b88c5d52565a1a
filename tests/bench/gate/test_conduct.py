"""Cheats and accidents that look like speed: each is planted, and each is named."""

from __future__ import annotations

import os
import random
import threading
import time

import numpy as np
import pytest
import torch

from kerneldyno.bench.gate import conduct, forgetting
from kerneldyno.bench.gate.errors import Misconduct
from kerneldyno.bench.gate.state import Instruments, Snapshot
from kerneldyno.kernels.attention.problem import Attention

CPU = torch.device("cpu")
PROBLEM = Attention(batch=2, heads=4, q_len=129, head_dim=64)


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


def in_place_later():
    calls = 0

    def run(inputs):
        nonlocal calls
        calls += 1
        out = correct(inputs)
        if calls > 1:
            inputs.v.zero_()
        return out

    return run


def input_memory(inputs):
    return inputs.v


class Lazy(torch.Tensor):
    pass


def lazy(inputs):
    return correct(inputs).as_subclass(Lazy)


def late(inputs):
    out = torch.full_like(inputs.q, 7.0)

    def work():
        time.sleep(0.03)
        out.copy_(correct(inputs))

    threading.Thread(target=work).start()
    return out


def busy_afterwards(inputs):
    def work():
        until = time.perf_counter() + 0.5
        while time.perf_counter() < until:
            sum(range(1000))

    threading.Thread(target=work, name="busy", daemon=True).start()
    return correct(inputs)


def overwrites_the_last():
    last = None

    def run(inputs):
        nonlocal last
        if last is not None:
            last.zero_()
        last = correct(inputs)
        return last

    return run


CHEATS = {
    "memoized": (memoized_by_pointer(), "memoized"),
    "one buffer": (one_buffer(), "same buffer"),
    "in place": (in_place, "changes its input q"),
    "in place, but not the first time": (in_place_later(), "changes its input v"),
    "input memory": (input_memory, "memory of its inputs"),
    "lazy": (lazy, "Lazy"),
    "late": (late, "goes on writing"),
    "busy afterwards": (busy_afterwards, "goes on working"),
    "overwrites the last": (overwrites_the_last(), "changes a result"),
}


@pytest.mark.parametrize("name", CHEATS)
def test_cheats_are_caught(name):
    run, message = CHEATS[name]
    with pytest.raises(Misconduct, match=message):
        conduct.behaves(run, PROBLEM.inputs(0), PROBLEM.inputs(1), CPU)
    for thread in threading.enumerate():
        if (thread is not threading.current_thread() and not thread.daemon) or thread.name == "busy":
            thread.join()


STATES = {
    "the default dtype": lambda: torch.set_default_dtype(torch.float64),
    "the thread count": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
    "gradient mode": lambda: torch.set_grad_enabled(True),
    "the float32 matmul precision": lambda: torch.set_float32_matmul_precision("medium"),
    "torch.backends.mkldnn.matmul.fp32_precision": lambda: setattr(torch.backends.mkldnn.matmul, "fp32_precision", "bf16"),
    "deterministic mode": lambda: torch.use_deterministic_algorithms(True),
    "autocast on the CPU": lambda: torch.set_autocast_enabled("cpu", True),
    "the treatment of denormal numbers": lambda: torch.set_flush_denormal(True),
    "the random state": lambda: torch.rand(1),
    "Python's random state": random.random,
    "numpy's random state": lambda: np.random.seed(1),  # noqa: NPY002 - what a careless kernel does
    "the environment": lambda: os.environ.update(OMP_NUM_THREADS="1", KERNELDYNO_PROBE="1"),
    "the working directory": lambda: os.chdir("/"),
    "SDPA's math backend": lambda: torch._C._set_sdp_use_math(False),
}


@pytest.mark.parametrize("name", STATES)
def test_global_state_is_named_and_put_back(name):
    def run(inputs):
        out = correct(inputs)
        STATES[name]()
        return out

    before = Snapshot.now()
    with pytest.raises(Misconduct, match=f"changes global state: .*{name}"):
        conduct.behaves(run, PROBLEM.inputs(0), PROBLEM.inputs(1), CPU)
    assert before.restore() == []


def test_replaced_instruments_are_named_and_put_back(monkeypatch):
    instruments = Instruments()
    assert instruments.restore() == []
    original = time.perf_counter_ns
    try:
        time.perf_counter_ns = lambda: 0
        torch.Tensor.clone = lambda self: self
        assert set(instruments.restore()) == {"time.perf_counter_ns", "Tensor.clone"}
        assert time.perf_counter_ns is original
        tensor = torch.ones(1)
        assert tensor.clone().data_ptr() != tensor.data_ptr()
    finally:
        time.perf_counter_ns = original
    found = Attention.reference
    Attention.reference = Attention.naive
    assert instruments.restore() == ["Attention.reference"]
    assert Attention.reference is found


def test_inputs_are_as_before_after_the_check():
    inputs = PROBLEM.inputs(0)
    before = inputs.map(torch.clone)
    seen = conduct.behaves(correct, inputs, PROBLEM.inputs(1), CPU)
    assert all(torch.equal(a, b) for a, b in zip(inputs.tensors().values(), before.tensors().values(), strict=True))
    assert torch.equal(seen.first, correct(inputs))
    assert torch.equal(seen.second, correct(PROBLEM.inputs(1)))


def slow(inputs):
    """About 2 ms, whatever the machine is busy with."""
    until = time.perf_counter() + 0.002
    out = correct(inputs)
    while time.perf_counter() < until:
        pass
    return out


def remembering(key):
    seen = {}

    def run(inputs):
        name = key(inputs)
        if name not in seen:
            seen[name] = slow(inputs)
        return seen[name].clone()

    return run


@pytest.mark.parametrize(
    ("key", "how"),
    [
        (lambda inputs: inputs.q.numpy().tobytes()[:4096] + inputs.v.numpy().tobytes()[:4096], "written once more"),
        (lambda inputs: (inputs.q.data_ptr(), inputs.q._version), "left where they were"),
    ],
)
def test_results_that_are_remembered_by_value_are_noticed(key, how):
    with pytest.raises(Misconduct, match=rf"\({how}\): results are remembered by value"):
        forgetting.forgets(remembering(key), PROBLEM, PROBLEM.inputs(0), CPU, 0.002, 1)


def test_honest_calls_of_steady_length_are_not_suspected():
    for seed in range(3):
        forgetting.forgets(slow, PROBLEM, PROBLEM.inputs(0), CPU, 0.002, seed)
