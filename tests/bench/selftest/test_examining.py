"""The gate in processes of its own: right answers come back, and nothing that a kernel does reaches the next one."""

from __future__ import annotations

import os
from dataclasses import replace

import torch

from kerneldyno.bench.selftest.cheats import PROBLEM
from kerneldyno.bench.selftest.examining import SHIPPED, Job, examined
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.registry import Device

HERE = "kerneldyno.bench.selftest"
CPU = Device("cpu")


def answers(*jobs, stop=lambda: False):
    return {answer.kernel.partition("/")[2]: answer for _, answer in examined(jobs, parallel=2, stop=stop)}


def test_what_is_right_passes_and_what_is_wrong_is_refused_with_a_reason():
    problem = Attention(batch=1, heads=2, q_len=100, head_dim=32)
    wrong = [(f"{HERE}.attention_numbers", f"attention/{name}") for name in ("output_1_05", "scale_1_head_dim")]
    found = answers(Job(problem, ((SHIPPED, "attention/sdpa"), *wrong), CPU, 0))
    assert found["sdpa"].outcome == "passed"
    assert found["output_1_05"].outcome == "refused"
    assert found["output_1_05"].said.startswith("WrongOutput:")
    assert "expected" in found["scale_1_head_dim"].said


def test_a_meddler_does_not_reach_its_successors():
    before = torch.get_num_threads(), os.sched_getaffinity(0), torch.get_default_dtype()
    names = ("changes_the_default_dtype", "keeps_the_process_on_one_core", "replaces_torch_equal_in_build")
    kernels = [(f"{HERE}.meddling", f"attention/{name}") for name in names]
    small = replace(PROBLEM, q_len=64)
    found = answers(Job(small, (*kernels, (f"{HERE}.cheats", "attention/honest")), CPU, 0))
    assert found["honest"].outcome == "passed"
    assert before == (torch.get_num_threads(), os.sched_getaffinity(0), torch.get_default_dtype())


def test_what_a_kernel_does_not_take_is_not_tried():
    found = answers(Job(replace(PROBLEM, causal=True), ((f"{HERE}.cheats", "attention/honest"),), CPU, 0))
    assert found["honest"].outcome == "unable"
    assert "causal" in found["honest"].said


def test_a_process_that_dies_costs_its_kernel(tmp_path, monkeypatch):
    """A plugin of plants that is found on the path of the processes."""
    (tmp_path / "deadly_plants.py").write_text(
        "import os, signal\n"
        "from kerneldyno.bench.selftest.plants import planted\n"
        "from kerneldyno.kernels.attention.problem import Attention\n"
        "def dies(problem, setup):\n    os.kill(os.getpid(), signal.SIGSEGV)\n"
        "def raises(problem, setup):\n    raise KeyError('lost')\n"
        "def plants():\n    at = [Attention(q_len=8)]\n    return [planted('dies', dies, at), planted('raises', raises, at)]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    problem = Attention(batch=1, heads=1, q_len=16, head_dim=16)
    kernels = (("deadly_plants", "attention/dies"), ("deadly_plants", "attention/raises"), (SHIPPED, "attention/eager"))
    found = answers(Job(problem, kernels, CPU, 0))
    assert found["dies"].outcome == "broken"
    assert "SIGSEGV" in found["dies"].said
    assert found["raises"].outcome == "broken"
    assert "KeyError: 'lost'" in found["raises"].said
    assert found["eager"].outcome == "passed"


def test_a_gate_that_cannot_be_set_up_is_said_of_every_kernel():
    found = answers(Job(Attention(q_len=16), (("no.such.module", "attention/a"), ("no.such.module", "attention/b")), CPU, 0))
    assert {answer.outcome for answer in found.values()} == {"broken"}
    assert "no.such.module" in found["a"].said or "No module named" in found["a"].said
    assert len(found) == 2


def test_stopping_ends_the_processes():
    jobs = [Job(Attention(q_len=16), ((SHIPPED, "attention/eager"),), CPU, seed) for seed in range(4)]
    assert answers(*jobs, stop=lambda: True) == {}


def test_without_the_gate_everything_passes():
    problem = Attention(batch=1, heads=2, q_len=64, head_dim=32)
    found = answers(Job(problem, ((f"{HERE}.attention_numbers", "attention/output_1_05"),), CPU, 0, "nothing"))
    assert found["output_1_05"].outcome == "passed"
