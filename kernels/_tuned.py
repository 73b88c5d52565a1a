"""Choices that were measured on a device: how they are keyed, stored as data beside the kernels, and looked up when one is built.

Nothing is measured here and nothing is written by a measured run: `kerneldyno tune` writes the files. No torch, no Triton.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import MISSING, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec

PLACE = "KERNELDYNO_TUNED"
"""Environment variable that names another folder of such files, to be read in place of the package's own."""
SHIPPED = Path(__file__).with_name("tuned")
LENGTHS = {16: "≤16", 256: "≤256", 1024: "≤1k", 4096: "≤4k", 16384: "≤16k"}
LONGEST = ">16k"

Word = Annotated[str, msgspec.Meta(min_length=1)]
Choice = dict[str, bool | int]
"""Fields of a tile by name, as they are stored."""
T = TypeVar("T")


class TunedError(Exception):
    """A file of choices cannot be used; the message says which, why, and what to do."""

    exit_code = 2


class Key(msgspec.Struct, frozen=True, order=True, kw_only=True, forbid_unknown_fields=True):
    """What a choice is for: problems with equal keys share it."""

    function: Word
    """The device kernel: "prefill_kernel"."""
    architecture: Annotated[str, msgspec.Meta(pattern=r"^sm_[0-9]+$")]
    triton: Annotated[str, msgspec.Meta(pattern=r"^[0-9]+\.[0-9]+$")]
    """Major and minor version: another compiler makes other code, so that what was chosen for one means nothing to the next."""
    dtype: Word
    size: Word
    """"head_dim 128", or the sizes of a matrix, each rounded up to a power of two: "4096→16384"."""
    causal: bool = False
    length: Word
    """A class of lengths, see `length_class`: of the keys that a query sees, or of the tokens."""
    traits: str = ""
    """What else asks for tiles of its own: "bias", "few queries", "few tiles"."""

    def __str__(self) -> str:
        words = [self.function, self.architecture, self.dtype, self.size, self.length, *(["causal"] if self.causal else []), self.traits]
        return " ".join(word for word in words if word)


class Evidence(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a choice was measured with, and what came of it."""

    gpu: str
    multiprocessors: int
    triton: str
    torch: str
    date: str
    commit: str
    """Of kerneldyno, "-dirty" appended when it was changed."""
    problem: str
    """The one that was measured, as reports label it."""
    default: str
    """The tile that it had to beat."""
    default_s: tuple[float, float, float]
    """Median seconds per call of the default, and the ends of its 95 % interval …"""
    choice_s: tuple[float, float, float]
    """… and of the choice."""
    speedup: tuple[float, float, float]
    """Time of the default divided by that of the choice, from pairs of one round, and the ends of its interval."""
    required: str
    """What a candidate had to show to replace the default, in a sentence."""
    contested: str = ""
    """The best of the candidates that did not replace it, and its speedup over the default."""
    processes: int
    candidates: int
    """All that were looked at, the default too."""
    pruned: int
    """Left out by arithmetic or by what the compiler made of them."""
    wrong: int
    """Thrown out by the gate, or because they crashed, hung or could not be launched."""
    simulated: bool = False
    """Whether times came from a simulated device: such a file is for tests only."""


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One choice."""

    key: Key
    choice: Choice
    evidence: Evidence


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    schema: Literal[1]
    architecture: str
    entries: list[Entry]


class Pin(msgspec.Struct, frozen=True, kw_only=True):
    """A choice that is tried: for every problem of one device kernel, size and dtype, whatever its length."""

    function: str
    size: str
    dtype: str
    choice: Choice

    @classmethod
    def of(cls, key: Key, value: object) -> Pin:
        """That all keys which differ from `key` in length and traits alone are built with this tile."""
        return cls(function=key.function, size=key.size, dtype=key.dtype, choice=stored(value))

    def fits(self, key: Key) -> bool:
        return (self.function, self.size, self.dtype) == (key.function, key.size, key.dtype)


@dataclass(frozen=True)
class Chosen(Generic[T]):
    """A tile, and where it comes from."""

    value: T
    origin: Literal["tuned", "default", "tried"]

    def __str__(self) -> str:
        return f"{self.value}, {self.origin}"


_pins: ContextVar[tuple[Pin, ...] | None] = ContextVar("pins", default=None)


@contextmanager
def pinned(pins: Sequence[Pin]) -> Iterator[None]:
    """Inside, kernels are built with these choices and with the defaults for all else: what is stored is not looked at."""
    token = _pins.set(tuple(pins))
    try:
        yield
    finally:
        _pins.reset(token)


def choose(key: Key, default: T) -> Chosen[T]:
    """What was measured to be best for this key; the default where nobody measured. To be asked when a kernel is built, not per call.

    A choice that was measured against another default than today's says nothing of this one, and does not count. `default` is a
    dataclass whose fields are numbers and truth values, and which refuses the impossible by ValueError. Raises TunedError for a file
    that is damaged, or holds an impossible tile for this key.
    """
    tried = _pins.get()
    if tried is not None:
        pin = next((pin for pin in tried if pin.fits(key)), None)
        return Chosen(default, "default") if pin is None else Chosen(made(type(default), pin.choice, "a candidate"), "tried")
    path = place() / f"{key.architecture}.json"
    entry = read(path).get(key)
    if entry is None or entry.evidence.default != str(default):
        return Chosen(default, "default")
    return Chosen(made(type(default), entry.choice, f"{path.name}, {key}"), "tuned")


def made(kind: type[T], choice: Mapping[str, Any], where: str) -> T:
    """A tile of its stored fields. Raises TunedError, which begins with `where`, for fields that it lacks or that are impossible."""
    known = {item.name: item for item in fields(kind)}  # type: ignore[arg-type] # a dataclass
    for name, value in choice.items():
        if name not in known:
            raise TunedError(f"{where}: the tile has no field {name!r}: it has {', '.join(known)}; tune again, or remove the entry")
        wanted = str(getattr(known[name].type, "__name__", known[name].type))
        if type(value).__name__ != wanted:
            raise TunedError(f"{where}: {name} {value!r} is not of type {wanted}: tune again, or remove the entry")
    if lacking := [name for name, item in known.items() if name not in choice and item.default is MISSING]:
        raise TunedError(f"{where}: the tile lacks its field {lacking[0]!r}: tune again, or remove the entry")
    try:
        return kind(**choice)
    except ValueError as error:
        raise TunedError(f"{where}: {error}; tune again, or remove the entry") from None


def stored(value: object) -> Choice:
    """A tile as its fields."""
    return {item.name: getattr(value, item.name) for item in fields(value)}  # type: ignore[arg-type] # a dataclass


def place() -> Path:
    """The folder of the files: the package's own, unless the environment names another."""
    return Path(found) if (found := os.environ.get(PLACE)) else SHIPPED


def read(path: Path) -> Mapping[Key, Entry]:
    """The choices of one file by key; none where there is no such file. Raises TunedError for one that is damaged."""
    try:
        seen = path.stat()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise TunedError(f"{path.name}: cannot be read ({error.strerror}): give permission, or remove it") from None
    return _read(path, seen.st_mtime_ns, seen.st_size)


def tiles(function: str, capability: tuple[int, int], kind: type[T]) -> Iterator[tuple[Key, T]]:
    """What is stored for a device kernel on a card and would be taken with the Triton that is installed. Raises TunedError."""
    path = place() / f"{architecture(capability)}.json"
    for key, entry in read(path).items():
        if key.function == function and key.triton == triton_version():
            yield key, made(kind, entry.choice, f"{path.name}, {key}")


@lru_cache(maxsize=16)
def _read(path: Path, mtime_ns: int, size: int) -> Mapping[Key, Entry]:  # noqa: ARG001 - a file that changed is read again
    return parsed(path.read_bytes(), path.name)


def parsed(data: bytes, name: str) -> dict[Key, Entry]:
    """The choices in the text of a file. Raises TunedError, which begins with `name`, for whatever is wrong with it."""
    again = "tune again into a new file, or remove this one"
    try:
        file = msgspec.json.decode(data, type=_File)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise TunedError(f"{name}: is damaged ({error}): {again}") from None
    if name != f"{file.architecture}.json":
        raise TunedError(f"{name}: says that it is for {file.architecture}: {again}")
    found: dict[Key, Entry] = {}
    for entry in file.entries:
        if entry.key.architecture != file.architecture:
            raise TunedError(f"{name}: holds a choice for {entry.key.architecture}: {again}")
        if entry.key in found:
            raise TunedError(f"{name}: holds two choices for {entry.key}: {again}")
        found[entry.key] = entry
    return found


def written(entries: Mapping[Key, Entry], architecture: str) -> bytes:
    """The text of a file: sorted, so that two tunings differ in what they chose alone, and readable."""
    file = _File(schema=1, architecture=architecture, entries=[entries[key] for key in sorted(entries)])
    return msgspec.json.format(msgspec.json.encode(file), indent=1) + b"\n"


def length_class(length: int) -> str:
    """The class of a length: "≤1k" for more than 256 and up to 1024. Which tile is best may differ from class to class, less within one."""
    return next((LENGTHS[limit] for limit in sorted(LENGTHS) if length <= limit), LONGEST)


def power_of_two(number: int) -> int:
    """The smallest power of two that is as large: sizes of matrices are classed so."""
    return 1 << (number - 1).bit_length()


@lru_cache(maxsize=1)
def triton_version() -> str:
    """Major and minor of the Triton that is installed: "3.7"; "0.0", for which nothing is stored, where there is none."""
    try:
        return ".".join(importlib.metadata.version("triton").split(".")[:2])
    except importlib.metadata.PackageNotFoundError:
        return "0.0"


def architecture(capability: tuple[int, int]) -> str:
    """ "sm_90"."""
    return f"sm_{capability[0]}{capability[1]}"
