"""The cross-check: what is compared and what comes of it, with tools of our own making and with the real ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from kerneldyno.bench import environment
from kerneldyno.bench.crosscheck import nvbench, own, peers, race, subjects, summary
from kerneldyno.bench.crosscheck.own import OwnMethod
from kerneldyno.bench.crosscheck.race import Figure, Race
from kerneldyno.bench.crosscheck.subjects import BUSY_S
from kerneldyno.bench.instruments.clock import FakeClock
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.registry import Device, kernel

CPU = Device("cpu")
PROBLEM = Attention(batch=1, heads=1, q_len=4, head_dim=4)


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def group_of(clock, **seconds):
    """A group whose kernels take so many virtual seconds."""

    def made(name, call_s):
        def build(problem, setup):
            def run(inputs):
                clock.advance(call_s)
                return inputs.q

            return run

        build.__name__ = name
        return kernel(Attention)(build)

    return subjects.build(PROBLEM, [made(name, call_s) for name, call_s in seconds.items()], torch.device("cpu"), 2)


def figures(tool, case, *seconds):
    return [
        Figure(tool=tool, case=case, repetition=number, seconds=value, values_s=[value], wall_s=1.0) for number, value in enumerate(seconds)
    ]


# ---------------------------------------------------------------- what it comes to


def test_the_spread_is_that_of_all_but_the_outermost_tenths():
    assert summary.spread([float(value) for value in range(1, 12)]) == pytest.approx((10 - 2) / 6)
    assert summary.spread([2.0, 2.0, 2.0]) == 0.0


def test_a_case_agrees_with_the_median_of_the_peers_not_with_each():
    taken = figures(own.NAME, "a", 1.01) + figures("p", "a", 1.0) + figures("q", "a", 1.5) + figures("r", "a", 0.9)
    taken += figures(own.NAME, "b", 1.03) + figures("p", "b", 1.0)
    found = summary.summarize(taken, {"a": 1.0})
    assert {row.case: row.ratio for row in found.rows} == {"a": pytest.approx(1.01), "b": pytest.approx(1.03)}
    assert [row.of_truth for row in found.rows] == [pytest.approx(1.01), None]
    assert (found.agreeing, found.compared) == (1, 2)
    assert [sentence.split(":")[0] for sentence in found.missed] == [
        "1 of 2 cases are beyond 2% of the peers' median",
        "no kernel was measured by all tools",
    ]


def wide(tool, case, by):
    return figures(tool, case, 1.0 - by, 1.0, 1.0 + by)


def test_spreads_are_compared_with_the_median_peer_and_the_best():
    taken = [
        figure
        for case in "ab"
        for tool, by in ((own.NAME, 0.011), ("p", 0.01), ("q", 0.02), ("r", 0.03))
        for figure in wide(tool, case, by)
    ]
    found = summary.summarize(taken, {})
    assert found.of_median == pytest.approx(0.011 / 0.02)
    assert found.of_best == pytest.approx(1.1)
    assert found.missed == []


@pytest.mark.parametrize(("mine", "missed"), [(0.013, ["best peer"]), (0.021, ["median peer", "best peer"])])
def test_a_goal_that_is_missed_is_named(mine, missed):
    found = summary.summarize([*wide(own.NAME, "a", mine), *wide("p", "a", 0.01), *wide("q", "a", 0.02), *wide("r", "a", 0.03)], {})
    assert len(found.missed) == len(missed)
    assert all(word in sentence for word, sentence in zip(missed, found.missed, strict=True))


def test_only_cases_that_all_tools_measured_count_for_the_spread():
    taken = wide(own.NAME, "a", 0.01) + wide("p", "a", 0.02) + wide(own.NAME, "b", 0.3)
    found = summary.summarize(taken, {})
    assert found.spread[own.NAME] == pytest.approx(summary.spread([0.99, 1.0, 1.01]))
    assert (found.compared, len(found.rows)) == (1, 2)


def test_a_busy_wait_counts_for_agreement_but_not_for_the_spread():
    taken = wide(own.NAME, "a", 0.01) + wide("p", "a", 0.02) + wide(own.NAME, "wait", 1e-4) + wide("p", "wait", 0.3)
    found = summary.summarize(taken, {"wait": 1.0})
    assert found.of_median == pytest.approx(0.5)
    assert found.compared == 2


def test_without_peers_nothing_was_checked_and_that_is_no_success():
    assert summary.summarize(figures(own.NAME, "a", 1.0, 1.0), {}).missed == ["no peer measured anything: nothing was checked"]


def test_what_is_printed_names_tools_cases_and_who_is_absent():
    taken = wide(own.NAME, "a", 0.01) + wide("p", "a", 0.02) + figures(own.NAME, "b", 2.0) + figures("p", "b", 1.0)
    told = "\n".join(summary.lines(summary.summarize(taken, {}), {"q": "not installed"}))
    assert "2.000 <--" in told
    assert "within 2% of the peers' median: 1 of 2 cases" in told
    assert "q says nothing: not installed" in told


# ---------------------------------------------------------------- kerneldyno's own method


def test_the_own_method_takes_the_time_that_it_is_given_and_measures_side_by_side():
    clock = FakeClock()
    method = OwnMethod(group_of(clock, quick=0.01, slow=0.03), CPU, clock, seed=0)
    started = clock.now()
    processes = method.measure(2.0)
    assert 4.0 <= clock.now() - started < 4.5  # two kernels
    for name, call_s in (("attention/quick", 0.01), ("attention/slow", 0.03)):
        assert processes[name].samples_s == pytest.approx([call_s] * len(processes[name].samples_s))
    assert set(processes["attention/quick"].rounds) == set(processes["attention/slow"].rounds)
    again = method.measure(2.0)
    assert not set(again["attention/slow"].rounds) & set(processes["attention/slow"].rounds)


# ---------------------------------------------------------------- the race


class Tool:
    """A peer that says what it is told to say."""

    def __init__(self, name, say, reason=None):
        self.name, self.say, self.reason, self.asked = name, say, reason, []

    def why_not(self, device):
        return self.reason

    def measure(self, subject, seconds):
        self.asked.append(subject.kernel)
        return self.say(subject)


def run_race(monkeypatch, tools, repeats=3):
    clock = FakeClock()
    monkeypatch.setattr(peers, "in_process", lambda: tools)
    found = Race(CPU, "small", [group_of(clock, a=0.01, b=0.02)], clock, seconds=0.5, seed=0)
    for repetition in range(repeats):
        found.repeat(repetition)
    return found


def test_everybody_measures_every_case_in_every_repetition_in_changing_order(monkeypatch):
    tools = [Tool("p", lambda subject: [1.0, 3.0, 2.0]), Tool("q", lambda subject: [1.0])]
    found = run_race(monkeypatch, tools, repeats=6)
    asked = {(figure.tool, figure.case, figure.repetition) for figure in found.figures}
    assert len(asked) == len(found.figures) == 3 * 2 * 6
    assert {figure.seconds for figure in found.figures if figure.tool == "p"} == {2.0}
    own_figures = [figure for figure in found.figures if figure.tool == own.NAME and figure.case.startswith("attention/b")]
    assert [figure.seconds for figure in own_figures] == pytest.approx([0.02] * 6)
    assert all(len(figure.rounds) == len(figure.values_s) > 0 for figure in own_figures)
    orders = {tuple(tools[0].asked[i : i + 2]) for i in range(0, 12, 2)}
    assert len(orders) == 2


def test_a_peer_that_fails_leaves_with_its_reason_and_takes_its_figures_along(monkeypatch):
    beats = iter(range(100))
    tools = [Tool("broken", lambda subject: [1.0 / (1 - next(beats))]), Tool("sound", lambda subject: [1.0])]
    found = run_race(monkeypatch, tools)
    assert found.absent["broken"].startswith("ZeroDivisionError")
    assert {figure.tool for figure in found.figures} == {own.NAME, "sound"}
    assert len(tools[0].asked) == 2


def test_who_cannot_take_part_says_why(monkeypatch):
    found = run_race(monkeypatch, [Tool("p", lambda subject: [1.0], reason="not installed")], repeats=1)
    assert found.absent["p"] == "not installed"
    assert found.absent[nvbench.NAME] == "times CUDA only"
    assert {figure.tool for figure in found.figures} == {own.NAME}


def test_the_own_method_may_not_fail(monkeypatch):
    monkeypatch.setattr(race.OwnMethod, "measure", lambda self, seconds: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        run_race(monkeypatch, [Tool("p", lambda subject: [1.0])], repeats=1)


# ---------------------------------------------------------------- the real tools


@pytest.fixture(scope="module")
def spinning():
    """The busy-wait as a subject."""
    with torch.no_grad():
        group = subjects.with_busy_wait(subjects.build(PROBLEM, [], torch.device("cpu"), 2))
    (subject,) = subjects.subjects(group)
    return subject


@pytest.mark.parametrize("peer", [peer for peer in peers.in_process() if peer.name != "triton do_bench"], ids=lambda peer: peer.name)
def test_no_peer_is_faster_than_the_truth(peer, spinning):
    if reason := peer.why_not("cpu"):
        pytest.skip(reason)
    assert spinning.true_s == BUSY_S
    for _ in range(2):
        values = peer.measure(spinning, 0.3)
        assert len(values) >= 1
        assert all(BUSY_S <= value < 100 * BUSY_S for value in values)


def test_a_gpu_is_left_to_the_tools_that_time_devices():
    assert all(peer.why_not("cuda") for peer in peers.in_process() if peer.name != "triton do_bench")
    assert [peer.why_not("cpu") for peer in peers.in_process()][-1] == "times CUDA only"


def test_a_subject_gives_the_slots_in_turn():
    given = []

    def build(problem, setup):
        return lambda inputs: given.append(id(inputs))

    group = subjects.build(PROBLEM, [kernel(Attention)(build)], torch.device("cpu"), 2)
    (subject,) = subjects.subjects(group)
    for _ in range(3):
        subject.call()
    assert given == [id(group.pool.slots[i]) for i in (0, 1, 0)]


def test_a_process_of_cuda_bench_that_fails_is_named_with_what_it_said():
    with pytest.raises(nvbench.PeerFailed, match=r"`python -P -m kerneldyno.bench.crosscheck.nvbench cuda:99 .*Error"):
        nvbench.measure(Device("cuda", 99), "small", 0.1, 1)


@pytest.mark.slow
def test_the_command_measures_prints_and_writes(tmp_path):
    path = tmp_path / "found.json"
    words = ["--size", "small", "--repeats", "2", "--seconds", "0.1", "--device", "cpu", "--json", str(path)]
    plain = {name: value for name, value in os.environ.items() if name not in environment.QUIET}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "kerneldyno.bench.crosscheck", *words], env=plain, capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 5), done.stderr
    found = json.loads(path.read_text())
    cases = {row["case"] for row in found["summary"]["rows"]}
    assert len(cases) >= 6
    assert any(case.startswith(subjects.BUSY) for case in cases)
    assert {figure["repetition"] for figure in found["figures"]} == {0, 1}
    assert found["environment"]["worker_settings"] == environment.QUIET
    assert "triton do_bench says nothing: times CUDA only" in done.stdout
    assert ("missed:" in done.stdout) == (done.returncode == 5)
