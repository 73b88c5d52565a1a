"""Made-up outcomes of comparisons with everything that a view must be able to show. Loaded by the tests of the views with runpy."""

from __future__ import annotations

import math
import random

import msgspec
from hypothesis import strategies as st

from kerneldyno.bench.comparison import Side, Terms
from kerneldyno.bench.verdict import WORDS, Canary, Change, Mean, Outcome, Ratio, Verdict

HOSTILE = "<script>alert(1)</script> | `x` @octocat #123 **b** [l](http://e.vil) :: , %0A \x1b[31m [red]"
MIB = 2**20


def ratio(middle: float, half: float = 0.011, processes: int = 8, base_s: float = 1.16e-3, seed: int = 1, margin: float = 0.02) -> Ratio:
    """A ratio whose processes scatter around its logarithm."""
    drawn = random.Random(seed)
    differences = [math.log(middle) + drawn.gauss(0, half) for _ in range(processes)]
    return Ratio(
        ratio=middle, low=middle * (1 - half), high=middle * (1 + half), spread=half * math.sqrt(processes) / 2, processes=processes,
        margin=margin, p_slower=1e-5 if middle > 1.03 else 0.4, p_faster=1e-5 if middle < 0.97 else 0.4, base_s=base_s,
        other_s=base_s * middle, differences=differences,
    )  # fmt: skip


def memory(before: float | None, after: float | None, word: str = "SAME", reason: str = "within 512 bytes") -> Change:
    return Change(base=before, candidate=after, unit="B", word=word, reason=reason)  # type: ignore[arg-type]


def errors(before: float, after: float, word: str = "SAME") -> Change:
    told = f"root-mean-square error {after} times the naive formula's; it was {before} times"
    return Change(base=before, candidate=after, unit="naive errors", word=word, reason=told)  # type: ignore[arg-type]


def verdict(cell: str, kernel: str, word: str, label: str = "4×8×512×64 fp32", **given: object) -> Verdict:
    """One cell; fails as its word says unless told otherwise."""
    fails = word in {"REGRESSED", "FAILED", "MISSING", "INVALID"}
    filled: dict[str, object] = {
        "cell": cell, "kernel": kernel, "base_kernel": kernel, "operator": kernel.partition("/")[0], "label": label, "device": "cpu",
        "problem": {"batch": 4, "q_len": 512}, "word": word, "fails": fails, "reason": f"it is {word.lower()}",
    }  # fmt: skip
    return Verdict(**{**filled, **given})  # type: ignore[arg-type]


def verdicts() -> list[Verdict]:
    """Every word, and every way to get it that a view must tell apart."""
    usual = {"memory": memory(12 * MIB, 12 * MIB), "errors": errors(0.41, 0.41)}
    made = [
        verdict("a1", "attention/fused", "REGRESSED", latency=ratio(1.052), latency_word="REGRESSED", changes=usual, looks=2, power=0.98,
                reason="+5.2%, beyond the margin of 2.0%"),
        verdict("a2", "attention/fused", "REGRESSED", "1×8×128×64 fp32", latency=ratio(1.31, seed=2), latency_word="REGRESSED",
                changes=usual, power=0.99, reason="+31.0%, beyond the margin of 2.0%"),
        verdict("a3", "attention/int8", "REGRESSED", reason="memory: +8,388,608 bytes at the peak of a call (+66.7%)",
                latency=ratio(1.004, seed=3), latency_word="SAME",
                changes={"memory": memory(12 * MIB, 20 * MIB, "REGRESSED", "+8,388,608 bytes at the peak of a call (+66.7%)"),
                         "errors": errors(0.4, 0.9, "REGRESSED"), "energy": Change(base=None, candidate=None, unit="J", word="INCONCLUSIVE",
                                                                                  reason="not measured: no counter")}),
        verdict("a4", "attention/flex", "REGRESSED", latency=ratio(1.09, 0.04, seed=4), latency_word="REGRESSED", fails=False,
                advisory=True, changes=usual, power=0.21, reason="+9.0%, beyond the margin of 2.0%"),
        verdict("f1", "feedforward/fused", "FAILED", "2048 512→2048 relu", reason=f"RuntimeError: {HOSTILE}"),
        verdict("f2", "feedforward/pruned", "MISSING", "2048 512→2048 relu", reason="the candidate has no kernel feedforward/pruned"),
        verdict("f3", "feedforward/onnxrt", "INVALID", "2048 512→2048 relu", latency=ratio(0.2, seed=5),
                reason="1.4 × the machine's matmul rate: the measurement cannot be right"),
        verdict("a5", f"attention/{HOSTILE}", "INCONCLUSIVE", HOSTILE, latency=ratio(1.02, 0.03, seed=6), latency_word="INCONCLUSIVE",
                changes=usual, looks=2, power=0.44, reason="known to [-1.1%, +5.2%] only, after 16 processes that scatter by 3.0%"),
        verdict("a6", "attention/sdpa", "IMPROVED", base_kernel="attention/eager", latency=ratio(0.71, seed=7), latency_word="IMPROVED",
                changes={"memory": memory(12 * MIB, 4 * MIB, "IMPROVED", "-8,388,608 bytes"), "errors": errors(0.41, 0.41)}, power=1.0),
        verdict("l1", "layer/fused", "NEW", "4×512 layer", reason="the base has no kernel layer/fused"),
    ]  # fmt: skip
    for number in range(9):
        label = f"{1 + number % 4}×{128 * (1 + number)} layer"
        made.append(
            verdict(f"s{number}", "layer/compiled", "SAME", label, latency=ratio(1 + 0.001 * number, seed=20 + number), latency_word="SAME",
                    changes=usual, power=0.99, unchanged=number == 3, adjacent="it registers torch ops" if number == 4 else None,
                    reason="within ±2%")
        )  # fmt: skip
    return made


def canaries() -> list[Canary]:
    """One of each word."""
    return [
        Canary(cell="a1", kernel="attention/fused", label="4×8×512×64 fp32", ratio=ratio(1.001, 0.004), word="SAME", reason="within ±1%"),
        Canary(cell="f3", kernel="feedforward/onnxrt", label="2048 512→2048", ratio=ratio(1.003, 0.02), word="INCONCLUSIVE",
               reason="known to [-1.9%, +2.2%] only"),
        Canary(cell="l1", kernel="layer/eager", label=HOSTILE, ratio=None, word="FAILED", reason=f"the copy raised {HOSTILE}"),
        Canary(cell="s1", kernel="layer/compiled", label="2×256 layer", ratio=ratio(1.05, 0.004), word="DIFFERS",
               reason="the base differs from its own copy by +5.0%: nothing here can be believed"),
    ]  # fmt: skip


def rich(**given: object) -> Outcome:
    """Everything at once: two commits, a canary that differs, cells left out, hostile names; exit 4."""
    filled: dict[str, object] = {
        "version": "0.1.0", "created": "2026-11-24T10:00:00+00:00", "form": "commits", "device_name": "AMD EPYC 9R14",
        "base": Side(label="origin/main", commit="0123abc" * 5 + "01234", fingerprint="f1"),
        "candidate": Side(label="worktree", commit="89abcde" * 5 + "89abc-dirty", fingerprint="f1"), "terms": Terms(),
        "verdicts": verdicts(), "canaries": canaries(),
        "means": [Mean(operator="attention", ratio=1.021, cells=6), Mean(operator="layer", ratio=1.004, cells=9)],
        "warnings": ["clocks are not locked", f"stderr said {HOSTILE}"], "unchanged": ("attention/eager", "layer/eager"),
        "left_out": ["attention/fused at 1×8×4096×64", f"attention/flex at {HOSTILE}"],
        "headline": f"invalid: a base differs from its own copy; 3 REGRESSED, 1 FAILED {HOSTILE}", "exit_code": 4,
        "meaning": "too noisy, or a canary differs", "wall_s": 812.0,
        "command": "kerneldyno compare --base origin/main --kernels 'attention/*' # ``` @octocat",
    }  # fmt: skip
    return Outcome(**{**filled, **given})  # type: ignore[arg-type]


def fine(**given: object) -> Outcome:
    """A comparison of which there is nothing to say: exit 0."""
    quiet = {
        "verdicts": [one for one in verdicts() if one.word in {"SAME", "IMPROVED", "NEW"}], "canaries": canaries()[:1], "warnings": [],
        "left_out": [], "unchanged": (), "headline": "nothing regressed in 11 cells", "exit_code": 0, "meaning": "fine",
    }  # fmt: skip
    return msgspec.structs.replace(rich(), **{**quiet, **given})


def large(cells: int) -> Outcome:
    """So many cells of every word, with long reasons."""
    many = [
        msgspec.structs.replace(
            one, cell=f"{one.cell}-{number}", label=f"{one.label} {number}", reason=f"{one.reason} {'long ' * 50}"
        )
        for number in range(cells // len(verdicts()) + 1)
        for one in verdicts()
    ]  # fmt: skip
    return rich(verdicts=many[:cells], warnings=[f"warning {number} {HOSTILE}" for number in range(50)])


anything = st.text(max_size=60) | st.just(HOSTILE) | st.text(alphabet="<>&|`@#:%,[]\r\n\x00\x1b\ufffe\u2028\u202e1aé ", max_size=40)
"""Text that a user's file may hold."""


@st.composite
def outcomes(draw: st.DrawFn) -> Outcome:
    """An outcome whose every text is hostile and whose every word is possible."""
    made = []
    for number in range(draw(st.integers(0, 5))):
        word = draw(st.sampled_from(WORDS))
        latency = ratio(draw(st.floats(0.2, 5))) if draw(st.booleans()) else None
        changes = {"memory": memory(draw(st.none() | st.floats(0, 1e12)), 4.0, "REGRESSED", draw(anything))} if draw(st.booleans()) else {}
        made.append(
            verdict(str(number), f"{draw(anything)}/{draw(anything)}", word, draw(anything), reason=draw(anything), latency=latency,
                    fails=draw(st.booleans()), advisory=draw(st.booleans()), changes=changes)
        )  # fmt: skip
    told = [Canary(cell="c", kernel=draw(anything), label=draw(anything), ratio=None, word="INCONCLUSIVE", reason=draw(anything))]
    return rich(
        verdicts=made, canaries=told if draw(st.booleans()) else [], headline=draw(anything), meaning=draw(anything),
        warnings=draw(st.lists(anything, max_size=3)), left_out=draw(st.lists(anything, max_size=3)), command=draw(anything),
        unchanged=tuple(draw(st.lists(anything, max_size=3))), exit_code=draw(st.sampled_from([0, 1, 3, 4, 5, 130])),
        device_name=draw(anything), base=Side(label=draw(anything), commit=draw(anything)),
    )  # fmt: skip
