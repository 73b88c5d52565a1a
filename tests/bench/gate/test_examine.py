"""The whole gate: right kernels pass, wrong ones do not, and what is said tells where to look."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from kerneldyno.bench.gate import examine as gate_module
from kerneldyno.bench.gate import probing
from kerneldyno.bench.gate.errors import Misconduct, WrongOutput
from kerneldyno.bench.gate.examine import Gate, examine
from kerneldyno.bench.gate.truth import Truth
from kerneldyno.bench.gate.verify import LIMITS, Standard, glanced_at, verify
from kerneldyno.bench.records import Errors
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.feedforward.problem import FeedForward
from kerneldyno.kernels.layer.problem import Layer
from kerneldyno.kernels.registry import Probe, Setup, kernel, kind_of

CPU = torch.device("cpu")
PROBLEMS = [
    Attention(batch=2, heads=4, q_len=129, head_dim=32),
    Attention(batch=2, heads=4, kv_heads=2, q_len=65, kv_len=127, head_dim=32, causal=True, padding=True, dtype="float16"),
    Attention(batch=1, heads=2, q_len=60, head_dim=32, bias="boolean", dtype="bfloat16"),
    Attention(batch=1, heads=4, kv_heads=2, q_len=40, head_dim=16, causal=True, direction="backward"),
    FeedForward(batch=2, seq_len=17, dim=48, hidden_dim=96, gated=True, activation="silu", norm="rmsnorm"),
    Layer(batch=2, seq_len=33, dim=32, heads=4, hidden_dim=64, padding=True, mask="causal", dtype="bfloat16"),
]


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: f"{p.operator} {p.label}")
@pytest.mark.parametrize("family", ["eager", "sdpa"])
def test_right_kernels_pass_every_probe(kernels, problem, family):
    chosen = kernels.get(f"{problem.operator}/{family}") or kernels[f"{problem.operator}/eager"]
    found = examine(chosen, problem, Setup(CPU), thorough=True)
    names = {probe.name for probe in problem.probes(problem.inputs(0), 0)}
    assert found.probes.keys() | found.left_out.keys() == names
    assert len(found.probes) >= 4
    assert 0 <= found.errors.max_ratio <= LIMITS[problem.dtype][0]
    assert found.distance is None


@pytest.mark.parametrize(
    "name",
    [
        "attention/pruned",
        "attention/pruned_25",
        "feedforward/pruned",
        "feedforward/pruned_50_activations",
        "layer/pruned",
        "layer/pruned_heads_75",
        "layer/pruned_heads_50_activations",
        "attention/int8",
    ],
)
def test_approximate_kernels_are_held_to_their_claim_and_their_distance_is_told(kernels, name):
    problem = next(problem for problem in PROBLEMS if problem.operator == name.partition("/")[0])
    found = examine(kernels[name], problem, Setup(CPU))
    assert found.distance is not None
    assert 0 < found.distance.relative_rms < 2
    exact_in_secret = dataclasses.replace(kernels[name], build_run=kernels[f"{problem.operator}/eager"].build_run)
    with pytest.raises(WrongOutput, match="claims to compute"):
        examine(exact_in_secret, problem, Setup(CPU))


def wrong(change, **declared):
    """A kernel that computes attention by the reference and then makes one mistake."""

    @kernel(Attention, accepts=("causal", "padding", "mask", "bias"), **declared)
    def mistaken(problem, setup):
        """Right but for one thing."""

        def run(inputs):
            return change(problem, inputs, problem.reference(inputs)).to(inputs.q.dtype)

        return run

    return mistaken


def leak(problem, inputs, right):
    """One query of one head sees the key after its own."""
    mask = torch.ones(problem.q_len, problem.kv_len, dtype=torch.bool).tril()
    if problem.q_len > 41:
        mask[40, 41] = True
    open_problem = dataclasses.replace(problem, causal=False)
    leaking = open_problem.reference(inputs.with_mask(mask))
    if problem.q_len > 41:
        right[:, 1, 40] = leaking[:, 1, 40]
    return right


def test_a_mistake_is_told_with_probe_place_and_numbers():
    problem = Attention(batch=2, heads=3, q_len=64, head_dim=16, causal=True)
    with pytest.raises(WrongOutput) as caught:
        examine(wrong(leak), problem, Setup(CPU))
    assert "batch" in str(caught.value)
    assert "head 1, row 40" in str(caught.value)
    assert "expected" in str(caught.value)
    assert "limit" in str(caught.value)


def test_values_that_must_not_show_may_not_show_at_all(kernels):
    problem = Attention(batch=1, heads=2, q_len=64, head_dim=16, causal=True, dtype="bfloat16")
    faint = wrong(lambda problem, inputs, right: right + 1e-6 * inputs.v.double().mean(2, keepdim=True))
    with pytest.raises(WrongOutput, match=r"values of later keys must not show: .*row"):
        examine(faint, problem, Setup(CPU))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda out: out.double(), "not float32"),
        (lambda out: out[:, :, 1:], "shape"),
        (lambda out: torch.where(out > 0.1, torch.nan, out), "NaN or infinite, as at batch"),
        (lambda out: out.numpy(), "not a tensor"),
        (lambda out: None, "not a tensor"),
    ],
)
def test_malformed_answers_are_named(kernels, change, message):
    problem = PROBLEMS[0]
    truth = Truth(problem, problem.inputs(0), None)
    out = problem.reference(truth.inputs).float()
    with pytest.raises(WrongOutput, match=message):
        verify(change(out), kernels["attention/eager"], Setup(CPU), truth)


def test_gradients_are_checked_by_name(kernels):
    problem = PROBLEMS[3]
    truth = Truth(problem, problem.inputs(0), None)
    answer = kernels["attention/sdpa"].build(problem, Setup(CPU))(truth.inputs)
    verify(answer, kernels["attention/sdpa"], Setup(CPU), truth)
    answer.by_name["k"].mul_(1.2)
    with pytest.raises(WrongOutput, match="grad k"):
        verify(answer, kernels["attention/sdpa"], Setup(CPU), truth)


def test_gradients_that_are_exactly_zero_leave_room_for_rounding(kernels):
    problem = Attention(batch=1, heads=2, q_len=5, kv_len=1, head_dim=16, direction="backward")
    truth = Truth(problem, problem.inputs(0), None)
    answer = kernels["attention/sdpa"].build(problem, Setup(CPU))(truth.inputs)
    assert not truth.expected["grad q"].any()
    verify(answer, kernels["attention/sdpa"], Setup(CPU), truth)


def test_a_kernel_that_reads_memory_it_did_not_write_is_caught(kernels):
    """The last row is left as the allocator gave it; the harness sees to it that this is not the right answer by chance."""

    @kernel(Attention)
    def unwritten(problem, setup):
        """Never writes the last row."""

        def run(inputs):
            out = torch.empty_like(inputs.q)
            out[:, :, :-1] = problem.naive(inputs)[:, :, :-1]
            return out

        return run

    with pytest.raises(WrongOutput, match=f"row {PROBLEMS[0].q_len - 1}|NaN"):
        examine(unwritten, PROBLEMS[0], Setup(CPU))


def test_a_kernel_may_refuse_strange_strides_but_not_misread_them():
    @kernel(Attention)
    def refusing(problem, setup):
        """Wants contiguous inputs, and says so."""

        def run(inputs):
            if not all(tensor.is_contiguous() for tensor in (inputs.q, inputs.k, inputs.v)):
                raise ValueError("give contiguous tensors")
            return problem.naive(inputs)

        return run

    @kernel(Attention)
    def misreading(problem, setup):
        """Reads memory in order, whatever the strides."""

        def run(inputs):
            read = {
                name: torch.as_strided(t, t.shape, t.new_empty(t.shape, device="meta").stride()) for name, t in inputs.tensors().items()
            }
            return problem.naive(inputs.replace(**read))

        return run

    problem = Attention(batch=2, heads=2, q_len=33, head_dim=16)
    found = examine(refusing, problem, Setup(CPU))
    assert "the kernel refuses such inputs" in found.left_out.values()
    with pytest.raises(WrongOutput, match="tokens before heads in memory"):
        examine(misreading, problem, Setup(CPU))


def test_slow_kernels_leave_probes_out_and_say_so(kernels):
    problem = PROBLEMS[0]
    gate = Gate(problem, Setup(CPU), patience_s=-1.0)
    run = kernels["attention/eager"].build(problem, gate.setup)
    found = gate.examine(kernels["attention/eager"], run)
    assert not found.probes
    assert all("kerneldyno check makes every probe" in reason for reason in found.left_out.values())
    gate = Gate(problem, Setup(CPU), known_awkward=(kind_of("attention/eager", problem.fields()),))
    found = gate.examine(kernels["attention/eager"], run, build_s=9.0)
    assert {"made at another problem of this kind"} == {found.left_out[name] for name in found.left_out if name.startswith("awkward")}
    gate = Gate(problem, Setup(CPU))
    found = gate.examine(kernels["attention/eager"], run, build_s=9.0)
    assert any("another build takes 9.0 s" in reason for reason in found.left_out.values())
    gate = Gate(problem, Setup(CPU), thorough=True, known_awkward=("attention/eager of another kind",))
    found = gate.examine(kernels["attention/eager"], run, build_s=9.0)
    assert [name for name in found.probes if name.startswith("awkward")] == ["awkward length 129→129"]


def test_a_build_that_changes_global_state_is_put_back_and_named():
    @kernel(Attention)
    def selfish(problem, setup):
        """Takes one thread for itself."""
        torch.set_default_dtype(torch.float64)
        torch.rand(3)
        return problem.naive

    before = torch.get_rng_state()
    gate = Gate(PROBLEMS[0], Setup(CPU))
    with gate.building() as changed:
        selfish.build(PROBLEMS[0], gate.setup)
    assert changed == ["the default dtype"]
    assert torch.get_default_dtype() == torch.float32
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(Misconduct, match="its build or first call changes global state: the default dtype"):
        examine(selfish, PROBLEMS[0], Setup(CPU))


def test_a_kernel_that_raises_in_a_probe_is_wrong_there(kernels):
    @kernel(Attention)
    def short_sighted(problem, setup):
        """Cannot do a single token."""

        def run(inputs):
            if problem.q_len == 1:
                raise IndexError("tile 0 of 0")
            return problem.naive(inputs)

        return run

    with pytest.raises(WrongOutput, match="awkward length 1→1: raises IndexError: tile 0 of 0"):
        examine(short_sighted, Attention(heads=2, q_len=20, head_dim=16), Setup(CPU))


def test_timed_answers_are_glanced_at(kernels):
    import numpy as np

    problem = PROBLEMS[0]
    truth = Truth(problem, problem.inputs(0), None)
    standard = Standard.of(kernels["attention/eager"], Setup(CPU), truth)
    right = problem.reference(truth.inputs).float()
    rng = np.random.default_rng(0)
    glanced_at(right, standard, rng)
    with pytest.raises(WrongOutput, match="of a timed call is off at batch"):
        glanced_at(right * 1.01, standard, rng)
    with pytest.raises(WrongOutput, match="timed call"):
        glanced_at(torch.full_like(right, torch.nan), standard, rng)


def test_probes_say_what_they_are_for():
    for problem in PROBLEMS:
        found = list(problem.probes(problem.inputs(0), 0))
        assert len({probe.name for probe in found}) == len(found)
        assert all(isinstance(probe, Probe) for probe in found)
        for probe in found:
            other = probe.problem or problem
            drawn = other.inputs(0)
            assert {name: t.shape for name, t in probe.inputs.tensors().items()} == {name: t.shape for name, t in drawn.tensors().items()}
            if probe.zeros is not None:
                right = other.reference(probe.inputs)
                assert not right[probe.zeros.expand(right.shape)].any(), "what must be 0 is 0 in the reference"
                assert probe.zeros.any()


def test_a_gate_that_looks_at_nothing_would_be_noticed(monkeypatch):
    """The plants above are caught by the judgement itself: without it they pass."""
    content = gate_module.Verified(Errors(max_ratio=0.3, rms_ratio=0.3, max_abs=0.0, relative_rms=0.0))
    for module in (gate_module, probing):
        monkeypatch.setattr(module, "judged", lambda *_, **__: content)
    monkeypatch.setattr(probing, "_exactly_zero", lambda *_: None)
    found = examine(wrong(leak), Attention(batch=2, heads=3, q_len=64, head_dim=16, causal=True), Setup(CPU))
    assert found.errors.max_ratio == 0.3


def test_a_kernel_that_spoils_its_inputs_spoils_nobody_else_s(kernels):
    @kernel(Attention)
    def spoiling(problem, setup):
        """Right, and leaves zeros behind."""

        def run(inputs):
            out = problem.naive(inputs)
            inputs.q.zero_()
            return out

        return run

    problem = PROBLEMS[0]
    gate = Gate(problem, Setup(CPU))
    gate.admit(kernels["attention/eager"])
    with pytest.raises(Misconduct, match="changes its input q in place"):
        gate.admit(spoiling)
    gate.admit(kernels["attention/eager"])
    gate.admit(kernels["attention/sdpa"])


def test_replaced_instruments_are_put_back_even_when_the_kernel_fails_otherwise(kernels):
    import time

    original = time.perf_counter_ns

    @kernel(Attention)
    def doubly_bad(problem, setup):
        """Wrong, and stops the clock."""
        time.perf_counter_ns = lambda: 0
        raise RuntimeError("on purpose")

    gate = Gate(PROBLEMS[0], Setup(CPU))
    try:
        with pytest.raises(RuntimeError, match="on purpose"):
            gate.admit(doubly_bad)
        assert time.perf_counter_ns is original
    finally:
        time.perf_counter_ns = original
    gate.admit(kernels["attention/eager"])


def test_out_of_memory_in_a_probe_is_no_wrong_answer():
    @kernel(Attention)
    def hungry(problem, setup):
        """Has no memory for strided inputs."""

        def run(inputs):
            if not inputs.q.is_contiguous():
                raise torch.OutOfMemoryError("no memory")
            return problem.naive(inputs)

        return run

    with pytest.raises(torch.OutOfMemoryError):
        examine(hungry, Attention(heads=2, q_len=20, head_dim=16), Setup(CPU))


def test_an_approximation_without_the_symmetry_is_noticed():
    def coarse(problem, setup, inputs):
        return problem.reference(inputs.replace(v=(inputs.v.double() * 4).floor() / 4))

    @kernel(Attention, approximate=True, claim=coarse)
    def floored(problem, setup):
        """Rounds values down: -v does not come out as minus what v comes out as."""
        return lambda inputs: problem.naive(inputs.replace(v=(inputs.v * 4).floor() / 4))

    problem = Attention(heads=2, q_len=20, head_dim=16)
    assert examine(floored, problem, Setup(CPU)).symmetric is False


def test_work_done_in_prepare_is_not_done():
    def prepare(problem, setup, inputs):
        return {"answer": [problem.naive(inputs).flatten()], "inputs": inputs}

    @kernel(Attention, prepare=prepare)
    def foresighted(problem, setup):
        """Returns what was prepared."""
        return lambda prepared: prepared["answer"][0].view(prepared["inputs"].q.shape).clone()

    with pytest.raises(Misconduct, match="prepares its answer"):
        examine(foresighted, Attention(heads=2, q_len=20, head_dim=16), Setup(CPU))
