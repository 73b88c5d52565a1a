"""What is seen to run: real kernels in all their forms are what their names say, and impostors that really run are found out."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.autograd import DeviceType
from torch.autograd.profiler import profile

from kerneldyno.bench import steps
from kerneldyno.bench.contender import Contender
from kerneldyno.bench.gate import identity
from kerneldyno.bench.gate.examine import Gate
from kerneldyno.bench.gate.products import product_flops
from kerneldyno.bench.gate.truth import Truth
from kerneldyno.bench.gate.verify import verify
from kerneldyno.bench.instruments.clock import FakeClock
from kerneldyno.bench.manifest import PROTOCOLS
from kerneldyno.bench.records import Measurement
from kerneldyno.bench.selftest.impostors import impostors
from kerneldyno.bench.stopping import StoppingRule, WarmUp
from kerneldyno.kernels._identity import ran_backend
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.registry import Device, Kernel, NotAsNamed, Problem, Setup, kernel, load

KERNELS = load()
SLOW_TO_BUILD = ("compiled", "flex")
ON_CPU = [name for name, kernel in KERNELS.items() if "cpu" in kernel.devices and kernel.family not in SLOW_TO_BUILD]
needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
quiet_inductor = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # raised by inductor's own imports

SIZES: dict[str, dict[str, Any]] = {
    "attention": {"batch": 2, "heads": 4, "q_len": 70, "head_dim": 32},
    "feedforward": {"batch": 2, "seq_len": 40, "dim": 64, "hidden_dim": 96},
    "layer": {"batch": 2, "seq_len": 10, "dim": 64, "heads": 4, "hidden_dim": 96},
}
FORMS: dict[str, list[dict[str, Any]]] = {
    "attention": [
        {"q_len": 70, "kv_len": 1100, "causal": True, "kv_heads": 2},  # enough keys to leave some out
        {},
        {"causal": True},
        {"padding": True},
        {"bias": "additive"},
        {"bias": "boolean"},
        {"kv_heads": 2, "causal": True},
        {"kv_len": 33, "causal": True},
        {"kv_len": 101, "causal": True, "padding": True, "bias": "boolean", "kv_heads": 2},
        {"q_len": 1, "kv_len": 90, "kv_heads": 1, "padding": True},
        {"kv_len": 1},
        {"batch": 1, "heads": 1, "q_len": 1, "head_dim": 1},
        {"batch": 1, "heads": 3, "q_len": 127, "head_dim": 33},
    ],
    "feedforward": [
        {},
        {"activation": "gelu"},
        {"activation": "gelu_tanh", "residual": True},
        {"activation": "silu", "gated": True},
        {"activation": "silu", "norm": "rmsnorm", "gated": True, "bias": False},
        {"norm": "none", "residual": True},
        {"batch": 1, "seq_len": 1},
        {"dim": 31, "hidden_dim": 77},
        {"batch": 1, "seq_len": 1, "dim": 1, "hidden_dim": 1},
    ],
    "layer": [
        {},
        {"mask": "causal"},
        {"mask": "boolean"},
        {"padding": True},
        {"padding": True, "mask": "causal"},
        {"batch": 1, "seq_len": 1},
        {"dim": 21, "heads": 3, "hidden_dim": 7},
        {"dim": 2, "heads": 2, "hidden_dim": 1},
        {
            "norm_first": True,
            "norm": "rmsnorm",
            "activation": "silu",
            "gated": True,
            "bias": False,
            "rope_theta": 1e4,
            "kv_heads": 2,
            "mask": "causal",
        },
        {"norm_first": True, "activation": "gelu", "padding": True},
    ],
}


@pytest.fixture(autouse=True)
def _as_in_a_worker():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad():
        yield
    torch.set_num_threads(before)


def identified(kernel: Kernel, problem: Problem) -> str | None:
    """Built, called, and identified, as in a run."""
    before = identity.graph_breaks()
    setup = Setup(torch.device("cpu"), problem.weights(3), problem.inputs(2))
    run, inputs = kernel.build(problem, setup), problem.inputs(1)
    inputs = kernel.prepare(problem, setup, inputs) if kernel.prepare else inputs
    run(inputs)
    return identity.identify(kernel, problem, setup, run, inputs, breaks_before=before)


def takes(kernel: Kernel, problem: Problem) -> bool:
    return kernel.why_not(problem, Device("cpu")) is None


def forms(kernel: Kernel) -> list[Problem]:
    """All features, dtypes, directions and awkward shapes that the kernel takes on a CPU."""
    return [
        problem
        for form in FORMS[kernel.operator]
        for dtype in ("float32", "bfloat16", "float16")
        for direction in kernel.directions
        if takes(kernel, problem := kernel.problem(**{**SIZES[kernel.operator], **form}, dtype=dtype, direction=direction))
    ]


# ---------------------------------------------------------------- real kernels


SEEN = {
    "attention/eager": "plain torch operators",
    "attention/sdpa": "SDPA backend flash",
    "attention/sdpa_flash": "SDPA backend flash",
    "attention/sdpa_math": "SDPA backend math",
    "attention/jax": "XLA cpu: dot ×2",
    "attention/onnxrt": "ONNX Runtime cpu: Attention",
    "attention/onnxrt_mha": "ONNX Runtime cpu: MultiHeadAttention",
    "attention/onnxrt_gqa": "ONNX Runtime cpu: GroupQueryAttention",
    "attention/int8": "integer products: MatMulIntegerToFloat",
    "attention/pruned": "2 of 4 heads, by products of smaller matrices",
    "attention/pruned_75": "3 of 4 heads, by products of smaller matrices",
    "attention/pruned_25": "1 of 4 heads, by products of smaller matrices",
    "feedforward/eager": "plain torch operators",
    "feedforward/onnxrt": "ONNX Runtime cpu: FusedGemm, Gemm",
    "feedforward/int8": "integer products: DynamicQuantizeMatMul ×2",
    "feedforward/int8_smooth": "integer products: DynamicQuantizeMatMul ×2",
    "feedforward/int8_onednn": "8-bit integers: onednn::qlinear_pointwise ×2",
    "feedforward/int8_weights": "8-bit integers: aten::_weight_int8pack_mm ×2",
    "feedforward/pruned": "48 of 96 neurons, by products of smaller matrices",
    "feedforward/pruned_75": "64 of 96 neurons, by products of smaller matrices",
    "feedforward/pruned_25": "16 of 96 neurons, by products of smaller matrices",
    "feedforward/pruned_50_activations": "48 of 96 neurons, by products of smaller matrices",
    "layer/eager": "plain torch operators",
    "layer/sdpa": "SDPA backend flash",
    "layer/torch": "fast path (aten::_transformer_encoder_layer_fwd)",
    "layer/onnxrt": "ONNX Runtime cpu: Gemm ×5, Attention, FusedGemm",
    "layer/onnxrt_fused": "ONNX Runtime cpu: Gemm ×5, MultiHeadAttention, FusedGemm",
    "layer/int8": "integer products: MatMulIntegerToFloat ×3, DynamicQuantizeMatMul ×3",
    "layer/pruned": "products of smaller matrices: 5.99e+05 flop",
    "layer/pruned_heads_50": "2 of 4 heads, by products of smaller matrices",
    "layer/pruned_heads_50_activations": "2 of 4 heads, by products of smaller matrices",
}


@pytest.mark.parametrize("name", SEEN)
def test_what_a_shipped_kernel_is_seen_to_run(name: str) -> None:
    kernel = KERNELS[name]
    assert identified(kernel, kernel.problem(**SIZES[kernel.operator])) == SEEN[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_CPU)
def test_no_shipped_kernel_is_rejected_in_any_form(name: str) -> None:
    problems = forms(KERNELS[name])
    assert problems
    for problem in problems:
        found = identified(KERNELS[name], problem)
        assert (found is None) == (KERNELS[name].identified is None)
        assert not (found or "").startswith(identity.NOT_SEEN)


@needs_compiler
@quiet_inductor
def test_a_compiled_kernel_is_seen_as_one_region() -> None:
    assert identified(KERNELS["attention/compiled"], Attention(**SIZES["attention"])) == "1 compiled region, no graph break"


COMPILED_FORMS = [
    ("attention/compiled", {"direction": "backward", "kv_heads": 2}),
    ("attention/compiled", {"q_len": 1, "kv_len": 90, "kv_heads": 1, "dtype": "float16"}),
    ("attention/compiled", {"causal": True, "padding": True, "bias": "additive", "head_dim": 33}),
    ("attention/flex", {"padding": True, "dtype": "bfloat16"}),
    ("attention/flex", {"causal": True, "bias": "additive", "kv_heads": 2}),
    ("feedforward/compiled", {"activation": "silu", "gated": True, "norm": "rmsnorm", "bias": False, "dtype": "bfloat16"}),
    ("feedforward/compiled", {"batch": 1, "seq_len": 1, "dim": 31, "hidden_dim": 7, "norm": "none", "residual": True}),
    ("feedforward/compiled", {"direction": "backward", "activation": "gelu"}),
    ("feedforward/compiled_tuned", {"residual": True}),
    ("layer/compiled", {"mask": "boolean", "padding": True, "dtype": "float16"}),
    ("layer/compiled", {"batch": 1, "seq_len": 1, "dim": 2, "heads": 2, "hidden_dim": 1}),
]


@pytest.mark.slow
@needs_compiler
@quiet_inductor
@pytest.mark.parametrize(("name", "form"), COMPILED_FORMS)
def test_no_compiled_kernel_is_rejected(name: str, form: dict[str, Any]) -> None:
    kernel = KERNELS[name]
    problem = kernel.problem(**{**SIZES[kernel.operator], **form})
    assert identified(kernel, problem) == "1 compiled region, no graph break"


# ---------------------------------------------------------------- impostors


FOUND_OUT = {
    "attention/onnxrt_in_torch": "ONNX Runtime ran nothing in the call; torch ran aten::matmul",
    "attention/sdpa_flash_by_math": "ran on its backend math, not on flash",
    "attention/pruned_all_heads": "2 times as many operations as those of the smaller matrices",
    "feedforward/int8_in_float": "0 of 2 products ran in integers; in floating point FusedGemm, Gemm",
    "feedforward/compiled_with_a_break": "graph breaks",
    "feedforward/compiled_kept_from_compiling": "graph breaks",
    "feedforward/compiled_with_errors_suppressed": "no code generated by torch.compile ran",
    "feedforward/pruned_all_neurons": "2 times as many operations as those of the smaller matrices",
}


@quiet_inductor
@pytest.mark.parametrize("impostor", impostors(), ids=lambda impostor: impostor.name)
def test_an_impostor_gives_the_right_answer_and_is_found_out(impostor: Kernel) -> None:
    problem = impostor.problem(**SIZES[impostor.operator])
    weights = problem.weights(3)
    setup = Setup(torch.device("cpu"), weights, problem.inputs(2))
    truth = Truth(problem, problem.inputs(1), weights)
    before = identity.graph_breaks()
    run = impostor.build(problem, setup)
    verify(run(truth.inputs), impostor, setup, truth)
    with pytest.raises(NotAsNamed, match=FOUND_OUT[impostor.name]):
        identity.identify(impostor, problem, setup, run, truth.inputs, breaks_before=before)


def test_impostors_are_declared_as_the_kernels_that_they_pretend_to_be() -> None:
    made = impostors()
    assert {impostor.name for impostor in made} == FOUND_OUT.keys()
    for impostor in made:
        real = KERNELS[max((name for name in KERNELS if impostor.name.startswith(f"{name}_")), key=len)]
        assert impostor.summary.startswith("Pretends to ")
        assert (impostor.identified, impostor.claim, impostor.requires) == (real.identified, real.claim, real.requires)


# ---------------------------------------------------------------- observing


def watching(run, **declared: Any) -> tuple[Kernel, Attention, Setup]:
    """A kernel whose `identified` gives the trace back as text."""
    problem = Attention(heads=1, q_len=4, head_dim=8)
    seen = kernel(Attention, identified=lambda problem, setup, trace: repr(trace), **declared)(lambda problem, setup: run)
    return seen, problem, Setup(torch.device("cpu"))


def test_a_name_that_claims_nothing_is_not_watched() -> None:
    calls: list[Any] = []
    bare = kernel(Attention, name="bare")(lambda problem, setup: calls.append)
    assert identity.identify(bare, Attention(q_len=4), Setup(torch.device("cpu")), calls.append, None) is None
    assert calls == []


def test_products_are_counted_once_and_those_outside_of_compiled_code_apart() -> None:
    seen, problem, setup = watching(run := lambda x: (x @ x.mT) @ x)
    trace = identity.observe(seen, problem, setup, run, torch.randn(2, 3, 4))
    assert trace.operators["aten::matmul"] == trace.operators["aten::bmm"] == 2
    assert trace.product_flops == trace.eager_flops == 2 * (2 * 2 * 3 * 3 * 4)
    assert (trace.regions, trace.nodes, trace.device_watched) == (0, (), True)


@pytest.mark.parametrize(
    ("name", "shapes", "flops"),
    [
        ("aten::linear", [[5, 2, 3], [7, 3], [7]], 2 * 5 * 2 * 3 * 7),
        ("aten::matmul", [[4, 1, 2, 3], [6, 3, 5]], 2 * 4 * 6 * 2 * 3 * 5),
        ("aten::matmul", [[3], [3]], 2 * 3),
        ("aten::matmul", [[2, 3], [3]], 2 * 2 * 3),
        ("aten::addmm", [[7], [2, 3], [3, 7]], 2 * 2 * 3 * 7),
        ("aten::_int_mm", [[2, 3], [3, 7]], 2 * 2 * 3 * 7),
        ("aten::scaled_dot_product_attention", [[2, 4, 5, 8], [2, 1, 9, 8], [2, 1, 9, 6], []], 2 * 2 * 4 * 5 * 9 * (8 + 6)),
        ("aten::scaled_dot_product_attention", [], 0),
        ("aten::mm", [[2, 3]], 0),
    ],
)
def test_flops_of_products(name: str, shapes: list[list[int]], flops: int) -> None:
    assert product_flops(name, shapes) == flops


def event(name: str, device: DeviceType = DeviceType.CPU, parent: Any = None) -> Any:
    return SimpleNamespace(name=name, device_type=device, cpu_parent=parent, input_shapes=[])


def test_events_of_a_gpu() -> None:
    """Kineto repeats the names of host regions on the device's timeline: they are not entered twice."""
    region = event("Torch-Compiled Region: 0/0")
    events = [region, event("aten::mm", parent=region), event("Torch-Compiled Region: 0/0", DeviceType.CUDA)]
    trace = identity._trace([*events, event("attention_kernel", DeviceType.CUDA)], on_gpu=True)
    assert trace.regions == 1
    assert trace.operators["attention_kernel"] == 1
    assert trace.device_watched
    blind = identity._trace([event("aten::empty")], on_gpu=True)
    assert not blind.device_watched


def test_what_the_kernel_raises_is_the_kernels() -> None:
    def run(inputs: Any) -> Any:
        raise RuntimeError("a sharp edge")

    seen, problem, setup = watching(run)
    with pytest.raises(RuntimeError, match="a sharp edge"):
        identity.identify(seen, problem, setup, run, None)


class Refusing(profile):
    """A profiler that does not start."""

    def __enter__(self) -> Any:
        raise RuntimeError("no tracer here\nsecond line")


class Blind(profile):
    """A profiler that starts and sees nothing."""

    function_events = property(lambda self: [], lambda self, events: None)  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [(Refusing, "not seen: torch's profiler did not work: no tracer here"), (Blind, "not seen: torch's profiler saw nothing")],
)
def test_where_nothing_can_be_watched_the_identity_says_so(monkeypatch: pytest.MonkeyPatch, broken: type, sentence: str) -> None:
    monkeypatch.setattr(identity, "profile", broken)
    real = KERNELS["attention/sdpa_flash"]
    assert identified(real, Attention(**SIZES["attention"])) == sentence


def test_watching_loads_no_compiler() -> None:
    """torch.profiler imports torch._inductor at its first start: a second in every worker process."""
    program = (
        "import sys, torch; from kerneldyno.bench.gate import identity; from kerneldyno.kernels.registry import Setup;"
        "trace = identity._watched(lambda x: x @ x, torch.ones(2, 2), torch.device('cpu'));"
        "assert trace.operators['aten::mm'] == 1; assert 'torch._inductor' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


# ---------------------------------------------------------------- profiles of ONNX Runtime


def profile_of(runs: list[list[str]]) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = [{"cat": "Session", "name": "session_initialization"}]
    for nodes in runs:
        events += [{"cat": "Node", "name": f"{kind}_kernel_time", "args": {"op_name": kind, "provider": "P"}} for kind in nodes]
        events += [{"cat": "Node", "name": "fence", "args": {}}, {"cat": "Session", "name": "model_run"}]
    return events


def test_the_last_run_of_a_profile_counts(tmp_path) -> None:
    (path := tmp_path / "p.json").write_text(json.dumps(profile_of([["Gemm"], ["Gemm", "Relu"]])))
    assert identity.nodes_of(path) == [("Gemm", "P"), ("Relu", "P")]


def test_a_session_that_served_the_build_only_does_not_count(tmp_path) -> None:
    (path := tmp_path / "p.json").write_text(json.dumps(profile_of([["MatMulInteger"]])))
    assert identity.nodes_of(path) == []


@pytest.mark.parametrize("text", ["", "[{", '{"a": 1}', '[{"name": "x"}]', "3"])
def test_a_profile_that_is_not_whole_is_an_error_in_a_sentence(tmp_path, text: str) -> None:
    (path := tmp_path / "p.json").write_text(text)
    with pytest.raises(identity.CannotWatch, match=r"profile of ONNX Runtime is not whole \(.*\): its session is still alive"):
        identity.nodes_of(path)


def test_sessions_that_refer_to_themselves_or_outlive_their_kernel() -> None:
    real, problem = KERNELS["attention/onnxrt"], Attention(**SIZES["attention"])
    outliving = []

    def circular(problem: Any, setup: Any) -> Any:
        inner = real.build_run(problem, setup)

        def run(inputs: Any) -> Any:
            return inner(inputs), run

        return run

    def kept(problem: Any, setup: Any) -> Any:
        outliving.append(real.build_run(problem, setup))
        return outliving[-1]

    assert identified(replace(real, build_run=circular), problem) == SEEN[real.name]
    assert (identified(replace(real, build_run=kept), problem) or "").startswith("not seen: the profile of ONNX Runtime is not whole")


def test_global_state_that_the_profiled_build_changes_is_put_back() -> None:
    real = KERNELS["attention/onnxrt"]

    def changing(problem: Any, setup: Any) -> Any:
        run = real.build_run(problem, setup)
        if setup.profile is not None:
            torch.set_default_dtype(torch.float64)
        return run

    assert identified(replace(real, build_run=changing), Attention(**SIZES["attention"])) == SEEN[real.name]
    assert torch.get_default_dtype() == torch.float32


# ---------------------------------------------------------------- the step of a group


def stepped(chosen: Kernel, problem: Problem) -> Contender:
    """Built and identified by the steps that a group takes."""
    setup, protocol = Setup(torch.device("cpu"), problem.weights(3), problem.inputs(2)), PROTOCOLS["smoke"]
    gate = Gate(problem, setup)
    rule, warm, measurement = StoppingRule(protocol), WarmUp(protocol), Measurement(case="case", status="ok")
    made = Contender(0, None, chosen, problem, setup, measurement, rule, warm)  # type: ignore[arg-type]
    steps.build(made, gate, FakeClock(), "cold")
    steps.identify(made, gate.truths[0])
    return made


def test_the_step_notes_what_ran() -> None:
    assert stepped(KERNELS["attention/sdpa"], Attention(**SIZES["attention"])).measurement.identity == "SDPA backend flash"


@quiet_inductor
def test_the_step_knows_of_graphs_that_broke_while_it_was_built() -> None:
    impostor = next(impostor for impostor in impostors() if impostor.name == "feedforward/compiled_with_a_break")
    problem = impostor.problem(**SIZES["feedforward"], norm="none")  # nothing before the break: a single region is entered
    with pytest.raises(NotAsNamed, match="gave up on 1 graph"):
        stepped(impostor, problem)


def test_inputs_that_were_prepared_are_what_is_run() -> None:
    @kernel(Attention, prepare=lambda problem, setup, inputs: (inputs.q, inputs.k, inputs.v), identified=ran_backend("flash"))
    def ready(problem: Any, setup: Any) -> Any:
        return lambda given: torch.nn.functional.scaled_dot_product_attention(*given)

    assert stepped(ready, Attention(**SIZES["attention"])).measurement.identity == "SDPA backend flash"
