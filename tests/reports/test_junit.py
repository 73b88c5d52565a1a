"""JUnit XML: always parses, keeps to the schema, says of each cell what the gate says of it."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerneldyno.bench.verdict import Outcome
from kerneldyno.reports.junit import junit, legal

sample = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("outcomes.py"))))

# of Jenkins' junit-10.xsd: element -> (required attributes, optional ones that are used here, children)
SCHEMA: dict[str, tuple[set[str], set[str], list[str]]] = {
    "testsuites": (set(), {"name", "tests", "failures", "errors"}, ["testsuite"]),
    "testsuite": ({"name", "tests"}, {"failures", "errors", "skipped", "timestamp"}, ["properties", "testcase"]),
    "properties": (set(), set(), ["property"]),
    "property": ({"name", "value"}, set(), []),
    "testcase": ({"name"}, {"classname", "time"}, ["skipped", "error", "failure", "system-out"]),
    "skipped": (set(), {"message", "type"}, []),
    "error": (set(), {"message", "type"}, []),
    "failure": (set(), {"message", "type"}, []),
    "system-out": (set(), set(), []),
}


def faults(element: ET.Element) -> list[str]:
    """What the schema does not allow."""
    required, optional, children = SCHEMA[element.tag]
    own = set(element.attrib)
    found = [f"{element.tag} lacks {name}" for name in required - own]
    found += [f"{element.tag} has {name}" for name in own - required - optional]
    tags = [child.tag for child in element]
    found += [f"{tag} in {element.tag}" for tag in tags if tag not in children]
    if tags != sorted(tags, key=lambda tag: children.index(tag) if tag in children else -1):
        found.append(f"order of {tags} in {element.tag}")
    if element.tag == "testcase":
        if len({"skipped", "error", "failure"} & set(tags)) > 1 or len(set(tags)) != len(tags):
            found.append(f"one case with {tags}")
        if "time" in own and not element.attrib["time"].replace(".", "", 1).isdigit():
            found.append(f"time {element.attrib['time']}")
    return [*found, *(fault for child in element for fault in faults(child))]


def state(case: ET.Element) -> str:
    return next((child.tag for child in case if child.tag != "system-out"), "passed")


def cases(outcome: Outcome) -> dict[tuple[str, str], ET.Element]:
    return {(case.attrib["classname"], case.attrib["name"]): case for case in ET.fromstring(junit(outcome)).iter("testcase")}


def test_every_word_has_its_state() -> None:
    found = cases(sample.rich())
    label, wide = "4×8×512×64 fp32", "2048 512→2048 relu"
    expected = {
        ("attention.fused", label): "failure",
        ("attention.int8", label): "failure",
        ("attention.flex", label): "skipped",  # advisory
        ("feedforward.fused", wide): "error",
        ("feedforward.pruned", wide): "error",
        ("feedforward.onnxrt", wide): "error",
        ("attention.sdpa", label): "passed",
        ("layer.fused", "4×512 layer"): "passed",
        ("layer.compiled", "1×128 layer"): "passed",
        ("attention.fused", "1×8×4096×64"): "skipped",  # the budget
        ("canary.attention.fused", label): "passed",
        ("canary.feedforward.onnxrt", "2048 512→2048"): "skipped",
        ("canary.layer.compiled", "2×256 layer"): "error",
        ("kerneldyno.compare", "comparison"): "error",
    }
    assert {key: state(found[key]) for key in expected} == expected
    [doubtful] = [
        case
        for (_, name), case in found.items()
        if state(case) == "skipped" and "INCONCLUSIVE: known to [-1.1%" in str(case[0].get("message"))
    ]
    assert "octocat" in doubtful.attrib["name"]


def test_the_numbers_are_in_the_case() -> None:
    case = cases(sample.rich())["attention.fused", "4×8×512×64 fp32"]
    assert float(case.attrib["time"]) == pytest.approx(1.052 * 1.16e-3, abs=1e-9)
    [failure, out] = case
    assert failure.attrib["message"] == "REGRESSED: +5.2%, beyond the margin of 2.0%; time 1.052 [1.040, 1.064]"
    assert "1.16 ms → 1.22 ms" in str(out.text)
    assert "memory: SAME, 12.0 MiB" in str(out.text)
    advisory = cases(sample.rich())["attention.flex", "4×8×512×64 fp32"]
    assert "advisory" in advisory[0].attrib["message"]
    assert "the budget" in cases(sample.rich())["attention.fused", "1×8×4096×64"][0].attrib["message"]
    assert "time" not in cases(sample.rich())["feedforward.fused", "2048 512→2048 relu"].attrib


def test_the_file_is_red_exactly_when_the_exit_code_is_not_0() -> None:
    for code in (0, 1, 2, 3, 4, 5, 130):
        root = ET.fromstring(junit(sample.fine(exit_code=code)))
        assert (int(root.attrib["errors"]) + int(root.attrib["failures"]) > 0) == (code != 0), code
    assert [state(case) for case in cases(sample.fine()).values()] == ["passed"] * 12


def test_a_regression_of_its_own_needs_no_case_for_the_whole() -> None:
    outcome = sample.fine(verdicts=sample.verdicts(), exit_code=1)
    assert ("kerneldyno.compare", "comparison") not in cases(outcome)
    assert ("kerneldyno.compare", "comparison") in cases(sample.rich())


def test_stored_runs_turn_nothing_red() -> None:
    told = [sample.verdict("x", "attention/fused", word, fails=False) for word in ("REGRESSED", "FAILED", "MISSING", "INVALID")]
    assert {state(case) for case in cases(sample.fine(verdicts=told, advisory=True, canaries=[])).values()} == {"skipped"}


def test_counts_agree_with_the_cases_and_no_two_cases_share_their_names() -> None:
    twice = [sample.verdict("x", "attention/fused", "REGRESSED"), sample.verdict("y", "attention/fused", "SAME")]
    root = ET.fromstring(junit(sample.rich(verdicts=[*sample.verdicts(), *twice])))
    for suite in root:
        states = [state(case) for case in suite.iter("testcase")]
        told = [int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")]
        assert told == [len(states), states.count("failure"), states.count("error"), states.count("skipped")]
    everything = list(root.iter("testcase"))
    assert len({(case.attrib["classname"], case.attrib["name"]) for case in everything}) == len(everything)
    assert int(root.attrib["tests"]) == len(everything)
    assert [suite.attrib["name"] for suite in root if suite.attrib["name"] in {"attention", "canaries"}] == ["attention", "canaries"]


def test_it_keeps_to_the_schema() -> None:
    assert faults(ET.fromstring(junit(sample.rich()))) == []
    assert faults(ET.fromstring(junit(sample.fine(verdicts=[], canaries=[])))) == []
    assert faults(ET.fromstring('<testsuite tests="1"><testcase name="a"><error/><failure/></testcase></testsuite>'))  # the eye sees


@settings(max_examples=60, deadline=None)
@given(outcome=sample.outcomes())
def test_whatever_the_names_it_parses_and_keeps_to_the_schema(outcome: Outcome) -> None:
    root = ET.fromstring(junit(outcome))
    assert faults(root) == []
    shown = len(outcome.verdicts) + len(outcome.left_out) + len(outcome.canaries)
    assert int(root.attrib["tests"]) - shown in {0, 1}


@given(text=st.text(alphabet=st.characters()) | st.just("\ud800 \x00 \ufffe"))
def test_what_xml_cannot_hold_is_shown_and_the_rest_left_alone(text: str) -> None:
    element = ET.Element("a")
    element.text = legal(text)
    [parsed] = [ET.fromstring(ET.tostring(element, encoding="unicode"))]
    assert (parsed.text or "") == legal(text).replace("\r\n", "\n").replace("\r", "\n")
    assert legal(text) == text or len(legal(text)) > len(text)
