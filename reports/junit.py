"""A comparison as JUnit XML, one testcase per cell, in the dialect that Jenkins and GitLab read.

Structure and attributes keep to the schema of Jenkins' xunit plugin (junit-10.xsd): suites hold properties, then cases; a case has
at most one of failure, error and skipped, then system-out. The file is never all green where the exit code is not 0.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import TYPE_CHECKING, Literal
from xml.etree import ElementTree as ET

from kerneldyno.bench.verdict import EXIT_FINE, EXIT_NOT_COMPARABLE, EXIT_TOO_NOISY, Canary, Outcome, Verdict, worst_first

from . import verdicts

if TYPE_CHECKING:
    from collections.abc import Iterable

State = Literal["failure", "error", "skipped"]

ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold in any form (section 2.2, Char)."""


def junit(outcome: Outcome) -> str:
    """The whole comparison as an XML document, declaration included."""
    suites: dict[str, list[ET.Element]] = {}
    names: Counter[tuple[str, str]] = Counter()
    for verdict in worst_first(outcome.verdicts):
        suites.setdefault(verdict.operator, []).append(_cell(verdict, names))
    for cell in outcome.left_out:
        kernel, _, label = cell.partition(" at ")
        case = _case(kernel, label or cell, names)
        _add(case, "skipped", "left out", "the budget left no time for it")
        suites.setdefault(kernel.partition("/")[0], []).append(case)
    if outcome.canaries:
        suites["canaries"] = [_canary(canary, names, outcome) for canary in outcome.canaries]
    whole = outcome.exit_code in (EXIT_NOT_COMPARABLE, EXIT_TOO_NOISY)
    bad = any(case.find(state) is not None for cases in suites.values() for case in cases for state in ("failure", "error"))
    if whole or (outcome.exit_code != EXIT_FINE and not bad):
        suites = {"comparison": [_whole(outcome)], **suites}
    root = ET.Element("testsuites", name="kerneldyno compare")
    for name, cases in suites.items():
        root.append(_suite(name, cases, outcome))
    _count(root, [case for cases in suites.values() for case in cases])
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def legal(text: str) -> str:
    r"""Text that XML can hold: what it cannot stands as it would in a Python string, `\x1b`."""
    return ILLEGAL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def _suite(name: str, cases: list[ET.Element], outcome: Outcome) -> ET.Element:
    suite = ET.Element("testsuite", name=legal(name))
    _count(suite, cases)
    suite.set("skipped", str(sum(case.find("skipped") is not None for case in cases)))
    suite.set("timestamp", legal(outcome.created))
    properties = ET.SubElement(suite, "properties")
    for key, value in _properties(outcome):
        ET.SubElement(properties, "property", name=key, value=legal(value))
    suite.extend(cases)
    return suite


def _count(element: ET.Element, cases: list[ET.Element]) -> None:
    element.set("tests", str(len(cases)))
    element.set("failures", str(sum(case.find("failure") is not None for case in cases)))
    element.set("errors", str(sum(case.find("error") is not None for case in cases)))


def _properties(outcome: Outcome) -> Iterable[tuple[str, str]]:
    facts = {
        "kerneldyno": outcome.version,
        "base": verdicts.side(outcome.base),
        "candidate": verdicts.side(outcome.candidate),
        "device": outcome.device_name,
        "headline": outcome.headline,
        "exit code": f"{outcome.exit_code}: {outcome.meaning}",
        "sensitivity": outcome.sensitivity,
        "command": outcome.command,
    }
    return ((key, value) for key, value in facts.items() if value)


def _cell(verdict: Verdict, names: Counter[tuple[str, str]]) -> ET.Element:
    case = _case(verdict.kernel, verdict.label, names)
    if verdict.latency and math.isfinite(verdict.latency.other_s) and verdict.latency.other_s >= 0:
        case.set("time", f"{verdict.latency.other_s:.9f}")
    state = _state(verdict)
    if state:
        _add(case, state, verdict.word, _message(verdict))
    ET.SubElement(case, "system-out").text = legal("\n".join([verdicts.place(verdict), *verdicts.told(verdict)]))
    return case


def _state(verdict: Verdict) -> State | None:
    """None: it passes. What does not fail the comparison must not turn a build red."""
    if verdict.word == "INCONCLUSIVE":
        return "skipped"
    if verdict.fails:
        return "error" if verdict.word in {"FAILED", "MISSING", "INVALID"} else "failure"
    return "skipped" if verdict.word in verdicts.BAD else None


def _message(verdict: Verdict) -> str:
    shown = f"{verdict.word}: {verdict.reason}"
    if verdict.latency:
        shown += f"; time {verdicts.number(verdict.latency)}"
    if verdict.word in verdicts.BAD and not verdict.fails:
        shown += f"; {'advisory: the cell is too noisy' if verdict.advisory else 'it does not fail the comparison'}"
    return shown


def _canary(canary: Canary, names: Counter[tuple[str, str]], outcome: Outcome) -> ET.Element:
    case = _case(f"canary/{canary.kernel}", canary.label, names)
    shown = f"{canary.word}: {canary.reason}"
    if canary.word == "DIFFERS" or (canary.word == "FAILED" and outcome.exit_code != EXIT_FINE):
        _add(case, "error", canary.word, shown)
    elif canary.word != "SAME":
        _add(case, "skipped", canary.word, shown)
    ET.SubElement(case, "system-out").text = legal(f"{shown}\ncopy against base: {verdicts.number(canary.ratio) or 'no ratio'}")
    return case


def _whole(outcome: Outcome) -> ET.Element:
    case = ET.Element("testcase", classname="kerneldyno.compare", name="comparison")
    _add(case, "error", f"exit {outcome.exit_code}", f"{outcome.meaning}: {outcome.headline}")
    ET.SubElement(case, "system-out").text = legal("\n".join([outcome.headline, *outcome.warnings]))
    return case


def _case(kernel: str, label: str, names: Counter[tuple[str, str]]) -> ET.Element:
    """A testcase whose classname and name no other has: readers merge those that share both."""
    classname = legal(kernel.replace("/", "."))
    names[classname, legal(label)] += 1
    count = names[classname, legal(label)]
    return ET.Element("testcase", classname=classname, name=legal(label) + (f" ({count})" if count > 1 else ""))


def _add(case: ET.Element, state: State, kind: str, message: str) -> None:
    ET.SubElement(case, state, type=legal(kind), message=legal(message)).text = legal(message)
