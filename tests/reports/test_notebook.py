"""What a notebook does: the documented example runs, figures hold what was measured, and mistakes are told in a sentence."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import plotly.graph_objects as go
import pytest

from kerneldyno.bench.journal import Run
from kerneldyno.reports import frame, notebook

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "reports" / "published" / "2026-11-23-cpu-default"
DOCUMENT = (ROOT / "docs" / "report.md").read_text(encoding="utf-8")
[EXAMPLE] = re.findall(r"<!-- example -->\n```python\n(.*?)```\n<!-- /example -->", DOCUMENT, re.DOTALL)


@pytest.fixture(scope="module")
def frames(rich: Run) -> frame.Frames:
    return frame.Frames(rich)


def test_the_documented_example_runs_line_by_line_on_a_default_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, day in (("monday", 23), ("tuesday", 24)):
        shutil.copytree(PUBLISHED, tmp_path / "runs" / name)
        manifest = tmp_path / "runs" / name / "manifest.json"
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"created": f"2026-11-{day}T10:00:00+00:00"}))
    monkeypatch.chdir(tmp_path)
    known: dict[str, object] = {}
    shown = []
    for statement in EXAMPLE.splitlines():
        if re.match(r"notebook\.", statement):
            shown.append(eval(statement, known))
        elif statement and not statement.startswith("#"):
            exec(statement, known)
    assert len(shown) == EXAMPLE.count("notebook.") == 7
    assert all(isinstance(figure, go.Figure) and figure.data for figure in shown)
    assert len(known["runs"]) == 2 * len(known["frames"].results)  # type: ignore[arg-type, attr-defined]
    fastest, results = known["fastest"], known["frames"].results  # type: ignore[attr-defined]
    assert len(fastest) == results["group"].nunique() == 14  # type: ignore[arg-type]
    assert not results[results["approximate"]]["kernel"].isin(fastest["kernel"]).any()  # type: ignore[index]
    for figure in (figure for figure in shown if "latency" in figure.layout.title.text or "memory" in figure.layout.title.text):
        assert max(len(trace.x) for trace in figure.data) > 1, figure.layout.title.text


def test_every_function_that_draws_is_in_the_example() -> None:
    public = {name for name, value in vars(notebook).items() if getattr(value, "__module__", "") == notebook.__name__ and name[0] != "_"}
    assert public == set(re.findall(r"notebook\.(\w+)\(", EXAMPLE))


def test_a_figure_holds_the_measured_numbers_and_says_what_they_are(frames: frame.Frames) -> None:
    drawn = notebook.latency(frames, "layer", batch=1)
    own = frames.results.query("operator == 'layer' and batch == 1 and status == 'ok'")
    for trace in drawn.data:
        measured = own[own["kernel"] == f"layer/{trace.name}"].sort_values("seq_len")
        assert list(trace.x) == measured["seq_len"].tolist()
        assert [value * 1e-3 for value in trace.y] == pytest.approx(measured["latency_s"].tolist())
    assert len(drawn.data) == own["kernel"].nunique()
    assert drawn.layout.title.text == "Encoder layer: latency"
    assert "batch 1 · fp32<br>AMD EPYC 9R14" in drawn.layout.title.subtitle.text
    assert "lower is better" in drawn.layout.yaxis.title.text
    assert drawn.layout.width is None


def test_samples_come_in_the_order_in_which_they_were_taken(frames: frame.Frames) -> None:
    case = frames.samples["case"].iloc[0]
    [trace] = notebook.samples(frames, case).data
    taken = frames.samples[frames.samples["case"] == case]
    assert list(trace.x) == list(range(len(taken)))
    ratio = taken["latency_s"].to_numpy() / list(trace.y)
    assert ratio == pytest.approx(ratio[0])


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda frames: notebook.latency(frames, "attention"), r"several values at length \d+ \(.* and .*\): choose one, for example \w+="),
        (
            lambda frames: notebook.latency(frames, "softmax"),
            "operator 'softmax' is not in this run: choose from attention, feedforward, layer",
        ),
        (lambda frames: notebook.latency(frames, "layer", colour=3), "'colour' is no column of the results"),
        (lambda frames: notebook.latency(frames, "layer", batch=77), "no case of layer has batch 77: choose batch=1, batch=4"),
        (
            lambda frames: notebook.latency(frames, "attention", batch=1, causal="no"),
            "no case of attention with batch 1 has causal no: choose causal=(True|False)",
        ),
        (lambda frames: notebook.latency(frames, "layer", q_len=1), "no case of layer has q_len 1: these cases have no q_len"),
        (lambda frames: notebook.error(frames, "attention", label="4×512"), "has label 4×512: choose label='.*', …$"),
        (lambda frames: notebook.against_length(frames, "energy", "layer"), "^no case of layer has a value of energy_j"),
        (lambda frames: notebook.against_length(frames, "speed", "layer"), "quantity 'speed' is unknown: choose from latency"),
        (lambda frames: notebook.error(frames, "layer"), "rows are of 5 shapes: choose one, label='"),
        (lambda frames: notebook.samples(frames, "nothing"), "no samples of a case 'nothing'"),
    ],
)
def test_a_mistake_is_told_in_a_sentence(frames: frame.Frames, call, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        call(frames)


def test_what_the_error_proposes_works(frames: frame.Frames) -> None:
    only: dict[str, object] = {}
    for _ in range(6):
        try:
            assert notebook.latency(frames, "attention", **only).data
            break
        except ValueError as error:
            [(name, value)] = re.findall(r"for example (\w+)=(.*)$", str(error))
            only[name] = eval(value)
    else:
        pytest.fail(f"not enough: {only}")


def test_no_roof_without_ceilings(made, tmp_path: Path) -> None:
    case = made.case("attention", "sdpa", made.attention[0])
    folder = made.run(tmp_path / "bare", [case], [made.measured(case, 1.0, 1)], ceilings=None)
    with pytest.raises(ValueError, match="no roofline of attention in float32: "):
        notebook.roof(frame.load(folder), "attention", "float32")
