"""The loops of a function, found in its machine code by dominators (Aho et al., "Compilers", 9.6). Plain data in and out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .sass import Instruction
from .shapes import TENSOR

ENDS = ("EXIT", "RET", "BPT", "KILL")
"""What control does not come back from, unless it has a predicate."""
LONGEST_WAIT = 8
"""Instructions."""


@dataclass(frozen=True)
class Loop:
    """A natural loop: what may be passed from its head back to its head."""

    head: int
    """Address of its first instruction."""
    body: tuple[Instruction, ...]
    """By rising address, those of inner loops among them."""
    inner: bool
    """Whether no other loop is in it, beside waits."""


def loops(code: Sequence[Instruction]) -> list[Loop]:
    """All loops, by the address of their head. Waits for a barrier, which spin on themselves, are no loops; calls come back."""
    blocks = _blocks(code)
    after = _successors(code, blocks)
    before: dict[int, set[int]] = {start: set() for start in blocks}
    for start, nexts in after.items():
        for following in nexts:
            before[following].add(start)
    dominators = _dominators(list(blocks), before)
    found: dict[int, set[int]] = {}
    for start, nexts in after.items():
        for head in nexts:
            if start in dominators and head in dominators[start]:
                found.setdefault(head, {head}).update(_reaching(start, head, before))
    kept = {head: body for head, body in found.items() if not _waits(_body(code, blocks, body))}
    return [
        Loop(head, _body(code, blocks, body), inner=not any(other in body for other in kept if other != head))
        for head, body in sorted(kept.items())
    ]


def _waits(body: Sequence[Instruction]) -> bool:
    """Whether a loop does nothing but ask a barrier again and again."""
    asks = any(i.opcode.startswith(("SYNCS", "NANOSLEEP")) for i in body)
    return asks and len(body) <= LONGEST_WAIT and not any(TENSOR.match(i.opcode) for i in body)


def _target(instruction: Instruction) -> int | None:
    """Where a branch goes; None for one that is computed."""
    found = re.findall(r"0x[0-9a-f]+", instruction.operands)
    return int(found[-1], 16) if found else None


def _blocks(code: Sequence[Instruction]) -> dict[int, tuple[int, int]]:
    """Basic blocks: address of the first instruction -> (its place in the code, the place after the last)."""
    places = {instruction.address: i for i, instruction in enumerate(code)}
    starts = {0}
    for i, instruction in enumerate(code):
        if instruction.opcode.startswith(("BRA", *ENDS)):
            starts.add(i + 1)
            if instruction.opcode.startswith("BRA") and (target := _target(instruction)) in places:
                starts.add(places[target])
    ordered = sorted(start for start in starts if start < len(code))
    return {code[start].address: (start, end) for start, end in zip(ordered, [*ordered[1:], len(code)], strict=True)}


def _successors(code: Sequence[Instruction], blocks: dict[int, tuple[int, int]]) -> dict[int, set[int]]:
    """Where control may go from each block."""
    found: dict[int, set[int]] = {}
    for start, (_, end) in blocks.items():
        last, nexts = code[end - 1], set()
        if last.opcode.startswith("BRA") and (target := _target(last)) in blocks:
            nexts.add(target)
        always = not last.guard and not re.match(r"!?U?P\d", last.operands)
        if end < len(code) and not (always and last.opcode.startswith(("BRA", *ENDS))):
            nexts.add(code[end].address)
        found[start] = nexts
    return found


def _dominators(starts: Sequence[int], before: dict[int, set[int]]) -> dict[int, set[int]]:
    """For each block that can be reached, the blocks that every way to it passes, itself among them."""
    reached = _forward(starts[0], before)
    found = {start: set(reached) for start in reached}
    found[starts[0]] = {starts[0]}
    changed = True
    while changed:
        changed = False
        for start in sorted(reached - {starts[0]}):
            ways = [found[earlier] for earlier in before[start] if earlier in reached]
            passed = {start} | set.intersection(*ways)
            if passed != found[start]:
                found[start], changed = passed, True
    return found


def _forward(first: int, before: dict[int, set[int]]) -> set[int]:
    """Blocks that can be reached from the first."""
    after: dict[int, set[int]] = {}
    for start, earlier in before.items():
        for one in earlier:
            after.setdefault(one, set()).add(start)
    return _spread({first}, after)


def _reaching(start: int, head: int, before: dict[int, set[int]]) -> set[int]:
    """Blocks from which `start` is reached without passing `head`."""
    return _spread({start}, before, without=head) if start != head else {head}


def _spread(found: set[int], edges: dict[int, set[int]], without: int | None = None) -> set[int]:
    waiting = list(found)
    while waiting:
        for following in edges.get(waiting.pop(), ()):
            if following not in found and following != without:
                found.add(following)
                waiting.append(following)
    return found


def _body(code: Sequence[Instruction], blocks: dict[int, tuple[int, int]], chosen: set[int]) -> tuple[Instruction, ...]:
    return tuple(instruction for start in sorted(chosen) for instruction in code[slice(*blocks[start])])
