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
from ._fused_tiles import MOST_SPLIT_TOKENS, Tiles, by_pointers, offered, part, tiles

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

    @property
    def rows(self) -> int:
        """Of the matrix, in which a gate's are interleaved."""
        return self.outputs * (2 if self.asked.gated else 1)


def linears(problem: FeedForward) -> tuple[Linear, Linear]:
    """W1, with its gate if there is one, and W2."""
    backward = problem.direction == "backward"
    first = code.Asked(problem.activation, gated=problem.gated, bias=problem.bias, before=backward)
    second = code.Asked(bias=problem.bias, residual=problem.residual)
    return Linear(problem.dim, problem.hidden_dim, first), Linear(problem.hidden_dim, problem.dim, second)


def chosen(problem: FeedForward, card: Card) -> tuple[Chosen[Tiles], ...]:
    """The tiles that W1 and W2 are multiplied in, and where they come from."""
    return tuple(choose(key(linear, problem, card), default(linear, problem, card)) for linear in linears(problem))


def shares(problem: FeedForward, card: Card) -> Iterator[tuple[Linear, int]]:
    """Both layers, each with the inputs that one program goes through: fewer than all where they are split."""
    for linear, cut in zip(linears(problem), chosen(problem, card), strict=True):
        yield linear, part(problem.tokens, linear.inputs, linear.rows, cut.value, card.multiprocessors)


def default(linear: Linear, problem: FeedForward, card: Card) -> Tiles:
    """The tiles where nobody measured."""
    return tiles(problem.tokens, linear.inputs, linear.rows, ITEM_BYTES[problem.dtype], card)


def key(linear: Linear, problem: FeedForward, card: Card) -> Key:
    """By the tokens and the matrix, whose sizes are rounded up to powers of two; rows that begin anywhere are a case of their own.

    So are GELU's error function, which takes more registers than other activations do, biases, keeping what comes before, and too few
    tokens for the largest tiles to fill the card.
    """
    kind = " odd rows" * (linear.inputs % 16 > 0) + " gated" * linear.asked.gated
    return Key(
        function="linear_kernel",
        architecture=architecture(card.capability),
        triton=triton_version(),
        dtype=problem.dtype,
        size=f"{power_of_two(linear.inputs)}→{power_of_two(linear.outputs)}{kind}",
        length=length_class(problem.tokens),
        traits=", ".join([*_traits(linear.asked), *_fewness(linear, problem, card)]),
    )


SPLIT_LENGTHS = {length_class(tokens) for tokens in (1, MOST_SPLIT_TOKENS)}
FEW = ("", "few tiles", "fewest tiles")


def _traits(asked: code.Asked) -> list[str]:
    said = {"gelu": asked.activation == "gelu", "bias": asked.bias, "kept": asked.before}
    return [name for name, there in said.items() if there]


def _fewness(linear: Linear, problem: FeedForward, card: Card) -> list[str]:
    """Which of the tiles for so many tokens fills the card: defaults differ, and what was measured against one says nothing of others."""
    usual, table = default(linear, problem, card), offered(ITEM_BYTES[problem.dtype], card.capability)
    row = next(table[limit] for limit in sorted(table) if problem.tokens <= limit)
    return [FEW[row.index(usual)]] if usual in row[1:] else []


def tasks(problem: FeedForward, card: Card) -> Iterator[Task]:
    """What there is to choose, of each layer whose rows begin on 16 bytes; once where both have the same key."""
    seen = set()
    for linear in linears(problem):
        found = _task(linear, problem, card)
        if linear.inputs % 16 == 0 and found.key not in seen:
            seen.add(found.key)
            yield found


def _task(linear: Linear, problem: FeedForward, card: Card) -> Task:
    usual = default(linear, problem, card)
    return Task(
        key=key(linear, problem, card),
        default=usual,
        candidates=tuple(cut for cut in candidates(problem, usual, card) if cut != usual),
        why_not=lambda cut: None if cut == usual else why_not(cut, linear, problem, card),
        forms=lambda cut: forms(cut, linear, problem, card),
    )


def candidates(problem: FeedForward, usual: Tiles, card: Card) -> tuple[Tiles, ...]:
    """Tiles of every shape for so many tokens, of every number of warps and stages; the usual ones with one thing changed.

    That is another order of blocks, an epilogue in other parts, programs that stay or do not, by pointers, more or fewer splits.
    """
    if ITEM_BYTES[problem.dtype] == 4:
        grid = product((16,) if problem.tokens <= 16 else (32, 64, 128), (32, 64, 128), (16, 32), (4, 8), (2, 3))
    else:
        rows = (16,) if problem.tokens <= 16 else (16, 32, 64, 128) if problem.tokens <= 256 else (64, 128, 256)
        many = problem.tokens > 256
        grid = product(rows, (64, 128, 256) if many else (32, 64, 128, 256), (32, 64, 128), (4, 8), (3, 4) if many else (3, 4, 5))
    tma = ITEM_BYTES[problem.dtype] == 2 and card.capability[0] in (9, 10)
    found = []
    for bt, bn, bk, warps, stages in grid:
        # each thread has its part of the epilogue: 32 numbers at a time
        parts = max(1, min(4, bt * bn // (32 * warps) // 32))
        swapped = tma and bt < 64 <= bn
        found.append(
            Tiles(bt, bn, bk, warps, stages, subtile=parts, persistent=int(tma and bt * bn >= 128 * 128), tma=tma, swapped=swapped)
        )
    found += [replace(usual, group=group) for group in (1, 4, 16)] + [replace(usual, subtile=parts) for parts in (1, 2, 4)]
    found += [replace(usual, persistent=programs) for programs in (0, 1, 2)] + [by_pointers(usual)]
    if problem.tokens <= MOST_SPLIT_TOKENS:
        found += [replace(usual, aim=aim) for aim in (1, 3, 4)]
        found += [replace(usual, swapped=not usual.swapped)] * (tma and usual.bt < 64)
    return tuple(dict.fromkeys(found))


def why_not(cut: Tiles, linear: Linear, problem: FeedForward, card: Card) -> str | None:
    """Why arithmetic leaves tiles out, in a sentence."""
    shared = cut.shared_bytes(ITEM_BYTES[problem.dtype])
    if shared > card.shared_bytes:
        return f"takes {shared >> 10} KB of shared memory: a program has {card.shared_bytes >> 10}"
    numbers = cut.bt * cut.bn / (32 * cut.warps)
    if not FEWEST_NUMBERS <= numbers <= MOST_NUMBERS:
        return f"holds {numbers:g} sums in a thread: it should be {FEWEST_NUMBERS} to {MOST_NUMBERS}"
    if cut.bk > 2 * linear.inputs or cut.bn > 2 * linear.rows:
        return f"is larger than the matrix of {linear.inputs}→{linear.rows}"
    if cut.bn // cut.subtile < 32:
        return f"cuts {cut.bn} columns into {cut.subtile} parts: rows of less than 64 bytes are not worth a store of their own"
    return None


def stored(capability: tuple[int, int]) -> Iterator[Configuration]:
    """Every form of the tiles that were chosen for a card: `kerneldyno codegen` compiles them beside the defaults."""
    for key, cut in stored_tiles("linear_kernel", capability, Tiles):
        for name, asked in (code.VARIANTS | code.KEEPING).items():
            if asked.gated == key.size.endswith(" gated") and _traits(asked) == [
                word for word in key.traits.split(", ") if word not in FEW
            ]:
                inputs = int(key.size.partition("→")[0])
                yield code.configuration(capability, inputs, key.dtype, f"{name}, tuned for {key.length}", _launched(asked), cut)
        if cut.bt <= MOST_SPLIT_TOKENS and key.length in SPLIT_LENGTHS:
            inputs = int(key.size.partition("→")[0])
            yield code.split_configuration(capability, inputs, key.dtype, cut, variant=f"split, tuned for {key.length}")


def forms(cut: Tiles, linear: Linear, problem: FeedForward, card: Card) -> Iterator[Configuration]:
    """What this problem asks for; and the most that one with the same key may, with inputs that are no multiple of the tile."""
    given, asked = (card.capability, linear.inputs, problem.dtype), linear.asked
    yield code.configuration(*given, "as asked", asked, cut)
    if part(problem.tokens, linear.inputs, linear.rows, cut, card.multiprocessors) < linear.inputs:
        yield code.split_configuration(*given, cut)
    most = _launched(replace(asked, residual=True))
    uneven = linear.inputs // cut.bk * cut.bk + 16
    yield code.configuration(card.capability, uneven, problem.dtype, "everything", most, cut)


def _launched(asked: code.Asked) -> code.Asked:
    """What is asked of one layer of a network: nothing is added to that which has an activation."""
    return replace(asked, residual=asked.residual and asked.activation == "none")
