"""Several runs side by side: which cases are the same, whose number is whose, and what differs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pandas as pd
import pytest

from kerneldyno.bench.entries import Extended, Measured
from kerneldyno.bench.journal import Journal, MismatchError, RunFolderError, read
from kerneldyno.bench.records import Case
from kerneldyno.reports import frame, together, together_facts, together_tables, together_text

from . import together_runs as runs

Make = Callable[..., Path]
NAMES = ("sdpa", "eager", "onnxrt")
SPEEDS = {"sdpa": 1.0, "eager": 3.0, "onnxrt": 0.8, "int8": 0.5}


def usual(case: Case, place: int) -> float:
    return SPEEDS.get(case.kernel.partition("/")[2], 4.0)


@pytest.fixture
def make(tmp_path: Path, made: SimpleNamespace, rich_folder: Path) -> Make:
    """Writes a run: its name, its cases (by default three kernels at three shapes), its times, its environment."""

    def written(name: str, cases: list[Case] | None = None, times: runs.Times = usual, **others: object) -> Path:
        return runs.write(tmp_path / name, made, rich_folder, cases or grid(made), times, **others)

    return written


def grid(made: SimpleNamespace, shapes: slice = slice(0, 3), names: tuple[str, ...] = NAMES, **fields: object) -> list[Case]:
    return [
        msgspec.structs.replace(made.case("attention", name, problem), **fields) for problem in made.attention[shapes] for name in names
    ]


def test_cases_are_joined_by_kernel_and_problem_whatever_device_and_seed(make: Make, made: SimpleNamespace) -> None:
    one = make("one")
    other = make("other", grid(made, device="cuda:0", seed=7), day=11, device="cuda:0", device_name="H200")
    found = together.read([other, one])
    assert [(member.letter, member.name) for member in found.members] == [("A", "one"), ("B", "other")]
    assert len(found.cases) == 9
    assert len(found.shared) == 3
    assert len(found.frame) == 18
    assert found.frame.groupby("same_kernel_and_problem")["letter"].apply(list).tolist() == [["A", "B"]] * 9


def test_no_number_is_made_of_two_runs(make: Make) -> None:
    folders = [make("one"), make("other", times=lambda case, place: 2 * usual(case, place), day=11)]
    found = together.read(folders)
    for letter, folder in zip("AB", folders, strict=True):
        own = found.frame[found.frame["letter"] == letter].set_index("case")
        alone = frame.load(folder).results.set_index("case")
        for column in ("latency_s", "latency_low_s", "speedup", "speedup_low", "share_of_limit"):
            pd.testing.assert_series_equal(own.loc[alone.index, column], alone[column])
    case = next(iter(found.cases))
    one, other = (found.row(member, case)["latency_s"] for member in found.members)
    assert together_tables.ratio(found, case) == pytest.approx(one / other)


def test_a_case_of_one_run_only_says_so(make: Make, made: SimpleNamespace) -> None:
    found = together.read([make("one"), make("other", grid(made, slice(1, 4)), day=11)])
    assert len(found.shared) == 2
    absent = found.frame[found.frame["reason"] == together.NOT_PLANNED]
    assert sorted(absent["letter"]) == ["A"] * 3 + ["B"] * 3
    assert absent["latency_s"].isna().all()
    assert [(having, lacking) for _, having, lacking, _ in together_text.partial(found)] == [("A", "B"), ("B", "A")]
    boards = together_tables.boards(found)
    assert sum(board.grid.width for board in boards) == 2


def test_a_run_given_twice_or_copied_counts_once(make: Make, tmp_path: Path) -> None:
    one, other = make("one"), make("other", day=11)
    copy = shutil.copytree(one, tmp_path / "copies" / "one")
    found = together.read([one, one, other, copy])
    assert [member.name for member in found.members] == ["one", "other"]
    assert "is a copy of the run one" in found.left_out[0].sentence
    with pytest.raises(RunFolderError, match="there is only one run, one"):
        together.read([one, one])


def test_runs_of_one_name_are_numbered(make: Make) -> None:
    folders = [make("zen/default"), make("laptop/default", day=11), make("default (1)", day=12)]
    names = [member.name for member in together.read(folders).members]
    assert names == ["default (1)", "default (2)", "default (1) (1)"]


def test_runs_without_a_common_problem_do_not_fit_together(make: Make, made: SimpleNamespace) -> None:
    with pytest.raises(MismatchError, match=r"no problem is in two of these runs \(one, other\)") as refused:
        together.read([make("one", grid(made, slice(0, 1))), make("other", grid(made, slice(1, 2)), day=11)])
    assert refused.value.exit_code == 3


def test_too_many_runs_are_refused(make: Make, made: SimpleNamespace, tmp_path: Path) -> None:
    for number in range(together.MOST + 1):
        make(f"runs/{number:02}", grid(made, slice(0, 1), ("sdpa",)), day=1 + number)
    with pytest.raises(RunFolderError, match="13 runs are too many"):
        together.read([tmp_path / "runs"])


def test_differing_facts_are_told_field_by_field(make: Make) -> None:
    found = together.read([make("one"), make("other", day=11, protocol="smoke", **runs.LAPTOP)])
    facts = together_facts.facts([member.run for member in found.members])
    differing = {fact.name: fact.values for fact in facts if fact.differs}
    assert differing["device name"] == ["AMD EPYC 9R14", "Laptop <i>i7</i>"]
    assert differing["torch"] == ["2.13.0", "2.14.0"]
    assert differing["onnxruntime"] == ["1.30.0", "–"]
    assert differing["instruction sets besides the 1 that all have"] == ["avx512_vnni", "none besides"]
    assert differing["protocol"] == ["default", "smoke"]
    equal = {fact.name for fact in facts if not fact.differs}
    assert {"threads used", "Python", "seed", "protocol: samples at least", "measured copy rate", "MALLOC_TRIM_THRESHOLD_"} <= equal
    assert [fact.differs for fact in facts] == sorted((fact.differs for fact in facts), reverse=True)


def test_kernels_of_other_source_and_other_baselines_are_told(make: Make, made: SimpleNamespace) -> None:
    cases = [msgspec.structs.replace(case, baseline="attention/eager") for case in grid(made)]
    one = make("one", sources={"attention/sdpa": "a", "attention/eager": "b"})
    other = make("other", cases, day=11, sources={"attention/sdpa": "c", "attention/eager": "b"})
    said = " ".join(together_text.notes(together.read([one, other])))
    assert "the source of 1 kernel is not the same in all runs that have it: attention/sdpa" in said
    assert "at 3 shapes the runs have different baselines" in said
    assert "is not a verdict" in said


def test_the_headline_names_who_is_fastest_where(make: Make) -> None:
    slow = {"onnxrt": 1.7}
    same, differing = make("same", day=11), make("else", times=lambda case, place: slow.get(case.kernel[10:], usual(case, place)), day=12)
    one = make("one")
    assert together_text.headline(together.read([one, same])) == (
        "Fastest, ties included, at the 3 shapes that both runs planned: for attention, onnxrt in both runs (3 of 3 shapes)."
    )
    found = together.read([one, same, differing])
    assert together_text.headline(found) == (
        "Fastest, ties included, at the 3 shapes that two runs or more planned: "
        "for attention, onnxrt in A and B (3 of 3 shapes), sdpa in C (3 of 3 shapes)."
    )
    assert "at 0 of 3 shapes" in together_text.takeaway(found, "attention")
    assert together_text.led(found, found.members[2], "attention") == "sdpa 3 of 3"


def add(folder: Path, made: SimpleNamespace, cases: list[Case]) -> Path:
    """Have a run add cases to its plan."""
    with Journal.resume(folder, read(folder).manifest) as journal:
        journal.append(Extended(cases))
        for number, case in enumerate(cases):
            journal.append(Measured(made.measured(case, usual(case, number), 50 + number)))
    return folder


def between(made: SimpleNamespace, *lengths: int) -> list[Case]:
    problems = [made.attention[0] | {"q_len": length, "kv_len": length} for length in lengths]
    return [made.case("attention", name, problem) for problem in problems for name in ("sdpa", "onnxrt")]


def test_lengths_that_were_added_are_shown_and_nobody_wins_there(make: Make, made: SimpleNamespace) -> None:
    added = between(made, 192, 256, 320, 384)
    found = together.read([add(make("one"), made, added), add(make("other", day=11), made, added)])
    assert (len(found.shared), len(found.contested)) == (7, 3)
    assert together_text.headline(found) == (
        "Fastest, ties included, at the 3 shapes that both runs planned: for attention, onnxrt in both runs (3 of 3 shapes)."
    )
    assert together_text.led(found, found.members[0], "attention") == "onnxrt 3 of 3"
    assert "at 3 of 3 shapes" in together_text.takeaway(found, "attention")
    assert sum(board.grid.width for board in together_tables.boards(found)) == 7


def test_a_length_that_one_run_planned_and_another_added_counts_for_neither(make: Make, made: SimpleNamespace) -> None:
    one = make("one", [*grid(made, slice(0, 1)), *between(made, 256)])
    other = add(make("other", grid(made, slice(0, 1)), day=11), made, between(made, 256))
    found = together.read([one, other])
    assert (len(found.shared), len(found.contested)) == (2, 1)
    assert (
        "Fastest, ties included, at the 1 shape that both runs planned: for attention, onnxrt in both runs (1 of 1 shape)"
        in together_text.headline(found)
    )


def test_runs_that_share_added_lengths_alone_have_no_fastest_kernel(make: Make, made: SimpleNamespace) -> None:
    one = add(make("one", grid(made, slice(0, 1))), made, between(made, 256))
    other = add(make("other", grid(made, slice(1, 2)), day=11), made, between(made, 256))
    found = together.read([one, other])
    assert together_text.headline(found).startswith("No two runs planned the same shape: ")
    assert together_text.led(found, found.members[0], "attention") == "shares only lengths that were added"
    assert together_text.takeaway(found, "attention") == "No shape has a fastest exact kernel in two runs."


def test_kernels_that_one_run_lacks_are_told_and_ties_count_for_both(make: Make, made: SimpleNamespace) -> None:
    tied = {"sdpa": 1.0, "onnxrt": 1.003}
    one = make("one", times=lambda case, place: tied.get(case.kernel[10:], 3.0))
    other = make("other", grid(made, names=("sdpa", "onnxrt")), day=11)
    found = together.read([one, other])
    assert found.lacking == {"attention/eager": "B"}
    assert "attention/eager (lacking in B)" in " ".join(together_text.notes(found))
    assert {frozenset(first["A"]) for first in found.fastest.values()} == {frozenset({"attention/sdpa", "attention/onnxrt"})}
    assert "is fastest, or ties, in both runs at 3 of 3 shapes" in together_text.takeaway(found, "attention")
    assert together_text.led(found, found.members[0], "attention").endswith("of 3, 3 too close to call")
    assert together_text.led(found, found.members[1], "attention") == "onnxrt 3 of 3"


def test_a_cell_has_a_line_for_each_run_and_its_own_winner(make: Make) -> None:
    def odd(case: Case, place: int) -> float | str:
        return "error ratio 9" if case.kernel.endswith("eager") and place < 3 else {"sdpa": 1.0, "onnxrt": 1.7}.get(case.kernel[10:], 3.0)

    found = together.read([make("one"), make("other", times=odd, day=11)])
    (board,) = together_tables.boards(found)
    stacks = dict(board.exact)
    signs = {kernel: [[line.cell.sign for line in stack.lines] for stack in own if stack] for kernel, own in stacks.items()}
    assert signs["attention/onnxrt"] == [["★", ""]] * 3
    assert signs["attention/sdpa"] == [["", "★"]] * 3
    wrong = [stack.lines[1] for stack in stacks["attention/eager"] if stack and stack.lines[1].cell.state == "wrong"]
    reasons = {id_: reason for id_, _, reason, _ in together_tables.numberless(found)}
    assert [reasons[line.reason] for line in wrong] == ["error ratio 9"]


def test_kernels_without_any_number_leave_the_grid(make: Make, made: SimpleNamespace) -> None:
    def lacking(case: Case, place: int) -> float | str:
        return "never right" if case.kernel.endswith("eager") else usual(case, place)

    found = together.read([make("one", times=lacking), make("other", times=lacking, day=11)])
    (board,) = together_tables.boards(found)
    assert board.empty == ["attention/eager"]
    assert [kernel for kernel, _ in board.exact] == ["attention/onnxrt", "attention/sdpa"]
    ((_, status, reason, own),) = together_tables.numberless(found)
    assert (status, reason, len(own)) == ("wrong", "never right", 6)
    assert [letters for _, letters in together_tables.grouped(own)] == ["A, B"] * 3


def test_what_cannot_be_read_is_left_out_with_a_sentence(make: Make, tmp_path: Path) -> None:
    folders = [make("one"), make("other", day=11), make("broken", day=12)]
    (folders[2] / "manifest.json").write_text("{")
    found = together.read([*folders, tmp_path / "nowhere"])
    assert len(found.members) == 2
    said = " ".join(folder.sentence for folder in found.left_out)
    assert "broken" in said
    assert "nowhere does not exist" in said
