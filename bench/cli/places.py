"""Where the page of several runs is written: beside the runs unless told otherwise, and into no folder that nobody meant."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def beside(folders: Sequence[Path], name: str) -> Path:
    """The path of a page about these folders: in the folder that was given, or in the one that holds them all.

    That is one in which at least one of them lies: runs of unrelated folders have no such place, and where it may not be
    written either, the page goes into the current folder.
    """
    found = {home.resolve(): home for folder in folders if folder.is_dir() for home in [_home(folder)]}
    shared = next((home for home in found if all(other.is_relative_to(home) for other in found)), None)
    return found[shared] / name if shared is not None and os.access(shared, os.W_OK) else Path(name)


def holds_runs(folder: Path) -> bool:
    """Whether this is a folder of run folders rather than a run."""
    from .. import journal

    return folder.is_dir() and not any((folder / name).exists() for name in (journal.MANIFEST, journal.JOURNAL))


@contextmanager
def written(option: str, path: Path) -> Iterator[None]:
    """Inside, a file is written to the path that an option named, its folder made when only that is lacking.

    Raises UsageError for a path that is a folder, for one of which more than one folder is lacking or one at the root of
    the file system, which is mostly a slip, and for whatever stops the writing.
    """
    from ..plan import UsageError

    if os.path.isdir(path):  # noqa: PTH112 - unlike Path.is_dir, it raises nothing for names that are too long
        raise UsageError(f"{option} {path}: is a folder: give the name of a file")
    above = path.parent.absolute().parent
    is_new = not os.path.exists(path.parent)  # noqa: PTH110 - likewise
    if is_new and (not above.exists() or above == above.parent):
        lacking = path.parent if above.exists() else path.parent.parent
        raise UsageError(f"{option} {path}: there is no folder {lacking}: make it first, or give another file")
    try:
        if is_new:
            path.parent.mkdir(exist_ok=True)
        yield
    except OSError as error:
        raise UsageError(f"{option} {path}: cannot be written ({error.strerror or error}): give another file") from error


def _home(folder: Path) -> Path:
    """Where the page of this folder would be looked for: in it when it holds runs, else beside it."""
    if holds_runs(folder):
        return folder
    return folder.parent if folder.name not in ("", "..") else folder.resolve().parent
