"""Revisions of the kernels from git: what a name stands for, and the kernels folder of a commit or of the working tree.

Files come out of git's database one by one: no checkout is touched, no attribute or filter of a repository is applied, and
nothing is followed out of the folder.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kerneldyno.kernels import registry

from ..plan import UsageError

FOLDER = "kernels"
MISDIRECTING = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX", "GIT_NAMESPACE")
"""What git sets for its hooks, and what would lead to the repository of the hook, wherever we look."""
FULL_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
SYMLINK = "120000"
NO_FILES = ("040000", "160000")
"""Modes of folders and of submodules."""
LONGEST_S = 120.0


@dataclass(frozen=True)
class _Entry:
    """A file of a commit, with its path relative to where git was asked."""

    mode: str
    object: str
    path: PurePosixPath


def project_root() -> Path:
    """The clone of the project whose kernels are compared: the one that this package is run from, or else the current one.

    Raises UsageError when neither is a clone that tracks kernels/registry.py.
    """
    for folder in (registry.KERNELS.parent, Path.cwd(), *Path.cwd().parents):
        if (folder / FOLDER / "registry.py").is_file() and _tracks(folder, f"{FOLDER}/registry.py"):
            return folder
    _git(Path.cwd(), "rev-parse", "--git-dir")  # says so when there is no git, or it refuses
    raise UsageError("compare --base needs the git history of kernels/: run it inside a clone of the project")


def repository_of(path: Path) -> Path:
    """The top folder of the clone in which a file lies. Raises UsageError when it lies in none, or there is no git."""
    return Path(_git(path.resolve().parent, "rev-parse", "--show-toplevel").decode().rstrip("\n"))


def resolve(root: Path, name: str) -> str:
    """The full hash of the commit that a branch, tag or other name stands for.

    Raises UsageError for an unknown name, outside a git repository, and where git is missing.
    """
    _git(root, "rev-parse", "--git-dir")
    found = "" if _is_no_name(name) else _asked(root, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    if FULL_HASH.fullmatch(found):
        return found
    hint = "fetch it (git fetch origin), or give another branch, tag or commit"
    if _asked(root, "rev-parse", "--is-shallow-repository") == "true":
        hint = "this clone is shallow: fetch the history (git fetch --unshallow; in GitHub's actions/checkout: fetch-depth: 0)"
    raise UsageError(f"revision {name!r} is unknown here: {hint}")


def describe(root: Path, path: str = FOLDER) -> tuple[str, bool]:
    """(full hash of the commit that is checked out, whether anything under `path` differs from it, new files included)."""
    commit = resolve(root, "HEAD")
    return commit, bool(_git(root, "status", "--porcelain", "--untracked-files=all", "--", path).strip())


def extract(root: Path, commit: str, destination: Path) -> Path:
    """The kernels folder of a commit, written to `destination`/kernels, which must not exist; that path.

    Links are recreated where they lead to something in the folder, and left out like submodules elsewhere. Raises
    UsageError when the commit has no such folder, or git lacks a file of it.
    """
    entries = [item for item in _entries(root, commit, "-r", FOLDER) if item.path.parts[0] == FOLDER]
    if not any(item.path.suffix == ".py" for item in entries):
        raise UsageError(f"revision {commit[:12]} has no folder {FOLDER}/ with kernels: give a later one as --base")
    _write(root, entries, destination, FOLDER)
    return destination / FOLDER


def worktree(root: Path, destination: Path) -> Path:
    """A copy of the kernels folder as it lies there, at `destination`/kernels; that path. Edits made meanwhile stay out of it."""
    source = (root / FOLDER).resolve()
    if not source.is_dir():
        raise UsageError(f"there is no folder {FOLDER}/ in {root.name}: run compare inside a clone of the project")

    def unwanted(folder: str, names: list[str]) -> set[str]:
        here = Path(folder)
        return {name for name in names if name in ("__pycache__", ".git") or _leads_out(here / name, source) or _is_special(here / name)}

    shutil.copytree(source, destination / FOLDER, symlinks=True, ignore=unwanted)
    return destination / FOLDER


def extract_file(root: Path, commit: str, path: Path, destination: Path) -> Path | None:
    """A file given with --load as it was in a commit, with the files beside it, in `destination`; None if it was not there.

    Raises UsageError for a file that lies outside the repository.
    """
    inside, top = path.resolve(), root.resolve()
    if not inside.is_relative_to(top):
        raise UsageError(f"--load {path.name} lies outside the repository {top.name}: its earlier revisions are not known")
    relative = PurePosixPath(inside.relative_to(top).as_posix())
    folder = relative.parent.as_posix()
    entries = [item for item in _entries(root, commit, *([] if folder == "." else [f"./{folder}/"])) if item.path.parent == relative.parent]
    if not any(item.path == relative and item.mode != SYMLINK for item in entries):
        return None
    _write(root, entries, destination, folder)
    return destination / Path(relative)


def _entries(root: Path, commit: str, *arguments: str) -> Iterator[_Entry]:
    """Files of a commit, by paths relative to `root`."""
    if not FULL_HASH.fullmatch(commit):
        commit = resolve(root, commit)
    for line in _git(root, "ls-tree", "-z", commit, *arguments).split(b"\0"):
        described, _, path = line.partition(b"\t")
        mode, _, name = described.decode().split() if path else (NO_FILES[0], "", "")
        if mode not in NO_FILES:
            relative = PurePosixPath(os.fsdecode(path))
            if relative.is_absolute() or not {"..", ".git"}.isdisjoint(relative.parts):
                raise UsageError(f"revision {commit[:12]} holds a file with the impossible path {str(relative)!r}: it is not used")
            yield _Entry(mode, name, relative)


def _write(root: Path, entries: list[_Entry], destination: Path, folder: str) -> None:
    """The files of `folder` under `destination`, links last, so that nothing is written through one."""
    files = [item for item in entries if item.mode != SYMLINK]
    links = [item for item in entries if item.mode == SYMLINK]
    contents = _contents(root, [item.object for item in [*files, *links]])
    top = (destination / folder).resolve()
    if top.exists():
        raise FileExistsError(f"{top} exists already: a revision is written to a new folder")
    for item in files:
        target = destination / item.path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(contents[item.object])
    for item in links:
        link = destination / item.path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.fsdecode(contents[item.object]))
    for item in links:
        if _leads_out(destination / item.path, top):
            (destination / item.path).unlink()


def _contents(root: Path, objects: list[str]) -> dict[str, bytes]:
    """What git's database holds under these names."""
    told = _git(root, "cat-file", "--batch", given="".join(f"{name}\n" for name in objects).encode())
    found = {}
    for name in objects:
        header, _, rest = told.partition(b"\n")
        if not header.endswith(b" missing"):
            size = int(header.split()[2])
            found[name], told = rest[:size], rest[size + 1 :]
        else:
            raise UsageError(f"git lacks {name[:12]}, a file of that revision: fetch it (git fetch --refetch)")
    return found


def _leads_out(path: Path, top: Path) -> bool:
    """Whether it is a link to something outside of `top`, or to nothing."""
    return path.is_symlink() and not (path.exists() and path.resolve().is_relative_to(top))


def _is_special(path: Path) -> bool:
    """Neither file nor folder: a pipe or a socket, which would block a copy."""
    return path.exists() and not (path.is_file() or path.is_dir())


def _is_no_name(name: str) -> bool:
    """What git would take for an option or could not be given at all."""
    return not name or name.startswith("-") or any(ord(character) < 32 for character in name)


def _tracks(folder: Path, file: str) -> bool:
    return bool(_asked(folder, "ls-files", "--", file))


def _asked(folder: Path, *arguments: str) -> str:
    """What git answers; "" when it fails or is missing."""
    try:
        return _git(folder, *arguments).decode(errors="replace").strip()
    except UsageError:
        return ""


def _git(folder: Path, *arguments: str, given: bytes = b"") -> bytes:
    """What git says there. Raises UsageError with one sentence when it is missing or fails."""
    plain = {name: value for name, value in os.environ.items() if name not in MISDIRECTING}
    plain |= {"LC_ALL": "C", "GIT_LITERAL_PATHSPECS": "1", "GIT_TERMINAL_PROMPT": "0"}
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, input=given, env=plain, capture_output=True, timeout=LONGEST_S, check=False)
    except FileNotFoundError as error:
        raise UsageError("comparing revisions needs git, which was not found: install it") from error
    except subprocess.TimeoutExpired as error:
        raise UsageError(f"git {arguments[0]} did not answer within {LONGEST_S:.0f} s: try it by hand") from error
    if done.returncode == 0:
        return done.stdout
    said = done.stderr.decode(errors="replace").strip()
    if "not a git repository" in said:
        raise UsageError(f"compare --base needs the git history: run it inside a clone, {folder.name} is none")
    if "dubious ownership" in said:
        raise UsageError(
            f"git refuses the clone {folder.name}, which belongs to another user: git config --global --add safe.directory '*'"
        )
    first = said.splitlines()[0] if said else f"exit status {done.returncode}"
    raise UsageError(f"git {arguments[0]} failed: {first}")
