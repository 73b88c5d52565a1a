"""Stored choices: what is written is read again, what is damaged says so, and a kernel's hash follows them."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerneldyno.kernels import _tuned as tuned
from kerneldyno.kernels import registry
from kerneldyno.kernels._tuned import Chosen, Entry, Evidence, Key, Pin, TunedError
from kerneldyno.kernels.attention import _backward_tiles, _decode_splits, _prefill_tiles, _tuned_code
from kerneldyno.kernels.feedforward import _fused_tiles, _fused_tuning


@dataclass(frozen=True)
class Tile:
    bt: int
    stages: int
    ahead: bool = False

    def __post_init__(self) -> None:
        if self.bt & (self.bt - 1):
            raise ValueError(f"bt {self.bt} is impossible: give a power of two")

    def __str__(self) -> str:
        return f"{self.bt} s{self.stages}"


DEFAULT = Tile(64, 2)
KEY = Key(function="f", architecture="sm_90", triton="3.7", dtype="float16", size="head_dim 64", causal=True, length="≤1k")
EVIDENCE = Evidence(
    gpu="a card", multiprocessors=132, triton="3.7.1", torch="2.13", date="2026-11-28", commit="abc", problem="1x2", default="64 s2",
    default_s=(2.0, 1.9, 2.1), choice_s=(1.0, 0.9, 1.1), speedup=(2.0, 1.9, 2.1), required="above 1", processes=5, candidates=9,
    pruned=3, wrong=1,
)  # fmt: skip


def store(folder: Path, choice: dict[str, Any], key: Key = KEY) -> Path:
    path = folder / f"{key.architecture}.json"
    path.write_bytes(tuned.written({key: Entry(key=key, choice=choice, evidence=EVIDENCE)}, key.architecture))
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(tuned.PLACE, str(tmp_path))
    return tmp_path


def test_what_nobody_measured_takes_the_default(folder: Path) -> None:
    assert tuned.choose(KEY, DEFAULT) == Chosen(DEFAULT, "default")
    store(folder, {"bt": 128, "stages": 3})
    for other in (
        {"length": "≤4k"},
        {"causal": False},
        {"dtype": "bfloat16"},
        {"triton": "3.6"},
        {"traits": "bias"},
        {"architecture": "sm_80"},
    ):
        assert tuned.choose(msgspec.structs.replace(KEY, **other), DEFAULT).origin == "default", other


def test_what_was_measured_is_taken_and_says_so(folder: Path) -> None:
    store(folder, {"bt": 128, "stages": 3, "ahead": True})
    chosen = tuned.choose(KEY, DEFAULT)
    assert chosen == Chosen(Tile(128, 3, ahead=True), "tuned")
    assert str(chosen) == "128 s3, tuned"
    store(folder, {"bt": 32, "stages": 3})
    assert tuned.choose(KEY, DEFAULT).value.bt == 32  # a file that changed is read again


def test_the_packages_own_files_can_all_be_read() -> None:
    for path in tuned.SHIPPED.glob("*.json"):
        assert tuned.read(path), path


@pytest.mark.parametrize(
    ("choice", "sentence"),
    [
        ({"bt": 100, "stages": 2}, "bt 100 is impossible: give a power of two; tune again, or remove the entry"),
        ({"bt": 64}, "the tile lacks its field 'stages'"),
        ({"bt": 64, "stages": 2, "colour": 1}, "the tile has no field 'colour': it has bt, stages, ahead"),
        ({"bt": True, "stages": 2}, "bt True is not of type int"),
        ({"bt": 64, "stages": 2, "ahead": 1}, "ahead 1 is not of type bool"),
    ],
)
def test_an_impossible_tile_is_no_silent_default(folder: Path, choice: dict[str, Any], sentence: str) -> None:
    store(folder, choice)
    with pytest.raises(TunedError) as caught:
        tuned.choose(KEY, DEFAULT)
    assert str(caught.value).startswith("sm_90.json, f sm_90 float16 head_dim 64 ≤1k causal: ")
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda text: text[:-40], "is damaged"),
        (lambda text: b"\xff" + text, "is damaged"),
        (lambda text: b"", "is damaged"),
        (lambda text: text.replace(b'"schema": 1', b'"schema": 2'), "is damaged"),
        (lambda text: text.replace(b'"triton": "3.7"', b'"triton": "new"'), "is damaged"),
        (lambda text: text.replace(b'"stages": 3', b'"stages": 3.5'), "is damaged"),
        (lambda text: text.replace(b'"causal"', b'"casual"'), "is damaged"),
        (lambda text: text.replace(b"sm_90", b"sm_80"), "says that it is for sm_80"),
        (lambda text: text.replace(b"sm_90", b"sm_80", 2).replace(b"sm_80", b"sm_90", 1), "holds a choice for sm_80"),
        (lambda text: json.dumps({**(made := json.loads(text)), "entries": made["entries"] * 2}).encode(), "holds two choices for f sm_90"),
    ],
)
def test_a_damaged_file_says_what_and_what_to_do(folder: Path, damage: Any, sentence: str) -> None:
    path = store(folder, {"bt": 128, "stages": 3})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(TunedError, match=r"^sm_90.json: .*(tune again into a new file, or remove this one)") as caught:
        tuned.choose(KEY, DEFAULT)
    assert sentence in str(caught.value)


words = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12)
keys = st.builds(
    Key,
    function=words,
    architecture=st.just("sm_90"),
    triton=st.from_regex(r"[0-9]{1,2}\.[0-9]{1,2}", fullmatch=True),
    dtype=words,
    size=words,
    causal=st.booleans(),
    length=words,
    traits=st.text(st.characters(exclude_categories=("Cs",)), max_size=9),
)
choices = st.dictionaries(words, st.booleans() | st.integers(-(2**62), 2**62), max_size=5)


@given(st.dictionaries(keys, choices, max_size=6))
def test_a_book_survives_being_written(found: dict[Key, dict[str, Any]]) -> None:
    entries = {key: Entry(key=key, choice=choice, evidence=EVIDENCE) for key, choice in found.items()}
    text = tuned.written(entries, "sm_90")
    assert tuned.parsed(text, "sm_90.json") == entries
    assert tuned.written(dict(reversed(entries.items())), "sm_90") == text  # sorted, whatever the order


@given(st.data())
def test_no_damage_is_taken_for_something_else(data: st.DataObject) -> None:
    """Either the text still says something whole, or there is one sentence."""
    text = tuned.written({KEY: Entry(key=KEY, choice={"bt": 64, "stages": 2}, evidence=EVIDENCE)}, "sm_90")
    place = data.draw(st.integers(0, len(text) - 1))
    hurt = text[:place] + data.draw(st.binary(max_size=3)) + text[place + data.draw(st.integers(0, 4)) :]
    with suppress(TunedError):
        found = tuned.parsed(hurt, "sm_90.json")
        assert tuned.parsed(tuned.written(found, "sm_90"), "sm_90.json") == found


@pytest.mark.parametrize(("length", "name"), [(1, "≤16"), (16, "≤16"), (17, "≤256"), (1024, "≤1k"), (4097, "≤16k"), (16385, ">16k")])
def test_classes_of_lengths(length: int, name: str) -> None:
    assert tuned.length_class(length) == name


def test_a_candidate_is_built_whatever_is_stored(folder: Path) -> None:
    store(folder, {"bt": 128, "stages": 3})
    pin = Pin.of(KEY, Tile(16, 1))
    with tuned.pinned([pin]):
        assert tuned.choose(msgspec.structs.replace(KEY, length=">16k"), DEFAULT) == Chosen(Tile(16, 1), "tried")
        assert tuned.choose(msgspec.structs.replace(KEY, size="head_dim 80"), DEFAULT) == Chosen(DEFAULT, "default")
    with tuned.pinned([]):
        assert tuned.choose(KEY, DEFAULT).origin == "default"
    assert tuned.choose(KEY, DEFAULT).origin == "tuned"


@pytest.mark.parametrize(
    ("forms_of", "tile", "key"),
    [
        (_tuned_code.prefill, _prefill_tiles.Tile(64, 32, 4, 2), {"function": "prefill_kernel", "causal": False, "traits": "few tiles"}),
        (_tuned_code.decode, _decode_splits.Tile(16, 32, 4, 2), {"function": "split_kernel", "traits": "16 rows"}),
        (_tuned_code.backward, _backward_tiles.Tile(32, 64, 4, 2), {"function": "keys_kernel", "causal": False, "traits": "burdened"}),
        (_fused_tuning.stored, _fused_tiles.Tiles(64, 64, 32, 4, 4), {"function": "linear_kernel", "size": "4096→16384 gated"}),
    ],
)
def test_what_was_tuned_is_among_the_forms_that_may_be_launched(folder: Path, forms_of: Any, tile: Any, key: dict[str, Any]) -> None:
    """So that `kerneldyno codegen` compiles it, too."""
    assert list(forms_of((9, 0))) == []
    store(folder, tuned.stored(tile), msgspec.structs.replace(KEY, **key, triton=tuned.triton_version()))
    forms = list(forms_of((9, 0)))
    assert forms
    offered = [
        form for kernel in registry.load(declarations_only=True).values() if kernel.device_code for form in kernel.device_code((9, 0))
    ]
    assert all(form in offered for form in forms)
    assert {(form.name, form.tile, form.dtype, form.capability) for form in forms} == {(key["function"], str(tile), "float16", (9, 0))}
    assert all("tuned for ≤1k" in form.variant for form in forms)
    assert list(forms_of((8, 0))) == []
    store(folder, tuned.stored(tile), msgspec.structs.replace(KEY, **key, triton="1.0"))  # another Triton's: it would not be taken
    assert list(forms_of((9, 0))) == []


def test_a_kernels_hash_follows_what_was_tuned(folder: Path) -> None:
    kernels = registry.load(declarations_only=True)
    plain = kernels["attention/eager"]
    tunable = replace(plain, tuning=lambda problem, card: ())
    layer = kernels["layer/fused"]
    before = [kernel.source_hash for kernel in (plain, tunable, layer)]
    store(folder, {"bt": 128, "stages": 3})
    after = [kernel.source_hash for kernel in (plain, tunable, layer)]
    assert after[0] == before[0]
    assert after[1] != before[1]
    assert after[2] != before[2]
