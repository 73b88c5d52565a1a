"""The command line that measures one row again, as people type it. A test holds that the options' defaults are known here."""

from __future__ import annotations

import csv
import io
import itertools
import re
import shlex
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from kerneldyno.bench.comparison import Comparison
    from kerneldyno.bench.journal import Run
    from kerneldyno.bench.manifest import Settings
    from kerneldyno.bench.records import Case

USUAL: dict[str, dict[str, Any]] = {
    "attention": {"heads": 8, "head_dim": 64, "causal": False, "padding": False, "bias": "none", "direction": "forward"},
    "feedforward": {
        "dim": 512, "hidden_dim": 2048, "activation": "relu", "norm": "layernorm", "gated": False, "bias": True, "residual": False,
        "direction": "forward",
    },
    "layer": {"dim": 512, "heads": 8, "hidden_dim": 2048, "mask": "none", "padding": False, "direction": "forward"},
}  # fmt: skip
"""What fields of a problem are where no option names them; those that are not here a problem tells only when they were asked for."""
FREE = frozenset({"padding", "direction", "page_size", "q_len", "kv_len"})
"""Fields that a model leaves open, beside batch, sequence length and dtype."""
BUILD_TIMEOUT_S = {"cpu": 180.0, "cuda": 300.0}
CALL_TIMEOUT_S = 30.0
COMPARED_PROCESSES = 8
GATES = ("latency", "memory", "errors")


def command(run: Run, case: Case) -> str:
    """What measures the case again beside its baseline, under the case's id, on a machine like this one: for a shell.

    Of a comparison, the command that compares it again. Files and models stand with their names, since paths are not recorded.
    Options that are at their defaults are left out, but for those on which every number depends.
    """
    settings, compared = run.manifest.settings, run.manifest.comparison
    words = ["kerneldyno", *(["run", "--kernels", _kernels(case.baseline, case.kernel)] if compared is None else _contest(compared, case))]
    words += [word for option, text in _shape(settings, case) for word in (option, *text)]
    if compared is None:
        words += ["--protocol", settings.protocol.name]
        words += _unless("--processes", settings.processes, 1) + _unless("--energy", settings.energy, "auto")
    words += ["--device", case.device, "--threads", str(settings.threads), *_unless("--seed", case.seed, 0)]
    words += _unless("--build-timeout", settings.build_timeout_s, BUILD_TIMEOUT_S.get(case.device.partition(":")[0], 0.0))
    words += _unless("--call-timeout", settings.call_timeout_s, CALL_TIMEOUT_S)
    words += [word for name in settings.load for word in ("--load", name)]
    return shlex.join(words)


def _kernels(*names: str) -> str:
    """A list of kernels that matches these alone."""
    return _listed(_only(name) for name in dict.fromkeys(names) if name)


def _only(kernel: str) -> str:
    """A glob that matches this kernel alone."""
    return re.sub(r"[*?\[\s]", r"[\g<0>]", kernel)


def _contest(compared: Comparison, case: Case) -> list[str]:
    """The comparison that a case of one of its sides was measured for."""
    cell = next(cell for cell in compared.cells if case.id in (cell.base, cell.candidate, cell.copy))
    if compared.form == "kernels":
        return ["compare", "--kernels", _kernels(cell.base_kernel), _only(cell.candidate_kernel), *_decided(compared)]
    found = ["compare", "--base", _revision(compared.base.commit, compared.base.label)]
    if compared.candidate.label != "worktree":
        found += ["--candidate", _revision(compared.candidate.commit, compared.candidate.label)]
    unchanged = ["--all"] * (cell.unchanged or not cell.compared)
    return [*found, *unchanged, "--kernels", _kernels(cell.candidate_kernel), *_decided(compared)]


def _revision(commit: str | None, label: str) -> str:
    return label if commit is None or commit.endswith("-dirty") else commit


def _decided(compared: Comparison) -> list[str]:
    """How much is measured, and what fails the comparison."""
    terms = compared.terms
    gates = [] if terms.gates == GATES else ["--gate", ",".join(terms.gates)]
    return _unless("--processes", terms.processes, COMPARED_PROCESSES) + gates


def _shape(settings: Settings, case: Case) -> Iterator[tuple[str, list[str]]]:
    """Options of the problem, each with its values: sizes always, of the rest what is unlike the shape that options start from."""
    fields = dict(case.problem)
    given = str(fields.pop("given", ""))
    if given:
        yield from _model(settings, given)
        fields = {name: value for name, value in fields.items() if name in FREE}
    for name in ("batch", "dtype"):
        fields.pop(name, None)
    yield "--batch", [str(case.problem["batch"])]
    if case.problem.get("q_len", case.seq_len) == case.problem.get("kv_len", case.seq_len):
        fields = {name: value for name, value in fields.items() if name not in ("seq_len", "q_len", "kv_len")}
        yield "--seq-len", [str(case.seq_len)]
    yield "--dtype", [case.dtype]
    if fields.get("kv_heads") == fields.get("heads"):
        fields.pop("kv_heads", None)  # they follow the heads
    usual = USUAL[case.operator]
    for name, value in fields.items():
        if name not in usual or value != usual[name]:
            yield from _field(name, value)


def _field(name: str, value: Any) -> Iterator[tuple[str, list[str]]]:
    if name == "causal" or (name, value) == ("mask", "causal"):
        yield "--causal", []
    elif name == "direction":
        yield "--direction", [value]
    else:
        yield "--set", [f"{name}={_listed([_told(value)])}"]


def _model(settings: Settings, given: str) -> Iterator[tuple[str, list[str]]]:
    """The model's layer, NAME/LAYER@DIGEST, and the files that the run was given beside it."""
    name, _, layer = given.partition("@")[0].rpartition("/")
    yield "--model", [name]
    yield "--layers", [layer]
    recorded = _recorded(settings.command)
    for option in ("--weights", "--inputs"):
        if option in recorded:
            yield option, [recorded[option]]


def _recorded(line: str) -> Mapping[str, str]:
    """The options of a recorded command line that have a value."""
    try:
        words = shlex.split(line)
    except ValueError:  # scrubbing may have taken a quote along
        return {}
    found = dict(itertools.pairwise(words))
    joined = (word.partition("=") for word in words if "=" in word)
    return found | {option: value for option, _, value in joined}


def _told(value: Any) -> str:
    """A value as an option reads it."""
    text = str(value)
    return text.lower() if isinstance(value, bool) else text.removesuffix(".0") if isinstance(value, float) else text


def _listed(words: Iterable[str]) -> str:
    """Words with commas between them; those that hold commas or quotes stand in double quotes."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(words)
    return text.getvalue()


def _unless(option: str, value: float | str, usual: float | str) -> list[str]:
    """The option with its value, unless that is the usual one."""
    return [] if value == usual else [option, _told(value)]
