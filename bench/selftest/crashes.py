"""Kernels that crash, hang and exhaust memory in real workers: each must cost its own case and nobody else's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..plan import UsageError
from . import crashing
from .findings import Control, Finding, Found
from .runs import measured

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .context import Context

SECTION = "crashes"
TINY = {"batch": [1], "heads": [2], "seq_len": [48], "head_dim": [16]}
PATIENCE_S = 6.0
"""For building, which includes the first call, and for later calls."""


def findings(context: Context) -> Iterator[Found]:
    """The ordinary ways together in one run, each meddler in a run of its own; a right kernel beside all of them."""
    wanted = crashing.SHORT if context.short else tuple(crashing.DEEDS)
    together = [name for name in wanted if name not in crashing.MEDDLERS]
    for names in ([together] if together else []) + [[name] for name in wanted if name in crashing.MEDDLERS]:
        if context.stop():
            return
        context.say(", ".join(map(_words, names)))
        yield from _one_run(context, names)


def _one_run(context: Context, names: Sequence[str]) -> Iterator[Found]:
    where = "a real run"
    try:
        found = measured(
            "crashing.py",
            (*names, "bystander"),
            TINY,
            device=str(context.device),
            seed=context.seed,
            build_timeout_s=PATIENCE_S,
            call_timeout_s=PATIENCE_S / 4,
            stop=context.stop,
            tick=context.tick,
        ).by_kernel
    except UsageError:
        raise  # another run is using the device: nothing was found out
    except Exception as error:  # noqa: BLE001 - whatever brings the harness down is the finding
        said = f"the run died of {type(error).__name__}: {error}"
        yield from (Finding(section=SECTION, plant=_words(name), where=where, caught=False, said=said) for name in names)
        yield Control(section=SECTION, what="the kernel beside them", where=_words(names[0]), alarm=True, said=said)
        return
    if context.stop():
        return
    for name in names:
        culprit = found.get(name)
        caught = culprit is not None and culprit.status == crashing.DEEDS[name][2]
        said = f"{culprit.status}: {culprit.reason}" if culprit else "no record of it"
        yield Finding(section=SECTION, plant=_words(name), where=where, caught=caught, said=said)
    other = found.get("bystander")
    fine = other is not None and other.status == "ok" and len(other.samples_s) > 0
    said = "" if fine else f"{other.status}: {other.reason}" if other else "no record of it"
    yield Control(section=SECTION, what="the kernel beside them", where=f"a run with {_words(names[0])}", alarm=not fine, said=said)


def _words(name: str) -> str:
    return name.replace("_", " ")
