"""Variants of a problem in words, and the grid of kernels and shapes."""

from __future__ import annotations

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from kerneldyno.bench.journal import Run
from kerneldyno.reports import frame, shapes


def test_variants_are_named_by_what_differs(made: SimpleNamespace) -> None:
    found = shapes.variants([made.case("attention", "sdpa", problem) for problem in made.attention])
    named, common = shapes.titles(found.values())
    assert list(named.values()) == ["fp32", "causal · fp32", "kv_heads 2 · q_len 1 · fp32", "bf16"]
    assert common == "heads 8 · head_dim 64 · cpu"


def test_lengths_along_the_sequence_axis_make_no_variant(made: SimpleNamespace) -> None:
    one, other = (made.case("attention", "sdpa", made.attention[index]) for index in (0, 2))
    found = shapes.variants([one, other])
    assert found[one.id] == found[other.id]
    assert shapes.titles(found.values()) == ({found[one.id]: "plain"}, "heads 8 · head_dim 64 · fp32 · cpu")


def test_layers_of_a_model_are_variants_by_their_names(made: SimpleNamespace) -> None:
    cases = [made.case("attention", "sdpa", made.attention[0] | {"given": f"bert-tiny/{layer}@0123456789ab"}) for layer in (0, 3)]
    named, _ = shapes.titles(shapes.variants(cases).values())
    assert list(named.values()) == ["bert-tiny layer 0", "bert-tiny layer 3"]


def test_every_case_has_its_cell(rich: Run) -> None:
    rows = frame.rows(frame.results(rich))
    grids = shapes.grids(rows, shapes.variants(rich.manifest.cases))
    assert sorted(row["case"] for grid in grids for row in grid.cells.values()) == sorted(case.id for case in rich.manifest.cases)
    assert [grid.operator for grid in grids] == ["attention", "feedforward", "layer"]
    assert [grid.width for grid in grids] == [8, 5, 5]
    assert all(columns.shapes == sorted(columns.shapes) for grid in grids for columns in grid.columns)


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from([16, 64, 128]), st.sampled_from(["float32", "bfloat16"])), min_size=1, max_size=12)
)
def test_titles_of_different_variants_differ(fields: list[tuple[bool, int, str]]) -> None:
    found = [shapes.Variant("attention", "cpu", dtype, (("causal", causal), ("head_dim", size))) for causal, size, dtype in fields]
    named, _ = shapes.titles(found)
    assert len(set(named.values())) == len(set(found)) == len(named)


def test_wide_sweeps_become_several_tables(made: SimpleNamespace) -> None:
    cases = [
        made.case("attention", "sdpa", made.attention[0] | {"head_dim": size, "q_len": length, "kv_len": length})
        for size in (64, 128, 256)
        for length in (128, 256, 512, 1024, 2048)
    ]
    rows = [
        {"operator": "attention", "case": case.id, "kernel": case.kernel, "batch": case.batch, "seq_len": case.seq_len} for case in cases
    ]
    grids = shapes.grids(rows, shapes.variants(cases))
    assert [grid.width for grid in grids] == [10, 5]
    assert [columns.title for grid in grids for columns in grid.columns] == ["head_dim 64", "head_dim 128", "head_dim 256"]
