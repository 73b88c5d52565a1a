"""What users write on the command line, read into plain values; every mistake becomes one sentence."""

from __future__ import annotations

import csv
import errno
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast, get_args

import msgspec

from kerneldyno.kernels._given_config import ModelError
from kerneldyno.kernels._tuned import TunedError
from kerneldyno.kernels.registry import DIRECTIONS, DTYPES, KernelFileError

from .environment import DeviceError
from .journal import JournalError
from .launch import EnergyChoice
from .plan import UsageError
from .records import Case, Measurement

GO_WITH_RESUME = ("--resume", "--load", "--budget", "--refine-crossovers", "--model", "--weights", "--inputs")
PATH_OPTIONS = ("--load", "--out", "--resume", "--model", "--weights", "--inputs", "--json", "--csv", "--baseline")
SHORT_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def words(text: str | None, option: str) -> tuple[str, ...]:
    """A comma-separated list; empty when the option was not given. A word that holds commas stands in double quotes.

    Raises UsageError when nothing was given with the option, or a quote does not end.
    """
    if text is None:
        return ()
    try:
        found = tuple(word for part in next(csv.reader([text.strip()], skipinitialspace=True, strict=True), []) if (word := part.strip()))
    except csv.Error:
        raise UsageError(f'{option} {text!r} is not a list: write a,b,c, and a word with commas in double quotes: "a,b",c') from None
    if not found:
        raise UsageError(f"{option} {text!r} is an empty list: give at least one value")
    return found


def axes(
    *, batch: str | None, seq_len: str | None, dtype: str | None, direction: str | None, causal: bool | None, others: Sequence[str]
) -> dict[str, list[Any]]:
    """The fields that the user wants to vary, each with its values."""
    found: dict[str, list[Any]] = {}
    for name, text in (("batch", batch), ("seq_len", seq_len)):
        if text is not None:
            found[name] = [_whole(word, f"--{name.replace('_', '-')}") for word in words(text, f"--{name.replace('_', '-')}")]
    for name, text in (("dtype", dtype), ("direction", direction)):
        if text is not None:
            found[name] = _named(name, words(text, f"--{name}"))
    if causal is not None:
        found["causal"] = [causal]
    for text in others:
        name, equals, values_text = text.partition("=")
        if not equals:
            raise UsageError(f"--set {text!r} is not FIELD=VALUES: write for example --set head_dim=64,128")
        name = name.strip().replace("-", "_")
        values = words(values_text, f"--set {name}")
        if name in ("dtype", "direction"):
            found[name] = _named(name, values)
        else:
            found[name] = [_value(word) for word in values]
    return found


def energy(text: str) -> EnergyChoice:
    """The --energy option."""
    if text not in get_args(EnergyChoice):
        raise UsageError(f"--energy {text!r} is unknown: choose from auto, off, on")
    return cast("EnergyChoice", text)


def refuse_beside_resume(arguments: Sequence[str], allowed: Sequence[str] = GO_WITH_RESUME) -> None:
    """Raise UsageError for options that a resumed run cannot honour, since its plan is made."""
    given = [word.partition("=")[0] for word in arguments if word.startswith("--")]
    if extra := [name for name in given if name not in allowed]:
        *most, last = (name for name in allowed if name != "--resume")
        may = f"{', '.join(most)} and {last}"
        raise UsageError(f"{extra[0]} does not go with --resume: a resumed run keeps its plan; only {may} may be given")


def without_paths(arguments: Sequence[str]) -> list[str]:
    """The command line with only the names of files, for the record: paths tell about the machine."""
    found: list[str] = []
    for word in arguments:
        name, equals, value = word.partition("=")
        if found and found[-1] in PATH_OPTIONS:
            found.append(Path(word).name)
        elif equals and name in PATH_OPTIONS:
            found.append(f"{name}={Path(value).name}")
        else:
            found.append(word)
    return found


def write_checks(path: Path, cases: Sequence[Case], measurements: Mapping[str, Measurement]) -> None:
    """Write what the gate found as JSON: a list of cases, each with its measurement. Raises UsageError when it cannot be written."""
    found = [{"case": case, "measurement": measurements.get(case.id)} for case in cases]
    try:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
    except OSError as error:
        raise UsageError(f"--json {path}: cannot be written ({error.strerror}): give another file") from error


def exit_code(error: Exception) -> int | None:
    """The exit status for a mistake that has its sentence; None for an error of ours, which deserves a traceback."""
    if isinstance(error, UsageError | KernelFileError | DeviceError | TunedError | ModelError):
        return 2
    if isinstance(error, JournalError):
        return error.exit_code
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EDQUOT):
        return 2
    return None


def _whole(word: str, option: str) -> int:
    try:
        return int(word)
    except ValueError:
        raise UsageError(f"{option} {word!r} is not a whole number: write for example 1,4") from None


def _named(name: str, values: Sequence[str]) -> list[str]:
    """Values of a field that has a fixed set of them."""
    if name == "dtype":
        return [_one_of(SHORT_DTYPES.get(word, word), DTYPES, "--dtype") for word in values]
    return [_one_of(word, DIRECTIONS, "--direction") for word in values]


def _one_of(word: str, known: Sequence[str], option: str) -> str:
    if word not in known:
        raise UsageError(f"{option} {word!r} is unknown: choose from {', '.join(known)}")
    return word


def _value(word: str) -> Any:
    """A field's value: a number, true or false, or a word."""
    if word.lower() in ("true", "false"):
        return word.lower() == "true"
    for read in (int, float):
        with suppress(ValueError):
            return read(word)
    return word
