"""The plugin as other projects meet it: whole test sessions in processes of their own."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
KERNELS = Path(__file__).with_name("broken_kernels.py")
TINY = 'TINY = {"batch": 1, "heads": 2, "q_len": 32, "head_dim": 16}\n'
STRICT = ("-p", "no:cacheprovider", "-W", "error", "-ra", "--strict-markers")


@pytest.fixture(autouse=True)
def _not_a_process_of_a_parallel_run(monkeypatch):
    """What pytest-xdist tells the process that runs these tests is not meant for the sessions that they start."""
    for name in [name for name in os.environ if name.startswith("PYTEST_XDIST_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def session(pytester):
    """Runs a session over a test file, with every warning an error."""

    def run(source, *options, **files):
        pytester.makepyfile(test_it=TINY + source, **files)
        return pytester.runpytest_subprocess(*STRICT, *options)

    pytester.makefile(".py", my_kernels=KERNELS.read_text())
    return run


def stored(pytester, name="out.json"):
    return json.loads((pytester.path / name).read_text())


MEASURES = """
import json
import pytest

@pytest.mark.benchmark(warmup=True)
def test_good(kernel_benchmark):
    measurement = kernel_benchmark("attention/good", TINY, protocol="smoke", device="cpu", threads=1, seed=3)
    assert measurement.status == "ok" and measurement.errors.max_ratio < 8 and measurement.peak_bytes > 0
    with open("samples.json", "w") as file:
        json.dump(measurement.samples_s, file)

@pytest.mark.parametrize("kernel", ["returns_nan"])
def test_wrong(kernel_benchmark, kernel):
    kernel_benchmark(f"attention/{kernel}", TINY, protocol="smoke", device="cpu")

def test_elsewhere(kernel_benchmark):
    kernel_benchmark("attention/fused", TINY, device="cpu")

def test_nothing(kernel_benchmark):
    kernel_benchmark("attention/nothing", TINY)

def test_ordinary():
    raise AssertionError("--benchmark-only leaves this out")
"""


@pytest.mark.slow
def test_what_pytest_benchmark_stores_is_what_was_measured(session, pytester):
    pytester.makeini("[pytest]\nkerneldyno_load = my_kernels.py")
    result = session(MEASURES, "--benchmark-json=out.json", "--benchmark-only")
    result.assert_outcomes(passed=1, failed=2, skipped=2)
    result.stdout.fnmatch_lines(["attention/returns_nan at 1×2×32×16 fp32 on cpu: wrong: *NaN*"])
    result.stdout.fnmatch_lines(["SKIPPED * test_it.py:*: attention/fused runs on cuda only, not on cpu"])
    result.stdout.fnmatch_lines(["there is no kernel 'attention/nothing': choose from *"])
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.fnmatch_lines(["*benchmark 'attention 1×2×32×16 fp32': 1 tests*"])
    content = stored(pytester)
    (bench,) = content["benchmarks"]
    assert bench["stats"]["data"] == json.loads((pytester.path / "samples.json").read_text())
    assert bench["stats"]["rounds"] >= 10
    assert bench["options"]["timer"] == "kerneldyno.samples"
    assert bench["options"]["warmup"] == 100000  # the test's own mark is still in force
    info = bench["extra_info"]
    assert (info["kernel"], info["status"], info["protocol"], info["seed"]) == ("attention/good", "ok", "smoke", 3)
    assert info["peak_bytes"] > 0
    assert info["errors"]["max_ratio"] < 8
    assert info["interval_kind"] == "within_process"
    assert info["latency_low_s"] <= info["latency_s"] <= info["latency_high_s"]
    assert {"leak_bytes", "weight_bytes", "energy", "distance", "warnings", "identity", "calls_per_sample"} <= info.keys()
    machine = content["machine_info"]
    assert "node" not in machine
    (environment,) = machine["kerneldyno"]
    assert environment["fingerprint"] == info["fingerprint"]
    assert (environment["device"], environment["threads"]) == ("cpu", 1)
    assert environment["versions"]["torch"] == importlib.metadata.version("torch")
    assert environment["cpu_features"]
    refuses_it_elsewhere_and_not_here(session, pytester, content)


def refuses_it_elsewhere_and_not_here(session, pytester, content):
    """Goes on with what the test above stored, since measuring takes seconds."""
    pytester.makefile(".json", foreign=json.dumps(content).replace('"torch": "', '"torch": "0.'))
    result = session(MEASURES, "--benchmark-compare=foreign.json")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: the stored benchmarks of * were measured elsewhere (torch: 0.* there, * here): compare on the machine*"]
    )
    result = session("def test_nothing(): pass", "--benchmark-compare=out.json", "-W", "default")
    assert result.ret == 0
    # the same machine with other threads is another machine: known only when the test asks for them
    result = session(MEASURES.replace("threads=1", "threads=None"), "-k", "test_good", "--benchmark-compare=out.json", "-W", "default")
    if (os.cpu_count() or 1) > 1:
        assert result.ret == 4
        result.stdout.fnmatch_lines(["*the stored numbers of test_it.py::test_good were measured elsewhere (threads: 1 there, * here)*"])
        result.stdout.no_fnmatch_line("*fixture was not used*")


def test_numbers_that_kerneldyno_did_not_measure_are_no_basis(session, pytester):
    source = "def test_it({0}):\n    {1}\n"
    result = session(source.format("benchmark", "benchmark(sum, [1])"), "--benchmark-json=out.json", "--benchmark-max-time=0.01")
    assert result.ret == 0
    measured = source.format("kernel_benchmark", "kernel_benchmark('attention/sdpa', TINY, device='cpu')")
    result = session(measured, "--benchmark-compare=out.json", "-W", "default")
    assert result.ret == 4
    result.stdout.fnmatch_lines(["*the stored numbers of test_it.py::test_it were not measured by kerneldyno: *"])


GATED = """
import pytest

@pytest.mark.parametrize("kernel", ["good", "returns_nan"])
def test_it(kernel_benchmark, kernel):
    measurement = kernel_benchmark(f"attention/{kernel}", TINY, device="cpu")
    assert measurement.errors is not None and measurement.samples_s == [] and measurement.peak_bytes is None
"""


def test_where_benchmarks_are_disabled_the_gate_still_judges(session, pytester):
    result = session(GATED, "--benchmark-disable", "--kerneldyno-load", "my_kernels.py", "--benchmark-json=out.json")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["attention/returns_nan at 1×2×32×16 fp32 on cpu: wrong: *"])
    assert not (pytester.path / "out.json").exists()


def test_processes_of_xdist_take_turns(session):
    pytest.importorskip("xdist", reason="needs pytest-xdist")
    options = ("-n", "2", "--kerneldyno-load", "my_kernels.py", "-W", "default::pytest.PytestWarning")
    result = session(GATED.replace('"good", "returns_nan"', '"good", "good", "returns_nan"'), *options)
    result.assert_outcomes(passed=2, failed=1)


def test_skipped_with_the_other_benchmarks(session):
    session(GATED, "--benchmark-skip").assert_outcomes(skipped=2)


def test_one_test_measures_one_kernel(session):
    source = """
def test_twice(benchmark, kernel_benchmark):
    for _ in range(2):
        kernel_benchmark("attention/good", TINY, load=["my_kernels.py"], device="cpu")

def test_dynamic(request):
    request.getfixturevalue("kernel_benchmark")("attention/good", TINY, load="my_kernels.py", device="cpu")

def test_unused(benchmark, kernel_benchmark):
    assert benchmark(sum, [1, 2]) == 3
"""
    result = session(source, "--benchmark-disable")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["kernel_benchmark was called twice in one test: *"])


@pytest.mark.slow
def test_a_benchmark_that_was_set_up_too_early_is_noticed(session):
    source = """
def test_dynamic(request):
    request.getfixturevalue("benchmark")
    request.getfixturevalue("kernel_benchmark")("attention/sdpa", TINY, device="cpu", protocol="smoke")
"""
    result = session(source, "--benchmark-json=out.json")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["the fixture benchmark was set up before kernel_benchmark: *"])


def test_without_pytest_benchmark_only_the_fixture_complains(session):
    result = session("def test_fine(): pass\ndef test_it(kernel_benchmark): pass", "-p", "no:benchmark")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["the fixture kernel_benchmark needs pytest-benchmark, *pip install pytest-benchmark"])


INNOCENT = """
import platform, sys

def test_it(benchmark):
    benchmark(sum, [1, 2])
    heavy = {"torch", "pandas", "numpy", "scipy", "msgspec", "kerneldyno.bench.launch", "kerneldyno.kernels.registry"}
    assert not heavy & set(sys.modules)
    assert "kerneldyno_pytest" in sys.modules
"""


def test_others_do_not_notice(session, pytester):
    result = session(INNOCENT, "--benchmark-json=out.json", "--benchmark-max-time=0.01", "-p", "no:hypothesispytest")
    result.assert_outcomes(passed=1)
    machine = stored(pytester)["machine_info"]
    assert "node" in machine
    assert "kerneldyno" not in machine
    options = ("--benchmark-compare=out.json", "--benchmark-max-time=0.01", "-p", "no:hypothesispytest", "-W", "default")
    session(INNOCENT, *options).assert_outcomes(passed=1)


def test_others_are_not_warned_where_it_is_installed_from_a_wheel(session, pytester):
    """Pytest marks modules of a distribution with a plugin for rewriting; `__main__` must not come to be among them."""
    pytest.importorskip("setuptools", minversion="77", reason="needs setuptools>=77 to build the wheel")
    source = pytester.path / "source"
    source.mkdir()
    for name in ("bench", "kernels", "reports", "pyproject.toml", "README.md"):
        (source / name).symlink_to(ROOT / name)
    build = "from setuptools.build_meta import build_wheel; build_wheel('.')"
    done = subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    site = pytester.path / "site"
    zipfile.ZipFile(next(source.glob("*.whl"))).extractall(site)
    pytester.makepyfile(test_it="import kerneldyno_pytest\ndef test_it(): assert 'site' in kerneldyno_pytest.__file__")
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-m", "pytest", *STRICT, "test_it.py"]
    done = subprocess.run(command, cwd=pytester.path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
