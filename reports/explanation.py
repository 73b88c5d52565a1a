"""The page of an explanation: attention maps of chosen heads, exact beside those of approximate kernels, and what the numbers say.

In the same dress as the report of a run, whose style, script and chart library it shares.
"""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import shell
from .explanation_figures import difference, weights
from .frame import replacing
from .names import short
from .units import count, digits

if TYPE_CHECKING:
    from kerneldyno.bench.explanation import Explained, Explanation, HeadNumbers

NOTHING = 5e-6
"""Less than this share of the attention has moved by rounding alone."""
APART = 0.01
"""Where a kernel's answer is so far from its map times the values, the map does not tell all of it."""
COLUMNS = (
    ("head", ""), ("kernel", ""), ("moved", "mean"), ("moved", "worst query"), ("divergence", "nats"), ("kept", "of the exact weight"),
    ("same top key", "of queries"), ("attends", "keys, exact"), ("attends", "keys"),
)  # fmt: skip


@dataclass(frozen=True)
class Panel:
    """One head as one kernel computes it."""

    id: str
    kernel: Explained
    head: HeadNumbers
    sentence: str
    facts: list[tuple[str, str]]


def render(found: Explanation, out: Path | str, *, plain: bool = False) -> Path:
    """Write the page to `out`, making the folder that it lies in; its path. `plain` as in `page.render`. Raises OSError."""
    out = Path(out)
    text = html(found, plain=plain)
    out.parent.mkdir(parents=True, exist_ok=True)
    return replacing(out, lambda path: path.write_text(text, encoding="utf-8"))


def html(found: Explanation, *, plain: bool = False) -> str:
    """The page as text."""
    shown = [kernel for kernel in found.kernels if not kernel.reason]
    return shell.render(
        "explanation.html.j2",
        figures=_figures(found, shown),
        payloads={"csv": _csv(shown)},
        styles=["explanation.css"],
        words={"count": count, "short": short, "percent": percent},
        plain=plain,
        found=found,
        headline=headline(found),
        overview=[(kernel, of_kernel(kernel), _means(kernel)) for kernel in shown],
        reasons=[kernel for kernel in found.kernels if kernel.reason],
        heads=[
            (head, _exact_words(found, head), [_panel(number, kernel, head) for number, kernel in enumerate(shown)]) for head in found.heads
        ],
        columns=COLUMNS,
        listing=[(kernel, _cells(kernel, head)) for kernel in shown for head in kernel.heads],
    )


def percent(share: float) -> str:
    """A share in per cent, two digits: "0.034 %", "12 %"; 100 only where nothing is missing, 0 for rounding."""
    if share < NOTHING:
        return "0 %"
    if 0.995 <= share < 1:
        return f"{math.floor(share * 1000) / 10:.1f} %" if share < 0.9995 else "> 99.9 %"
    return f"{digits(share * 100, 2)} %"


def keys(entropy: float | None) -> str:
    """The number of keys that would have this entropy if they were attended evenly."""
    return "–" if entropy is None else digits(math.exp(entropy), 2)


def headline(found: Explanation) -> str:
    """Who changes most and who least, in a sentence."""
    shown = sorted((kernel for kernel in found.kernels if kernel.heads), key=_moved)
    if not shown:
        return "No kernel was looked at: all of them say why not"
    least = shown[0]
    text = f"{short(least.kernel)} moves {percent(_moved(least))} of the attention to other keys"
    if len(shown) > 1:
        text += f", {short(shown[-1].kernel)} {percent(_moved(shown[-1]))}"
    return f"{text}: mean of {count(len(found.heads), 'head')}"


def of_kernel(kernel: Explained) -> str:
    """What a kernel does to the heads that were looked at, in plain words."""
    if kernel.reason:
        return f"not looked at: {kernel.reason}"
    gone = [head.head for head in kernel.heads if head.entropy is None]
    there = [head for head in kernel.heads if head.entropy is not None]
    words = [f"leaves out {count(len(gone), 'head')} of the {len(kernel.heads)} shown ({', '.join(map(str, gone))})"] * bool(gone)
    if there:
        moved, worst = sum(head.moved_mean for head in there) / len(there), max(head.moved_worst for head in there)
        same = sum(head.same_top for head in there) / len(there)
        if worst < NOTHING:
            words.append("leaves the others as they are" if gone else "leaves the attention as it is, but for rounding")
        else:
            words.append(f"moves {percent(moved)} of the attention, {percent(worst)} of a single query's at most")
            words.append(f"{percent(same)} of the queries still look at the same key most")
    if kernel.unexplained > APART:
        words.append(f"its answer differs by {percent(kernel.unexplained)} from its map times the values: the map does not tell all")
    return "; ".join(words)


def of_head(head: HeadNumbers) -> str:
    """What one sees in one head's map, in plain words."""
    if head.entropy is None:
        return "Left out: whatever the queries ask, the head answers 0, and nothing of its attention is left."
    if head.moved_worst < NOTHING:
        return "The map is the exact one, but for rounding."
    moved, worst = percent(head.moved_mean), percent(head.moved_worst)
    words = [f"Of a query's attention {moved} goes to other keys than it should, of the worst one's {worst}."]
    if head.kept < 0.9999:
        words.append(f"Keys that should get {percent(1 - head.kept)} of it get nothing.")
    if head.same_top < 1:
        words.append(f"{percent(1 - head.same_top)} of the queries look at another key most.")
    else:
        words.append("Every query still looks at the same key most.")
    before, after = math.exp(head.entropy_exact), math.exp(head.entropy)
    if abs(after / before - 1) > 0.05:
        words.append(
            f"Attention is {'sharper' if after < before else 'blurred'}: as if on {digits(after, 2)} keys instead of {digits(before, 2)}."
        )
    return " ".join(words)


def _moved(kernel: Explained) -> float:
    return sum(head.moved_mean for head in kernel.heads) / len(kernel.heads)


def _means(kernel: Explained) -> list[str]:
    """Means over the heads shown: moved, worst, kept, same top key, unexplained."""
    heads = kernel.heads

    def mean(name: str) -> float:
        return sum(float(getattr(head, name)) for head in heads) / len(heads)

    worst = max(head.moved_worst for head in heads)
    return [percent(mean("moved_mean")), percent(worst), percent(mean("kept")), percent(mean("same_top")), percent(kernel.unexplained)]


def _exact_words(found: Explanation, head: int) -> str:
    """How broad a head's exact attention is."""
    entropies = [one.entropy_exact for kernel in found.kernels for one in kernel.heads if one.head == head]
    shared = f" It shares keys and values with {found.group - 1} others." if found.group > 1 else ""
    return f"A query attends as if evenly to {keys(entropies[0])} of {found.kv_len} keys.{shared}" if entropies else ""


def _panel(number: int, kernel: Explained, head: int) -> Panel:
    numbers = next(one for one in kernel.heads if one.head == head)
    facts = [
        ("moved to other keys, mean of the queries", percent(numbers.moved_mean)),
        ("moved, worst query", percent(numbers.moved_worst)),
        ("exact weight on keys that still get some", percent(numbers.kept)),
        ("queries with the same heaviest key", percent(numbers.same_top)),
        ("attends as if evenly to, exact → here", f"{keys(numbers.entropy_exact)} → {keys(numbers.entropy)} keys"),
        ("divergence from the exact weights", "–" if numbers.divergence is None else f"{digits(numbers.divergence, 2)} nats"),
    ]
    return Panel(_name(number, head), kernel, numbers, of_head(numbers), facts)


def _name(number: int, head: int) -> str:
    return f"k{number}-h{head}"


def _cells(kernel: Explained, head: HeadNumbers) -> list[tuple[str, Any]]:
    """(text, sort key) of each cell of a row of the table of all."""
    return [
        (str(head.head), head.head),
        (short(kernel.kernel), short(kernel.kernel)),
        (percent(head.moved_mean), head.moved_mean),
        (percent(head.moved_worst), head.moved_worst),
        ("–" if head.divergence is None else digits(head.divergence, 2), head.divergence),
        (percent(head.kept), head.kept),
        (percent(head.same_top), head.same_top),
        (keys(head.entropy_exact), head.entropy_exact),
        (keys(head.entropy), head.entropy),
    ]


def _csv(shown: list[Explained]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ("head", "total", "moved_mean", "moved_worst", "divergence", "kept", "same_top", "entropy_exact", "entropy")
    writer.writerow(("kernel", "unexplained", *names))
    for kernel in shown:
        for head in kernel.heads:
            writer.writerow((kernel.kernel, kernel.unexplained, *(getattr(head, name) for name in names)))
    return text.getvalue()


def _figures(found: Explanation, shown: list[Explained]) -> dict[str, Any]:
    """Maps by the names under which the page asks for them."""
    sizes = {"query_cell": found.query_cell, "key_cell": found.key_cell}
    drawn: dict[str, Any] = {}
    for head, exact in found.exact.items():
        most = max(max(row) for row in exact)
        drawn[f"exact-h{head}"] = weights(exact, most, **sizes)
        for number, kernel in enumerate(shown):
            drawn[_name(number, head)] = weights(kernel.maps[head], most, **sizes)
            drawn[f"{_name(number, head)}-d"] = difference(exact, kernel.maps[head], **sizes)
    return drawn
