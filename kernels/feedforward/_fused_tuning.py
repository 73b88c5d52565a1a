"""What may be chosen of the linear kernel: the tiles of both layers, their keys, and the candidates that a device can be asked about.

No torch and no Triton.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

from .._tuned import Chosen, Key, architecture, choose, length_class, power_of_two, triton_version
from .._tuned import tiles as stored_tiles
from .._tuning import Task
from ..contract import ITEM_BYTES
from . import _fused_code as code
from ._fused_tiles import Tiles, tiles

if TYPE_CHECKING:
    from .._cards import Card
    from .._code import Configuration
    from .problem import FeedForward

MOST_NUMBERS, FEWEST_NUMBERS = 128, 4
"""Of accumulators that a thread may hold: with more of them 255 registers do not do, with fewer it waits for its neighbours."""


@dataclass(frozen=True)
class Linear:
    """One matrix, or two of a gate, and what is around it."""

    inputs: int
    outputs: int
    asked: code.Asked


def linears(problem: FeedForward) -> tuple[Linear, Linear]:
    """W1, with its gate if there is one, and W2."""
    first = code.Asked(problem.activation, gated=problem.gated, bias=problem.bias)
    second = code.Asked(bias=problem.bias, residual=problem.residual)
    return Linear(problem.dim, problem.hidden_dim, first), Linear(problem.hidden_dim, problem.dim, second)


def chosen(problem: FeedForward, card: Card) -> tuple[Chosen[Tiles], ...]:
    """The tiles that W1 and W2 are multiplied in, and where they come from."""
    return tuple(choose(key(linear, problem, card), default(linear, problem)) for linear in linears(problem))


def default(linear: Linear, problem: FeedForward) -> Tiles:
    """The tiles where nobody measured."""
    return tiles(problem.tokens, linear.inputs, ITEM_BYTES[problem.dtype], gated=linear.asked.gated)


def key(linear: Linear, problem: FeedForward, card: Card) -> Key:
    """By the tokens and the matrix, whose sizes are rounded up to powers of two; rows that begin anywhere are a case of their own.

    So are GELU's error function, which takes more registers than other activations do, and biases.
    """
    kind = " odd rows" * (linear.inputs % 16 > 0) + " gated" * linear.asked.gated
    return Key(
        function="linear_kernel",
        architecture=architecture(card.capability),
        triton=triton_version(),
        dtype=problem.dtype,
        size=f"{power_of_two(linear.inputs)}→{power_of_two(linear.outputs)}{kind}",
        length=length_class(problem.tokens),
        traits=_traits(linear.asked),
    )


def _traits(asked: code.Asked) -> str:
    return ", ".join([*(["gelu"] if asked.activation == "gelu" else []), *(["bias"] if asked.bias else [])])


def tasks(problem: FeedForward, card: Card) -> Iterator[Task]:
    """What there is to choose, of each layer whose rows begin on 16 bytes; once where both have the same key."""
    seen = set()
    for linear in linears(problem):
        found = _task(linear, problem, card)
        if linear.inputs % 16 == 0 and found.key not in seen:
            seen.add(found.key)
            yield found


def _task(linear: Linear, problem: FeedForward, card: Card) -> Task:
    usual = default(linear, problem)
    return Task(
        key=key(linear, problem, card),
        default=usual,
        candidates=tuple(cut for cut in candidates(problem, usual) if cut != usual),
        why_not=lambda cut: None if cut == usual else why_not(cut, linear, problem, card),
        forms=lambda cut: forms(cut, linear, problem, card),
    )


def candidates(problem: FeedForward, usual: Tiles) -> tuple[Tiles, ...]:
    """Tiles of every shape for so many tokens, of every number of warps and stages; the usual ones in another order of blocks."""
    if ITEM_BYTES[problem.dtype] == 4:
        grid = product((16,) if problem.tokens <= 16 else (32, 64, 128), (32, 64, 128), (16, 32), (4, 8), (2, 3))
    else:
        rows = (16,) if problem.tokens <= 16 else (16, 32, 64, 128) if problem.tokens <= 256 else (64, 128, 256)
        many = problem.tokens > 256
        grid = product(rows, (64, 128, 256) if many else (32, 64, 128, 256), (32, 64, 128), (4, 8), (3, 4) if many else (3, 4, 5))
    found = [Tiles(*numbers) for numbers in grid] + [replace(usual, group=group) for group in (1, 4, 16)]
    return tuple(dict.fromkeys(found))


def why_not(cut: Tiles, linear: Linear, problem: FeedForward, card: Card) -> str | None:
    """Why arithmetic leaves tiles out, in a sentence."""
    shared = cut.shared_bytes(ITEM_BYTES[problem.dtype], gated=linear.asked.gated)
    if shared > card.shared_bytes:
        return f"takes {shared >> 10} KB of shared memory: a program has {card.shared_bytes >> 10}"
    numbers = cut.bt * cut.bn * (2 if linear.asked.gated else 1) / (32 * cut.warps)
    if not FEWEST_NUMBERS <= numbers <= MOST_NUMBERS:
        return f"holds {numbers:g} sums in a thread: it should be {FEWEST_NUMBERS} to {MOST_NUMBERS}"
    if cut.bk > 2 * linear.inputs or cut.bn > 2 * linear.outputs:
        return f"is larger than the matrix of {linear.inputs}→{linear.outputs}"
    return None


def stored(capability: tuple[int, int]) -> Iterator[Configuration]:
    """Every form of the tiles that were chosen for a card: `kerneldyno codegen` compiles them beside the defaults."""
    for key, cut in stored_tiles("linear_kernel", capability, Tiles):
        for name, asked in code.VARIANTS.items():
            if asked.gated == key.size.endswith(" gated") and _traits(asked) == key.traits:
                inputs = int(key.size.partition("→")[0])
                yield code.configuration(capability, inputs, key.dtype, f"{name}, tuned for {key.length}", _launched(asked), cut)


def forms(cut: Tiles, linear: Linear, problem: FeedForward, card: Card) -> Iterator[Configuration]:
    """What this problem asks for; and the most that one with the same key may, with inputs that are no multiple of the tile."""
    given, asked = (card.capability, linear.inputs, problem.dtype), linear.asked
    yield code.configuration(*given, "as asked", asked, cut)
    most = _launched(replace(asked, residual=True))
    uneven = linear.inputs // cut.bk * cut.bk + 16
    yield code.configuration(card.capability, uneven, problem.dtype, "everything", most, cut)


def _launched(asked: code.Asked) -> code.Asked:
    """What is asked of one layer of a network: nothing is added to that which has an activation."""
    return replace(asked, residual=asked.residual and asked.activation == "none")
