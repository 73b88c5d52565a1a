"""What a run folder took is never lost, never changed silently and never mixed, whatever happens to the writer or the disk."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import zlib
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerneldyno.bench import _journal_lines as lines
from kerneldyno.bench import journal
from kerneldyno.bench.entries import Attempt, CeilingsFound, Extended, GroupDone, Measured, Record, Session, SessionEnd
from kerneldyno.bench.journal import (
    CorruptRunError,
    DiskFullError,
    Journal,
    JournalError,
    MismatchError,
    RunFolderError,
    UnstorableError,
)
from kerneldyno.bench.manifest import PROTOCOLS, SCHEMA_VERSION, Environment, Manifest, Settings
from kerneldyno.bench.records import Case, Ceilings, Errors, Measurement, Process

if TYPE_CHECKING:
    from pathlib import Path

MACHINE = Environment(
    device="cpu", device_name="Some CPU", os="Linux", python="3.11.7", versions={"torch": "2.13.0"}, cpu_name="Some CPU",
    cpu_cores=2, cpu_features=("avx2",), memory_bytes=1 << 34, threads=2,
)  # fmt: skip


def case(kernel: str) -> Case:
    return Case(
        kernel=f"attention/{kernel}", family=kernel, operator="attention", problem={"batch": 1, "q_len": 128}, label="1x8x128x64", batch=1,
        seq_len=128, tokens=128, dtype="float32", direction="forward", device="cpu", seed=0, flops=1000, min_bytes=100, approximate=False,
        baseline="attention/sdpa",
    )  # fmt: skip


CASES = [case("eager"), case("sdpa"), case("flex")]
MANIFEST = Manifest(
    version="0.1.0", created="2025-01-01T00:00:00+00:00", settings=Settings(protocol=PROTOCOLS["smoke"]), environment=MACHINE, cases=CASES,
    sources={case.kernel: "0123abcd" for case in CASES},
)  # fmt: skip
BEGIN = Session(started="2025-01-01T00:00:00+00:00")


def measured(index: int, **changes: object) -> Measured:
    samples = [1e-3 + index * 1e-9, 1.1e-3]
    fields = {"case": CASES[index % 3].id, "status": "ok", "processes": [Process(samples_s=samples, rounds=[0, 1])], **changes}
    return Measured(Measurement(**fields))


STORY: list[Record] = [
    BEGIN,
    CeilingsFound(Ceilings(matmul_flops_per_s={"float32": 1e11}, copy_bytes_per_s=2e10)),
    Attempt(case=CASES[0].id, phase="build"),
    measured(0),
    Attempt(case=CASES[1].id, phase="build"),
    measured(1, status="failed", reason="naïve – ein Satz\nmit Zeilenumbruch"),
    GroupDone(group="g", wall_s=2.5, phases_s={"build": 1.0}),
    Extended([case("compiled")]),
    SessionEnd(reason="finished", wall_s=3.0),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


def written(folder: Path, story: list[Record] = STORY) -> bytes:
    """The bytes of the journal of a run with these records."""
    with Journal.create(folder, MANIFEST) as book:
        for record in story:
            book.append(record)
    return (folder / "journal.jsonl").read_bytes()


def records_in(folder: Path) -> list[Record]:
    found = lines.scan((folder / "journal.jsonl").read_bytes())
    assert not found.faults
    return found.records


# ---------------------------------------------------------------- what goes in comes out


def strategy(info: msgspec.inspect.Type) -> st.SearchStrategy[object]:  # noqa: C901
    """Any value of a type that records consist of."""
    match info:
        case msgspec.inspect.FloatType():
            return st.floats(allow_nan=False, allow_infinity=False)
        case msgspec.inspect.IntType():
            return st.integers(-(2**63), 2**63 - 1)
        case msgspec.inspect.BoolType():
            return st.booleans()
        case msgspec.inspect.StrType():
            return st.text(max_size=12)
        case msgspec.inspect.NoneType():
            return st.none()
        case msgspec.inspect.AnyType():
            return st.one_of(st.none(), st.booleans(), st.integers(0, 9), st.text(max_size=3), st.floats(0, 1))
        case msgspec.inspect.LiteralType(values=values):
            return st.sampled_from(values)
        case msgspec.inspect.UnionType(types=types):
            return st.one_of(*map(strategy, types))
        case msgspec.inspect.ListType(item_type=item):
            return st.lists(strategy(item), max_size=4)
        case msgspec.inspect.VarTupleType(item_type=item):
            return st.lists(strategy(item), max_size=3).map(tuple)
        case msgspec.inspect.DictType(value_type=value):
            return st.dictionaries(st.text(max_size=5), strategy(value), max_size=3)
        case msgspec.inspect.StructType(cls=cls, fields=fields):
            return st.builds(cls, **{field.name: strategy(field.type) for field in fields})
        case _:
            raise NotImplementedError(info)


@given(st.lists(strategy(msgspec.inspect.type_info(Record)), max_size=4))
def test_every_record_that_can_be_built_comes_back_as_it_was(records: list[Record]) -> None:
    found = lines.scan(b"".join(map(lines.encoded, records)))
    assert found.records == records
    assert not found.faults
    assert not found.torn_bytes


def test_a_run_folder_holds_what_was_appended(folder: Path) -> None:
    data = written(folder)
    run = journal.read(folder)
    assert run.folder == "run"
    assert run.manifest == MANIFEST
    assert run.measurements == {record.measurement.case: record.measurement for record in STORY if isinstance(record, Measured)}
    assert run.ceilings == STORY[1].ceilings
    assert run.groups == [STORY[6]]
    assert (run.sessions, run.ended, run.suspects) == (1, STORY[-1], {})
    assert sorted(path.name for path in folder.iterdir()) == ["journal.jsonl", "manifest.json"]
    first = json.loads(data.splitlines()[0])
    assert first["record"] == {"type": "session", "started": BEGIN.started}
    assert int(first["crc"], 16) == zlib.crc32(json.dumps(first["record"], separators=(",", ":")).encode())


def test_the_open_journal_knows_what_a_reader_would_find(folder: Path) -> None:
    with Journal.create(folder, MANIFEST) as book:
        assert book.run == journal.read(folder)
        for record in STORY:
            book.append(record)
            assert book.run == journal.read(folder)  # at once, and while it is being written


def test_of_two_measurements_of_a_case_the_last_counts(folder: Path) -> None:
    written(folder, [BEGIN, measured(0, status="failed", reason="first"), measured(0)])
    assert journal.read(folder).measurements[CASES[0].id].status == "ok"


def test_a_run_that_was_killed_before_its_first_record_is_a_run(folder: Path) -> None:
    written(folder, [])
    (folder / "journal.jsonl").unlink()
    assert journal.read(folder).sessions == 0
    with Journal.resume(folder, MANIFEST) as book:
        book.append(BEGIN)
    assert journal.read(folder).sessions == 1


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (measured(0, processes=[Process(samples_s=[1.0, float("nan")], rounds=[0, 1])]), r"processes\[0\]\.samples_s\[1\] is nan"),
        (measured(0, errors=Errors(max_ratio=float("inf"), rms_ratio=1.0, max_abs=0.0, relative_rms=0.0)), r"errors\.max_ratio is inf"),
        (measured(0, stderr_tail="caf\udce9"), "no character"),
    ],
)
def test_what_json_cannot_hold_is_refused_and_nothing_is_written(folder: Path, record: Record, words: str) -> None:
    before = written(folder)
    with Journal.resume(folder, MANIFEST) as book:
        with pytest.raises(UnstorableError, match=words):
            book.append(record)
        assert (folder / "journal.jsonl").read_bytes() == before
        book.append(measured(2))
    assert len(records_in(folder)) == len(STORY) + 1


# ---------------------------------------------------------------- where a run may begin, and go on


def test_a_folder_with_a_run_is_not_begun_again(folder: Path) -> None:
    before = written(folder)
    with pytest.raises(RunFolderError, match=rf"--out {folder} holds a run already: give another folder, or --resume {folder}") as error:
        Journal.create(folder, MANIFEST)
    assert error.value.exit_code == 2
    assert (folder / "journal.jsonl").read_bytes() == before


def test_a_folder_with_other_things_is_left_alone(folder: Path) -> None:
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(RunFolderError, match=r"is not empty \(it holds notes.txt\): give a folder that is new or empty"):
        Journal.create(folder, MANIFEST)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_an_empty_folder_and_the_rest_of_a_killed_start_are_no_obstacle(folder: Path) -> None:
    folder.mkdir()
    (folder / "manifest.json.part").write_text('{"sch')
    written(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["journal.jsonl", "manifest.json"]


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match=r"file is a file: give a folder"):
        Journal.create(tmp_path / "file", MANIFEST)
    with pytest.raises(RunFolderError, match="Not a directory: give a folder that can be read and written"):
        Journal.create(tmp_path / "file" / "run", MANIFEST)
    with pytest.raises(RunFolderError, match=r"holds no run \(no manifest\.json\)"):
        journal.read(tmp_path / "file")


@pytest.mark.parametrize("use", [journal.read, journal.salvage, lambda folder: Journal.resume(folder, MANIFEST)])
def test_a_folder_without_a_run_is_said_to_be_that(use, folder: Path) -> None:
    with pytest.raises(RunFolderError, match=r"holds no run \(no manifest\.json\): give the folder that a run was written to"):
        use(folder)
    assert not folder.exists()


def test_a_run_of_a_newer_version_is_refused(folder: Path) -> None:
    written(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest |= {"schema": SCHEMA_VERSION + 1, "settings": "in a form of its own"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RunFolderError, match=rf"newer kerneldyno \(schema {SCHEMA_VERSION + 1}, .*upgrade kerneldyno"):
        journal.read(folder)


def test_a_damaged_manifest_is_said_to_be_that(folder: Path) -> None:
    written(folder)
    (folder / "manifest.json").write_bytes((folder / "manifest.json").read_bytes()[:-40])
    with pytest.raises(CorruptRunError, match=r"manifest\.json in .* is damaged") as error:
        journal.read(folder)
    assert error.value.exit_code == 2


def test_a_run_is_not_continued_with_something_else(folder: Path) -> None:
    before = written(folder)
    settings = msgspec.structs.replace(MANIFEST.settings, protocol=PROTOCOLS["full"])
    other = msgspec.structs.replace(MANIFEST, settings=settings, sources={**MANIFEST.sources, "attention/flex": "ffff"})
    with pytest.raises(MismatchError) as error:
        Journal.resume(folder, other)
    assert str(error.value) == (
        f"--resume {folder} was begun differently (protocol: smoke there, full here; the source of kernel attention/flex has changed): "
        "resume it as it was begun, or begin anew with --out and another folder"
    )
    assert error.value.exit_code == 3
    assert (folder / "journal.jsonl").read_bytes() == before


def test_of_very_many_differences_a_few_are_told(folder: Path) -> None:
    written(folder)
    stored, current = (msgspec.structs.replace(MANIFEST, sources=dict.fromkeys("abcdef", content)) for content in "01")
    (folder / "manifest.json").write_bytes(msgspec.json.encode(stored))
    with pytest.raises(MismatchError, match=r"kernel d has changed; and 2 more\)"):
        Journal.resume(folder, current)


def test_cases_that_were_added_belong_to_the_run_and_the_manifest_stays(folder: Path) -> None:
    written(folder)
    manifest = (folder / "manifest.json").read_bytes()
    with Journal.resume(folder, MANIFEST) as book:  # what the same command would plan now lacks them, as it did then
        assert [one.kernel for one in book.run.added] == ["attention/compiled"]
        book.append(Extended([case("fused")]))
    run = journal.read(folder)
    assert run.cases == [*CASES, case("compiled"), case("fused")]
    assert run.manifest.cases == CASES
    assert (folder / "manifest.json").read_bytes() == manifest


def of_schema_1(folder: Path) -> bytes:
    """Turn a run into one of the version before cases could be added; the bytes of its manifest."""
    path = folder / "manifest.json"
    old = path.read_bytes().replace(b'"schema": %d' % SCHEMA_VERSION, b'"schema": 1').replace(b'"refine_crossovers": false,\n  ', b"")
    assert old.count(b'"schema": 1,') == 1
    assert b"refine" not in old
    path.write_bytes(old)
    return old


def test_before_cases_are_added_to_a_run_of_schema_1_its_manifest_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(folder, STORY[:6])
    old = of_schema_1(folder)
    with Journal.resume(folder, MANIFEST) as book:
        book.append(BEGIN)
        assert (folder / "manifest.json").read_bytes() == old  # what schema 1 knows changes nothing
        book.append(Extended([case("compiled")]))
        assert book.run.manifest.schema == SCHEMA_VERSION
        assert book.run == journal.read(folder)
    assert (folder / "manifest.json").read_bytes() == old.replace(b'"schema": 1', b'"schema": %d' % SCHEMA_VERSION)
    assert [path.name for path in sorted(folder.iterdir())] == ["journal.jsonl", "manifest.json"]
    before = (folder / "journal.jsonl").read_bytes()
    monkeypatch.setattr("kerneldyno.bench._run_folder.SCHEMA_VERSION", 1)  # what the version of before does with it
    for use in (journal.read, journal.salvage, lambda folder: Journal.resume(folder, MANIFEST)):
        with pytest.raises(RunFolderError, match=r"newer kerneldyno \(schema 2, this one knows 1\): upgrade kerneldyno"):
            use(folder)
    assert (folder / "journal.jsonl").read_bytes() == before


def test_where_the_schema_cannot_be_changed_nothing_is_added(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, path.name)

    before = written(folder, STORY[:6])
    old = of_schema_1(folder)
    with Journal.resume(folder, MANIFEST) as book:
        with monkeypatch.context() as patch:
            patch.setattr("kerneldyno.bench._run_folder.replace_file", full)
            with pytest.raises(DiskFullError, match="make room and resume the run"):
                book.append(Extended([case("compiled")]))
        assert (folder / "manifest.json").read_bytes() == old
        assert (folder / "journal.jsonl").read_bytes() == before
        book.append(Extended([case("compiled")]))
    assert journal.read(folder).added == [case("compiled")]


# ---------------------------------------------------------------- torn tails


def test_a_journal_that_was_torn_anywhere_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # a thousand times
    data = written(folder)
    path = folder / "journal.jsonl"
    late = measured(2)
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        whole = data[:length].count(b"\n")
        expected = journal.Run("run", MANIFEST)
        for record in STORY[:whole]:
            expected.note(record)
        assert journal.read(folder) == expected
        assert path.read_bytes() == data[:length]  # readers change nothing
        with Journal.resume(folder, MANIFEST) as book:
            assert book.run == expected
            book.append(late)
        assert records_in(folder) == [*STORY[:whole], late]


@pytest.mark.parametrize("tail", [b"\0" * 4096, b"\xff\xfe", b'{"crc":"00000000","record":', b"["])
def test_what_a_power_cut_leaves_behind_the_last_line_is_cut(folder: Path, tail: bytes) -> None:
    data = written(folder)
    (folder / "journal.jsonl").write_bytes(data + tail)
    assert journal.read(folder).measurements.keys() == {CASES[0].id, CASES[1].id}
    Journal.resume(folder, MANIFEST).close()
    assert (folder / "journal.jsonl").read_bytes() == data


WRITER = """
import sys
from pathlib import Path
import msgspec
from kerneldyno.bench.journal import Journal
from kerneldyno.bench.entries import Measured, Session
from kerneldyno.bench.manifest import Manifest
from kerneldyno.bench.records import Measurement, Process

folder, start, size = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
manifest = msgspec.json.decode(sys.stdin.buffer.read(), type=Manifest)
book = Journal.resume(folder, manifest) if folder.exists() else Journal.create(folder, manifest)
book.append(Session(started="now"))
print("ready", flush=True)
for index in range(start, start + 100_000):
    samples = [index + k / 1000 for k in range(size)]
    book.append(Measured(Measurement(case=str(index), status="ok", processes=[Process(samples_s=samples, rounds=list(range(size)))])))
    print(index, flush=True)
"""


def writer(folder: Path, start: int, size: int) -> subprocess.Popen[bytes]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    child = subprocess.Popen([sys.executable, "-c", WRITER, str(folder), str(start), str(size)], **pipes)
    child.stdin.write(msgspec.json.encode(MANIFEST))
    child.stdin.close()
    return child


def test_a_writer_killed_at_any_moment_loses_nothing_that_it_acknowledged(folder: Path) -> None:
    rng = random.Random(5)
    acknowledged: set[str] = set()
    for attempt in range(4):
        start = 100_000 * attempt
        with writer(folder, start, size=20_000) as child:  # 240 kB a record: the kill often falls into a write
            assert child.stdout.readline() == b"ready\n", child.stderr.read()
            for _ in range(rng.randrange(1, 6)):
                acknowledged.add(child.stdout.readline().decode().strip())
            try:
                child.wait(rng.uniform(0.0, 0.03))
            except subprocess.TimeoutExpired:
                child.send_signal(signal.SIGKILL)
            acknowledged |= set(child.stdout.read().decode().split())
        run = journal.read(folder)
        assert acknowledged <= run.measurements.keys()
        assert len(run.measurements.keys() - acknowledged) <= attempt + 1  # at most the one that was on its way, each time
        assert all(m.samples_s[:2] == [int(m.case), int(m.case) + 0.001] for m in run.measurements.values())
        assert run.sessions == attempt + 1
        assert run.ended is None


# ---------------------------------------------------------------- disk full, interrupted, disturbed


def test_a_full_disk_costs_the_record_that_did_not_fit_and_nothing_else(folder: Path) -> None:
    """A real limit on the file's size, as the operating system enforces it."""
    program = WRITER.replace("import sys", "import resource, sys\nresource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))", 1)
    arguments = [sys.executable, "-c", program, str(folder), "0", "500"]
    done = subprocess.run(arguments, input=msgspec.json.encode(MANIFEST), capture_output=True, check=False)
    last = done.stderr.decode().strip().splitlines()[-1]
    assert last.startswith(f"kerneldyno.bench._run_folder.DiskFullError: the run folder {folder}: File too large: make room and resume")
    acknowledged = done.stdout.decode().split()[1:]
    assert len(acknowledged) >= 3
    assert list(journal.read(folder).measurements) == acknowledged
    assert lines.scan((folder / "journal.jsonl").read_bytes()).torn_bytes == 0
    with Journal.resume(folder, MANIFEST) as book:
        book.append(measured(0))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_half_a_record_on_a_full_disk_is_taken_back(folder: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    before = written(folder)
    book = Journal.resume(folder, MANIFEST)
    write = os.write

    def full(handle: int, data: memoryview) -> int:
        if len(data) < 50:
            raise OSError(code, os.strerror(code))
        return write(handle, data[: len(data) // 2])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(DiskFullError, match="nothing recorded before is lost") as error:
            book.append(measured(2))
    assert error.value.exit_code == 2
    assert (folder / "journal.jsonl").read_bytes() == before
    assert CASES[2].id not in book.run.measurements
    book.append(measured(2))
    book.close()
    assert records_in(folder) == [*STORY, measured(2)]


def test_a_full_disk_at_the_start_leaves_a_folder_in_which_one_can_start(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DiskFullError, match=f"--out {folder}: No space left on device"):
            Journal.create(folder, MANIFEST)
    assert list(folder.iterdir()) == []
    written(folder)


def test_another_failure_of_the_disk_is_told_as_what_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(handle: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    before = written(folder)
    with Journal.resume(folder, MANIFEST) as book:
        monkeypatch.setattr(os, "fsync", broken)
        with pytest.raises(JournalError, match="Input/output error"):
            book.append(measured(2))
        assert CASES[2].id not in book.run.measurements
    assert (folder / "journal.jsonl").read_bytes() == before


def test_ctrl_c_during_the_sync_keeps_the_record(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(handle: int) -> None:
        raise KeyboardInterrupt

    written(folder)
    with Journal.resume(folder, MANIFEST) as book:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", interrupted)
            with pytest.raises(KeyboardInterrupt):
                book.append(measured(2))
        book.append(SessionEnd(reason="interrupted", wall_s=1.0))
        assert CASES[2].id in book.run.measurements
    assert records_in(folder) == [*STORY, measured(2), SessionEnd(reason="interrupted", wall_s=1.0)]


def test_ctrl_c_in_the_middle_of_a_write_leaves_no_torn_line_inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write

    def interrupted(handle: int, data: memoryview) -> int:
        write(handle, data[:30])
        raise KeyboardInterrupt

    written(folder)
    with Journal.resume(folder, MANIFEST) as book:
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", interrupted)
            with pytest.raises(KeyboardInterrupt):
                book.append(measured(2))
        book.append(SessionEnd(reason="interrupted", wall_s=1.0))
    assert records_in(folder) == [*STORY, SessionEnd(reason="interrupted", wall_s=1.0)]


def test_a_journal_that_somebody_shortens_is_not_filled_up_with_zeros(folder: Path) -> None:
    written(folder)
    with Journal.resume(folder, MANIFEST) as book:
        os.truncate(folder / "journal.jsonl", 10)
        with pytest.raises(CorruptRunError, match="became shorter while it was written"):
            book.append(measured(2))
    assert (folder / "journal.jsonl").stat().st_size == 10


# ---------------------------------------------------------------- two writers


def test_one_process_writes_and_everybody_may_read(folder: Path) -> None:
    with Journal.create(folder, MANIFEST) as book:
        book.append(BEGIN)
        with pytest.raises(RunFolderError, match="is being written by another kerneldyno: wait for it, or give another folder"):
            Journal.resume(folder, MANIFEST)
        with pytest.raises(RunFolderError, match="is being written by another kerneldyno"):
            journal.salvage(folder)
        assert journal.read(folder).sessions == 1
    Journal.resume(folder, MANIFEST).close()


def test_two_that_begin_in_one_folder_do_not_both_win(folder: Path) -> None:
    with Journal.create(folder, MANIFEST), pytest.raises(RunFolderError, match=r"is being written by another kerneldyno"):
        Journal.create(folder, MANIFEST)


def test_another_process_is_kept_away_and_let_in_when_the_first_is_gone(folder: Path) -> None:
    book = Journal.create(folder, MANIFEST)
    with writer(folder, 0, 1) as child:
        assert b"is being written by another kerneldyno" in child.stderr.read()
    book.close()
    with writer(folder, 0, 1) as child:
        assert child.stdout.readline() == b"ready\n"
        child.kill()
    Journal.resume(folder, MANIFEST).close()  # nothing is left behind that a killed process held


def test_a_closed_journal_takes_nothing(folder: Path) -> None:
    book = Journal.create(folder, MANIFEST)
    book.close()
    book.close()
    with pytest.raises(ValueError, match="closed file"):
        book.append(BEGIN)


# ---------------------------------------------------------------- damage


def test_no_changed_byte_goes_unnoticed(folder: Path) -> None:
    data = written(folder)
    for position in range(len(data) - 1):
        for mask in (0x01, 0x20, 0xFF):
            changed = bytearray(data)
            changed[position] ^= mask
            found = lines.scan(bytes(changed))
            assert found.faults, (position, mask)
            assert all(record in STORY for record in found.records)
    assert lines.scan(data[:-1] + b"?").records == STORY[:-1]  # the last line end: a torn tail


def damaged(folder: Path) -> bytes:
    data = written(folder).splitlines(keepends=True)
    data[3] = data[3].replace(b'"samples_s":[0.00', b'"samples_s":[0.07')
    (folder / "journal.jsonl").write_bytes(b"".join(data))
    return b"".join(data)


@pytest.mark.parametrize("use", [journal.read, lambda folder: Journal.resume(folder, MANIFEST)])
def test_a_damaged_record_is_refused_and_salvage_is_offered(use, folder: Path) -> None:
    data = damaged(folder)
    with pytest.raises(CorruptRunError) as error:
        use(folder)
    assert str(error.value) == (
        f"line 4 of journal.jsonl in {folder} is damaged (the checksum does not match): `kerneldyno salvage {folder}` keeps the 8 good ones"
    )
    assert error.value.exit_code == 2
    assert (folder / "journal.jsonl").read_bytes() == data


def test_salvage_keeps_what_is_good_and_puts_the_rest_aside(folder: Path) -> None:
    data = damaged(folder)
    assert journal.salvage(folder) == 8
    assert (folder / "damaged-1.jsonl").read_bytes() == data
    assert journal.read(folder).measurements.keys() == {CASES[1].id}
    with Journal.resume(folder, MANIFEST) as book:
        book.append(measured(0))
    assert records_in(folder) == [*STORY[:3], *STORY[4:], measured(0)]
    (folder / "journal.jsonl").write_bytes(b"rubbish\n" + (folder / "journal.jsonl").read_bytes())
    assert journal.salvage(folder) == 9
    assert (folder / "damaged-2.jsonl").exists()


def test_salvage_of_a_sound_run_changes_nothing(folder: Path) -> None:
    before = written(folder)
    assert journal.salvage(folder) == len(STORY)
    assert sorted(path.name for path in folder.iterdir()) == ["journal.jsonl", "manifest.json"]
    assert (folder / "journal.jsonl").read_bytes() == before


def test_a_record_of_an_unknown_kind_is_damage_and_not_skipped_silently(folder: Path) -> None:
    data = written(folder)
    content = b'{"type":"surprise"}'
    (folder / "journal.jsonl").write_bytes(data + b'{"crc":"%08x","record":%b}\n' % (zlib.crc32(content), content))
    with pytest.raises(CorruptRunError, match=r"line 10 .*surprise"):
        journal.read(folder)


# ---------------------------------------------------------------- sessions and suspects

A, B, C = (Attempt(case=case.id, phase="timing") for case in CASES)
END = SessionEnd(reason="interrupted", wall_s=1.0)


@pytest.mark.parametrize(
    ("story", "suspects"),
    [
        ([BEGIN, A, measured(0), B], {}),  # for all one knows, this session goes on
        ([BEGIN, A, measured(0), B, BEGIN], {1: 1}),
        ([BEGIN, A, B, BEGIN, B, BEGIN, B, BEGIN], {1: 3}),
        ([BEGIN, A, B, measured(1), BEGIN], {0: 1}),
        ([BEGIN, A, B, A, BEGIN], {0: 1}),
        ([BEGIN, A, measured(0), BEGIN], {}),
        ([BEGIN, A, END, BEGIN], {}),
        ([BEGIN, BEGIN, A, BEGIN, BEGIN], {0: 1}),
        ([BEGIN, A, BEGIN, C, BEGIN], {0: 1, 2: 1}),
    ],
)
def test_whoever_was_last_when_a_session_died_is_suspected(folder: Path, story: list[Record], suspects: dict[int, int]) -> None:
    written(folder, story)
    run = journal.read(folder)
    assert run.suspects == {CASES[index].id: times for index, times in suspects.items()}
    assert run.sessions == story.count(BEGIN)


def test_a_resumed_run_has_not_ended(folder: Path) -> None:
    written(folder)
    assert journal.read(folder).ended == STORY[-1]
    with Journal.resume(folder, MANIFEST) as book:
        book.append(BEGIN)
        assert book.run.ended is None
        assert book.run.sessions == 2
