"""The command beside a row measures that row: read by the real command line and planned, it gives the same case ids."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from kerneldyno.bench import __main__ as main
from kerneldyno.bench import launch, models, plan
from kerneldyno.bench.compare import command as comparing
from kerneldyno.bench.comparison import Cell, Comparison, Side, Terms
from kerneldyno.bench.journal import Run, read
from kerneldyno.bench.manifest import PROTOCOLS, Environment, Manifest, Settings
from kerneldyno.kernels import presets, registry
from kerneldyno.kernels.registry import Device, kernel
from kerneldyno.reports import reproduce

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kerneldyno.bench.plan import Plan
    from kerneldyno.bench.records import Case
    from kerneldyno.kernels.registry import Kernel

COMMANDS = typer.main.get_command(main.app)
CPU = Device("cpu", name="test")
GPU = Device("cuda", name="test", capability=(9, 0), memory_bytes=1 << 36)
PUBLISHED = Path(__file__).parents[2] / "reports" / "published"
SETTINGS = Settings(protocol=PROTOCOLS["default"], threads=1)
MACHINE = Environment(
    device="cpu", device_name="", os="", python="3.11.2", versions={}, cpu_name="", cpu_cores=2, cpu_features=(), memory_bytes=1, threads=1
)


@pytest.fixture(scope="module")
def kernels() -> dict[str, Kernel]:
    return registry.load(declarations_only=True)


@pytest.fixture(scope="module")
def types(kernels: Mapping[str, Kernel]) -> dict[str, Any]:
    return {one.operator: one.problem for one in kernels.values()}


class Asked(Exception):
    """What the command line was understood to ask for."""


def say(options: Any, *_: Any) -> None:
    raise Asked(options)


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside, commands say what they would measure instead of measuring it."""

    monkeypatch.setattr(launch, "launch", say)
    monkeypatch.setattr(comparing, "compare", say)


def understood(line: str) -> Any:
    """The options that the installed command makes of a line."""
    words = shlex.split(line)
    assert words[0] == "kerneldyno"
    with pytest.raises(Asked) as found:
        COMMANDS.main(words[1:], standalone_mode=False)
    return found.value.args[0]


def planned(options: launch.Options, kernels: Mapping[str, Kernel], device: Device) -> Plan:
    return launch._plan(options, kernels, launch.presets_of(options, device), device)


def run_of(cases: Sequence[Case], settings: Settings = SETTINGS, comparison: Comparison | None = None) -> Run:
    manifest = Manifest(version="0", created="", settings=settings, environment=MACHINE, cases=list(cases), comparison=comparison)
    return Run("made", manifest)


def require_same(run: Run, case: Case, kernels: Mapping[str, Kernel], device: Device) -> None:
    """The command of a case gives the case and its baseline, side by side in one group, and nothing else."""
    line = reproduce.command(run, case)
    options = understood(line)
    again = {found.id: found for found in planned(options, kernels, device).cases}
    assert case.id in again, line
    assert {found.kernel for found in again.values()} == {case.kernel, case.baseline}, line
    assert {found.group for found in again.values()} == {case.group}, line
    assert again[case.id] == case, line
    assert (options.device, options.threads, options.seed) == (case.device, run.manifest.settings.threads, case.seed)


def case_of(problem: Any, name: str, kernels: Mapping[str, Kernel], device: Device = CPU, seed: int = 0) -> Case:
    """The case of a kernel at a problem, as it is planned."""
    everything = dict(kernels)
    return plan.case_of(everything[name], problem, device, seed, plan.baseline_of(problem, everything, device))


def cases_of(kernels: Mapping[str, Kernel], types: Mapping[str, Any], shapes: Sequence[Any], device: Device) -> list[Case]:
    problems = plan.problems(shapes, types, device)
    return plan.make(list(kernels.values()), problems, device, seed=0).cases


@pytest.mark.usefixtures("reading")
@pytest.mark.parametrize("name", presets.names())
@pytest.mark.parametrize("device", [CPU, GPU], ids=str)
def test_every_case_of_every_preset_comes_back(kernels: dict[str, Kernel], types: dict[str, Any], name: str, device: Device) -> None:
    cases = cases_of(kernels, types, presets.preset(name, device.kind).problems, device)
    run = run_of(cases)
    seen: set[tuple[str, str]] = set()
    for case in cases:
        problem = (case.group, case.baseline)
        if problem not in seen:  # one kernel of each problem is planned in full …
            seen.add(problem)
            require_same(run, case, kernels, device)
        else:  # … the others differ from it in names alone
            beside = msgspec.structs.replace(case, kernel=case.baseline)
            listed = ",".join(dict.fromkeys((case.baseline, case.kernel)))
            assert reproduce.command(run, case) == reproduce.command(run, beside).replace(case.baseline, listed, 1)
    assert seen


@pytest.mark.usefixtures("reading")
@pytest.mark.parametrize("folder", [path.parent for path in sorted(PUBLISHED.rglob("manifest.json"))], ids=lambda path: path.name)
def test_published_runs_are_measured_again_by_their_commands(kernels: dict[str, Kernel], folder: Path) -> None:
    run = read(folder)
    groups = {case.group: case for case in run.manifest.cases if case.kernel in kernels}
    given_layers = [case for case in groups.values() if "given" in case.problem]
    for case in groups.values():
        if case not in given_layers:
            require_same(run, case, kernels, CPU)
    for case in given_layers:  # their model is not here: its name, layer and inputs must be told
        line = reproduce.command(run, case)
        assert " --model byte-llama --layers " in line
        assert " --inputs bytes.safetensors " in line
        assert "--set" not in line
    assert groups


SIZES = st.integers(1, 4)
FIELDS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "attention": {
        "batch": SIZES, "heads": st.sampled_from([4, 8, 12]), "kv_heads": st.sampled_from([1, 2, 4]),
        "kv_len": st.integers(4, 9), "head_dim": st.sampled_from([16, 64, 80]), "causal": st.booleans(), "padding": st.booleans(),
        "bias": st.sampled_from(["none", "additive", "boolean"]), "window": st.integers(0, 300),
        "softcap": st.floats(0, 1e300), "page_size": st.integers(0, 64), "structured": st.booleans(),
    },
    "feedforward": {
        "batch": SIZES, "dim": st.integers(1, 9999), "hidden_dim": SIZES, "gated": st.booleans(), "bias": st.booleans(),
        "activation": st.sampled_from(["relu", "gelu", "gelu_tanh", "silu"]), "norm": st.sampled_from(["none", "layernorm", "rmsnorm"]),
        "residual": st.booleans(), "epsilon": st.floats(0, 1, exclude_max=True), "direction": st.sampled_from(["forward", "backward"]),
    },
    "layer": {
        "batch": SIZES, "dim": st.sampled_from([64, 128, 512]), "heads": st.sampled_from([4, 8]),
        "kv_heads": st.sampled_from([1, 2, 4]), "head_dim": st.sampled_from([8, 64]), "hidden_dim": SIZES,
        "mask": st.sampled_from(["none", "causal", "boolean"]), "padding": st.booleans(), "norm_first": st.booleans(),
        "norm": st.sampled_from(["layernorm", "rmsnorm"]), "epsilon": st.floats(0, 1, exclude_max=True), "gated": st.booleans(),
        "activation": st.sampled_from(["relu", "silu"]), "bias": st.booleans(), "rope_theta": st.floats(1.5, 1e12),
        "rope_scaling": st.sampled_from(["", "linear:4", "llama3:8,1,4,8192"]),
    },
}  # fmt: skip
DTYPE = st.sampled_from(["float32", "bfloat16", "float16"])
PROBLEMS = st.one_of(
    st.fixed_dictionaries({"seq_len" if operator != "attention" else "q_len": SIZES}, optional={**fields, "dtype": DTYPE}).map(
        lambda fields, operator=operator: (operator, fields)
    )
    for operator, fields in FIELDS.items()
)


def test_any_problem_is_told_so_that_it_is_read_back(kernels: dict[str, Kernel], types: dict[str, Any]) -> None:
    @given(PROBLEMS, st.integers(0, 2**32 - 1))
    def told(shape: tuple[str, dict[str, Any]], seed: int) -> None:
        operator, fields = shape
        try:
            problem = types[operator](**fields)
        except ValueError:
            return  # fields that contradict one another make no case
        case = case_of(problem, f"{operator}/eager", kernels, seed=seed)
        options = understood(reproduce.command(run_of([case]), case))
        (again,) = plan.problems(plan.shapes([], [operator], options.axes), types, CPU)
        assert (again, again.fields(), options.seed) == (problem, problem.fields(), seed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "launch", say)
        told()


def test_what_is_left_out_is_what_options_start_from(types: dict[str, Any]) -> None:
    for operator, fields in presets.STARTING_POINTS:
        start = types[operator](**fields).fields()
        assert reproduce.USUAL[operator] == {name: start[name] for name in reproduce.USUAL[operator]}
        sizes = {"batch", "seq_len", "q_len", "kv_len", "kv_heads", "dtype"}
        assert start.keys() - reproduce.USUAL[operator].keys() <= sizes
    plain = launch.Options()
    assert launch.BUILD_TIMEOUT_S == reproduce.BUILD_TIMEOUT_S
    assert (plain.call_timeout_s, plain.processes, plain.energy, plain.seed) == (reproduce.CALL_TIMEOUT_S, 1, "auto", 0)
    assert (Terms().processes, Terms().gates) == (reproduce.COMPARED_PROCESSES, reproduce.GATES)
    assert frozenset({*reproduce.FREE, "batch", "seq_len", "dtype"}) == models.FREE


def test_a_line_is_as_short_as_people_would_write_it(kernels: dict[str, Kernel], types: dict[str, Any]) -> None:
    def line(operator: str, name: str, device: Device = CPU, settings: Settings = SETTINGS, **fields: Any) -> str:
        case = case_of(types[operator](**fields), name, kernels, device)
        return reproduce.command(run_of([case], settings), case)

    assert line("attention", "attention/eager", q_len=512) == (
        "kerneldyno run --kernels attention/sdpa,attention/eager --batch 1 --seq-len 512 --dtype float32 "
        "--protocol default --device cpu --threads 1"
    )
    llama = {"heads": 32, "kv_heads": 8, "head_dim": 128, "causal": True, "direction": "backward", "dtype": "bfloat16"}
    full = msgspec.structs.replace(
        SETTINGS, protocol=PROTOCOLS["full"], processes=5, energy="off", build_timeout_s=300.0, call_timeout_s=4.5, load=("my kernels.py",)
    )
    assert line("attention", "attention/sdpa", GPU, full, q_len=2048, **llama) == (
        "kerneldyno run --kernels attention/sdpa --batch 1 --seq-len 2048 --dtype bfloat16 --direction backward --set heads=32 "
        "--set kv_heads=8 --set head_dim=128 --causal --protocol full --processes 5 --energy off --device cuda:0 --threads 1 "
        "--call-timeout 4.5 --load 'my kernels.py'"
    )
    stretched = {"seq_len": 64, "rope_theta": 500000.0, "rope_scaling": "llama3:8,1,4,8192", "mask": "causal"}
    assert """--causal --set rope_theta=500000 --set 'rope_scaling="llama3:8,1,4,8192"'""" in line("layer", "layer/eager", **stretched)


@pytest.mark.usefixtures("reading")
@pytest.mark.parametrize("name", ["a,b", 'say "no"', "x[y]*?", "two words", "<script>alert(1)</script>", "-v"])
def test_kernels_of_plugins_may_be_called_anything(kernels: dict[str, Kernel], types: dict[str, Any], name: str) -> None:
    """A name is no pattern: "x*" does not name its neighbours."""
    made = [kernel(types["attention"], name=word)(lambda _problem, _setup: lambda inputs: inputs.q) for word in (name, f"{name}y")]
    every = {**kernels, **{one.name: one for one in made}}
    case = case_of(types["attention"](q_len=64), made[0].name, every)
    run = run_of([case], msgspec.structs.replace(SETTINGS, load=("mine.py",)))
    options = understood(reproduce.command(run, case))
    assert [one.name for one in plan.select(every, options.kernels)] == ["attention/sdpa", made[0].name]
    assert [path.name for path in options.load] == ["mine.py"]


@pytest.mark.usefixtures("reading")
def test_a_comparison_is_compared_again(kernels: dict[str, Kernel], types: dict[str, Any]) -> None:
    plain = case_of(types["attention"](q_len=64), "attention/eager", kernels)
    base, candidate = (msgspec.structs.replace(plain, side=side) for side in ("base", "candidate"))
    cell = Cell(
        id="1", operator="attention", base_kernel="attention/sdpa", candidate_kernel="attention/eager", label="", device="cpu",
        base=base.id, candidate=candidate.id,
    )  # fmt: skip
    sides = Side(label="attention/sdpa"), Side(label="attention/eager")
    two = run_of([base, candidate], comparison=Comparison(form="kernels", base=sides[0], candidate=sides[1], cells=[cell]))
    asked = understood(reproduce.command(two, candidate))
    assert asked.run.kernels == ("attention/sdpa", "attention/eager")
    assert (asked.base, asked.processes, asked.run.axes["seq_len"]) == (None, None, [64])

    same = msgspec.structs.replace(cell, base_kernel="attention/eager", unchanged=True)
    ends = Side(label="origin/main", commit="0123abc"), Side(label="worktree", commit="4567def-dirty")
    terms = Terms(processes=12, gates=("latency",))
    revisions = Comparison(form="commits", base=ends[0], candidate=ends[1], cells=[same], terms=terms)
    asked = understood(reproduce.command(run_of([base, candidate], comparison=revisions), base))
    assert (asked.base, asked.candidate, asked.run.kernels) == ("0123abc", "worktree", ("attention/eager",))
    assert (asked.processes, asked.gates, asked.everything) == (12, ("latency",), True)


@pytest.mark.usefixtures("reading")
def test_a_layer_of_a_model_is_found_again(
    kernels: dict[str, Kernel], types: dict[str, Any], small_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small_models)
    inputs = Path("llama-small.inputs.safetensors")
    model = models.chosen(Path("llama-small"), None, inputs, ("2",))
    assert model is not None
    cases = cases_of(kernels, types, plan.shapes([model.preset()], [], {"seq_len": [7], "batch": [2]}), CPU)
    settings = msgspec.structs.replace(SETTINGS, command=f"kerneldyno run --model llama-small --inputs={inputs} --layers -1")
    for case in {case.operator: case for case in cases}.values():
        assert case.problem["given"].startswith("llama-small/2@")
        require_same(run_of([case], settings), case, kernels, CPU)


@pytest.mark.slow
def test_the_command_of_a_measured_row_measures_it_again(tmp_path: Path) -> None:
    def measured(line: str, folder: str) -> Run:
        words = [sys.executable, "-P", "-m", "kerneldyno.bench", *shlex.split(line)[1:], "--out", folder]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
        return read(tmp_path / folder)

    kernels = "attention/sdpa,attention/sdpa_math,attention/eager"
    shape = "--batch 2 --set q_len=3 --set kv_len=40 --set softcap=0 --causal --set bias=boolean"
    first = measured(f"kerneldyno run --kernels {kernels} {shape} --protocol smoke --device cpu --threads 1 --seed 7", "first")
    (eager,) = [case for case in first.manifest.cases if case.kernel == "attention/eager"]
    line = reproduce.command(first, eager)
    assert "sdpa_math" not in line
    again = measured(line, "again")
    assert {case.id for case in again.manifest.cases} == {case.id for case in first.manifest.cases if case.kernel != "attention/sdpa_math"}
    assert again.measurements[eager.id].status == "ok"
    assert again.manifest.settings.protocol == first.manifest.settings.protocol
