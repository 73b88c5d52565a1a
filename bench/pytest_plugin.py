"""The pytest plugin: a fixture that puts a project's own kernels through the gate and gives pytest-benchmark their times.

It is loaded in every test session where kerneldyno is installed, so importing it is cheap, and a session that does not use
the fixture is left as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

    from kerneldyno.kernels.registry import Problem

    from .manifest import Environment
    from .onekernel import Asked, Taken
    from .records import Measurement
    from .virtualclock import VirtualClock

FIXTURE = "kernel_benchmark"
EXIT_FOREIGN = 4
"""The exit status when stored benchmarks are from elsewhere: pytest's own for a usage error."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where kernels are defined that are not kerneldyno's own."""
    text = f"Python file with kernels for the fixture {FIXTURE}"
    parser.addini("kerneldyno_load", f"{text}; several, one a line, relative to this file", type="paths", default=[])
    group = parser.getgroup("kerneldyno", "kernels measured by kerneldyno")
    group.addoption("--kerneldyno-load", metavar="FILE", action="append", default=[], help=f"{text}; repeat for several.")


def pytest_configure(config: pytest.Config) -> None:
    """Offer the fixture; the hooks exist only where pytest-benchmark has declared them."""
    hook = getattr(config.hook, "pytest_benchmark_update_machine_info", None)
    there = hook is not None and hook.has_spec()
    config.pluginmanager.register(WithPytestBenchmark() if there else WithoutPytestBenchmark(), "kerneldyno-fixture")


class WithoutPytestBenchmark:
    """Says what is missing to whoever uses the fixture."""

    @pytest.fixture
    def kernel_benchmark(self) -> None:
        """Measure one kernel; needs pytest-benchmark."""
        pytest.fail(
            f"the fixture {FIXTURE} needs pytest-benchmark, which is not installed here or switched off: pip install pytest-benchmark",
            pytrace=False,
        )


class WithPytestBenchmark:
    """The fixture, and what it adds to pytest-benchmark's JSON in sessions that use it."""

    def __init__(self) -> None:
        self.clocks: pytest.StashKey[VirtualClock] = pytest.StashKey()
        self.environments: dict[str, Environment] = {}
        """Those that something was measured in, by fingerprint."""
        self.compared: list[dict[str, Any]] = []
        """The files that --benchmark-compare compares with."""

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        """Make pytest-benchmark read the virtual clock in tests that use the fixture."""
        if FIXTURE in getattr(item, "fixturenames", ()):
            self._give_clock(item)

    @pytest.fixture
    def _kerneldyno_clock(self, request: pytest.FixtureRequest) -> VirtualClock:
        """The clock of this test; for tests that ask for the fixture only while they run it comes now, before `benchmark`."""
        return request.node.stash.get(self.clocks, None) or self._give_clock(request.node)

    @pytest.fixture
    def kernel_benchmark(
        self, request: pytest.FixtureRequest, _kerneldyno_clock: VirtualClock, benchmark: BenchmarkFixture
    ) -> KernelBenchmark:
        """Check and measure one kernel in a fresh process; the times go to pytest-benchmark. See KernelBenchmark."""
        return KernelBenchmark(self, request, _kerneldyno_clock, benchmark)

    def pytest_benchmark_update_machine_info(self, machine_info: dict[str, Any]) -> None:
        """Describe the machine as kerneldyno does, without the host's name, if kernels were measured."""
        if self.environments:
            from . import pytest_json

            pytest_json.complete(machine_info, self.environments.values())

    @pytest.hookimpl(tryfirst=True)
    def pytest_benchmark_compare_machine_info(self, machine_info: dict[str, Any], compared_benchmark: dict[str, Any]) -> None:
        """Refuse stored benchmarks that were measured elsewhere. Raises pytest.UsageError, which ends the session with exit status 4."""
        self.compared.append(compared_benchmark)
        if "kerneldyno" not in compared_benchmark["machine_info"]:
            return  # nothing of ours is loaded for it

        from .stored_benchmarks import StoredBenchmarks

        try:
            StoredBenchmarks().add(compared_benchmark, machine_info)
        except ValueError as error:
            raise pytest.UsageError(str(error)) from None

    def _give_clock(self, item: pytest.Item) -> VirtualClock:
        from .virtualclock import VirtualClock

        clock = item.stash[self.clocks] = VirtualClock()
        marked = item.get_closest_marker("benchmark")
        # pytest-benchmark looks at the closest mark alone: ours holds what the test's own one says, too
        item.add_marker(pytest.mark.benchmark(**{**(marked.kwargs if marked else {}), "timer": clock}), append=False)
        return clock


class KernelBenchmark:
    """What the fixture `kernel_benchmark` gives to a test, to be called once: checks and measures one kernel."""

    def __init__(self, plugin: WithPytestBenchmark, request: pytest.FixtureRequest, clock: VirtualClock, benchmark: BenchmarkFixture):
        self._plugin, self._request, self._clock, self._benchmark = plugin, request, clock, benchmark
        self._used = self._played = False

    def __call__(
        self,
        kernel: str,
        problem: Mapping[str, Any] | Problem,
        *,
        load: str | Path | Sequence[str | Path] | None = None,
        device: str = "auto",
        protocol: str = "default",
        seed: int = 0,
        threads: int | None = None,
    ) -> Measurement:
        """Measure `kernel` ("attention/mine") at a problem, as `kerneldyno run` would, and return the measurement.

        The test fails with the reason when the kernel is wrong, misbehaves, crashes or hangs, and is skipped with the reason
        when it does not take the problem or the device is not there. With --benchmark-disable, and under pytest-xdist,
        which disables benchmarks, the kernel only goes through the gate: then the measurement has no samples and no peak_bytes.

        `problem`: an object, or its fields; those left out are the seed's. `load`: files that define kernels, relative to
        the test's folder; by default those of --kerneldyno-load, or of the setting kerneldyno_load.
        """
        __tracebackhide__ = True  # what ended a test is seen in the test
        if self._used:
            self._fail(f"{FIXTURE} was called twice in one test: one test measures one kernel; use pytest.mark.parametrize for several")
        self._used = True
        given = {"load": self._files(load), "device": device, "protocol": protocol, "seed": seed, "threads": threads}
        taken, skipped, mistaken = self._taken(kernel, problem, given)
        if skipped:
            pytest.skip(skipped)
        if taken is None:
            self._fail(mistaken)
        case, measurement = taken.case, taken.measurement
        if measurement.status == "skipped":
            pytest.skip(f"{case.kernel}: {measurement.reason}")
        if measurement.status != "ok":
            self._fail(f"{case.kernel} at {case.label} on {case.device}: {measurement.status}: {measurement.reason}")
        self._store(taken)
        return measurement

    def _taken(self, kernel: str, problem: Mapping[str, Any] | Problem, given: dict[str, Any]) -> tuple[Taken | None, str, str]:
        """What was measured; else why the test is skipped, or what was asked wrongly."""
        from . import options
        from .onekernel import CannotRunError, ask

        try:
            return self._run(ask(kernel, problem, **given)), "", ""
        except CannotRunError as error:
            return None, str(error), ""
        except Exception as error:
            if options.exit_code(error) is None:
                raise
            return None, "", str(error)

    def _run(self, asked: Asked) -> Taken:
        from .onekernel import examine, measure
        from .stored_benchmarks import StoredBenchmarks

        if self._benchmark.disabled:
            return examine(asked)
        stored = StoredBenchmarks()
        for compared in self._plugin.compared:
            stored.add(compared, {})
        if reason := stored.why_foreign(self._request.node.nodeid, asked.environment):
            self._end_benchmark(reason)
            pytest.exit(reason, returncode=EXIT_FOREIGN)
        return measure(asked)

    def _store(self, taken: Taken) -> None:
        """Play the samples to pytest-benchmark, which stores them, and add what it has no place for."""
        from . import pytest_json

        samples, benchmark = taken.measurement.samples_s, self._benchmark
        benchmark.group = benchmark.group or pytest_json.group(taken.case)
        if taken.manifest is not None:
            environment = taken.manifest.environment
            self._plugin.environments[environment.fingerprint] = environment
            benchmark.extra_info.update(pytest_json.extra_info(taken.case, taken.measurement, taken.manifest))
        self._clock.load(samples)
        self._play(self._clock.advance, rounds=max(len(samples), 1))
        if not benchmark.disabled and self._clock.readings != 2 * len(samples):
            self._fail(f"the fixture benchmark was set up before {FIXTURE}: let the test take {FIXTURE} as an argument")

    def _fail(self, reason: str) -> NoReturn:
        """End the test with a sentence."""
        __tracebackhide__ = True
        self._end_benchmark(reason)
        pytest.fail(reason, pytrace=False)

    def _end_benchmark(self, reason: str) -> None:
        """Tell pytest-benchmark that there are no times: else it would warn that its fixture was not used, or store some."""

        def end() -> None:
            raise _FailedError(reason)

        if not self._played:
            with suppress(_FailedError):
                self._play(end)
        self._benchmark.has_error = True

    def _play(self, target: Callable[[], None], rounds: int = 1) -> None:
        self._played = True
        self._benchmark.pedantic(target, setup=self._clock.rewind, rounds=rounds)  # type: ignore[no-untyped-call]

    def _files(self, load: str | Path | Sequence[str | Path] | None) -> tuple[Path, ...]:
        config = self._request.config
        if load is not None:
            here = self._request.path.parent
            return tuple(here / path for path in ([load] if isinstance(load, str | Path) else load))
        there = config.invocation_params.dir
        return tuple(there / path for path in config.getoption("--kerneldyno-load")) or tuple(config.getini("kerneldyno_load"))


class _FailedError(Exception):
    """What a benchmark raises whose kernel failed."""
