"""Machine code as cuobjdump writes it: instructions and the loops that they form. Text in, plain data out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

LINE = re.compile(r"^\s+/\*(?P<address>[0-9a-f]{4,})\*/\s+(?:(?P<guard>@!?U?P(?:T|\d+))\s+)?(?P<opcode>[A-Z][\w.]*)(?P<operands>[^;]*);")
"""An address, perhaps a predicate, an opcode with its modifiers, and operands; the rest of the line is the encoding."""


class Instruction(NamedTuple):
    """One line."""

    address: int
    guard: str
    """@P0, @!P0 or @UP1: it takes place where that holds; empty when always."""
    opcode: str
    """With its modifiers: "HMMA.16816.F32.BF16"."""
    operands: str


def parse(code: str) -> Iterator[Instruction]:
    """The instructions of one function, in their order."""
    for line in code.splitlines():
        if found := LINE.match(line):
            yield Instruction(int(found["address"], 16), found["guard"] or "", found["opcode"], found["operands"].strip())
