"""What may be chosen of integer products: the tiles of both layers, their keys, and the candidates that a device can be asked about.

No torch and no Triton.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

from .._tuned import Chosen, Key, architecture, choose, length_class, power_of_two, triton_version
from .._tuned import tiles as stored_tiles
from .._tuning import Task
from . import _fused_code as fused_code
from . import _int8_code as code
from . import _int8_tiles as cuts
from ._fused_tuning import FEWEST_NUMBERS, MOST_NUMBERS, linears
from ._int8_tiles import Tiles

if TYPE_CHECKING:
    from .._cards import Card
    from .._code import Configuration
    from ._fused_tuning import Linear
    from .problem import FeedForward

FUNCTION = "linear_int8_kernel"
FEWNESS = ("", "", "few tiles", "fewest tiles")


def chosen(problem: FeedForward, card: Card) -> tuple[Chosen[Tiles], ...]:
    """The tiles that W1 and W2 are multiplied in, and where they come from."""
    return tuple(choose(key(linear, problem, card), default(linear, problem, card)) for linear in linears(problem))


def default(linear: Linear, problem: FeedForward, card: Card) -> Tiles:
    """The tiles where nobody measured."""
    offered = cuts.integer_tiles(card.capability, gated=linear.asked.gated)
    return cuts.chosen(offered, problem.tokens, linear.outputs, card.multiprocessors)


def key(linear: Linear, problem: FeedForward, card: Card) -> Key:
    """By the tokens and the matrix, whose sizes are rounded up to powers of two; GELU and biases take registers of their own."""
    asked = linear.asked
    return Key(
        function=FUNCTION,
        architecture=architecture(card.capability),
        triton=triton_version(),
        dtype=problem.dtype,
        size=f"{power_of_two(linear.inputs)}→{power_of_two(linear.outputs)}" + " gated" * asked.gated,
        length=length_class(problem.tokens),
        traits=", ".join([*_traits(asked), *_fewness(linear, problem, card)]),
    )


def _fewness(linear: Linear, problem: FeedForward, card: Card) -> list[str]:
    """Which of the tiles for so many tokens fills the card: defaults differ, and what was measured against one says nothing of others."""
    place = cuts.integer_tiles(card.capability, gated=linear.asked.gated).index(default(linear, problem, card))
    return [FEWNESS[place]] if place > 1 else []


def _traits(asked: fused_code.Asked) -> list[str]:
    return [*(["gelu"] if asked.activation == "gelu" else []), *(["bias"] if asked.bias else [])]


def tasks(problem: FeedForward, card: Card) -> Iterator[Task]:
    """What there is to choose, of each layer; once where both have the same key."""
    seen = set()
    for linear in linears(problem):
        found = _task(linear, problem, card)
        if found.key not in seen:
            seen.add(found.key)
            yield found


def _task(linear: Linear, problem: FeedForward, card: Card) -> Task:
    usual = default(linear, problem, card)
    return Task(
        key=key(linear, problem, card),
        default=usual,
        candidates=tuple(cut for cut in candidates(problem, usual) if cut != usual),
        why_not=lambda cut: None if cut == usual else why_not(cut, linear, card),
        forms=lambda cut: forms(cut, linear, problem, card),
    )


def candidates(problem: FeedForward, usual: Tiles) -> tuple[Tiles, ...]:
    """Tiles of every shape for so many tokens, of every number of warps and stages; the usual ones in another order of blocks."""
    rows = (16,) if problem.tokens <= cuts.FEW else (16, 32, 64, 128) if problem.tokens <= 256 else (64, 128, 256)
    columns = (64, 128, 256) if problem.tokens > 256 else (32, 64, 128)
    found = [Tiles(*numbers) for numbers in product(rows, columns, (64, 128), (4, 8), (3, 4, 5))]
    return tuple(dict.fromkeys([*found, *(replace(usual, group=group) for group in (1, 4, 16))]))


def why_not(cut: Tiles, linear: Linear, card: Card) -> str | None:
    """Why arithmetic leaves tiles out, in a sentence."""
    shared = cut.shared_bytes(gated=linear.asked.gated)
    if shared > card.shared_bytes:
        return f"takes {shared >> 10} KB of shared memory: a program has {card.shared_bytes >> 10}"
    numbers = cut.bt * cut.bn * (2 if linear.asked.gated else 1) / (32 * cut.warps)
    if not FEWEST_NUMBERS <= numbers <= MOST_NUMBERS:
        return f"holds {numbers:g} sums in a thread: it should be {FEWEST_NUMBERS} to {MOST_NUMBERS}"
    if cuts.WIDTH % cut.bk:
        return f"rows are filled up to multiples of {cuts.WIDTH}, which {cut.bk} does not divide"
    if cut.bn > 2 * linear.outputs:
        return f"is larger than the matrix of {linear.inputs}→{linear.outputs}"
    return None


def stored(capability: tuple[int, int]) -> Iterator[Configuration]:
    """Every form of the tiles that were chosen for a card: `kerneldyno codegen` compiles them beside the defaults."""
    for found, cut in stored_tiles(FUNCTION, capability, Tiles):
        for name, asked in fused_code.VARIANTS.items():
            if asked.gated == found.size.endswith(" gated") and _traits(asked) == [
                word for word in found.traits.split(", ") if word and word not in FEWNESS
            ]:
                inputs, variant = int(found.size.partition("→")[0]), f"{name}, tuned for {found.length}"
                tma = cuts.takes_tma(capability, cut)
                yield code.configuration(capability, inputs, found.dtype, variant, _launched(asked), cut, integers=True, tma=tma)


def forms(cut: Tiles, linear: Linear, problem: FeedForward, card: Card) -> Iterator[Configuration]:
    """What this problem asks for; and the most that one with the same key may."""
    tma = cuts.takes_tma(card.capability, cut)
    for name, asked in (("as asked", linear.asked), ("everything", _launched(replace(linear.asked, residual=True)))):
        yield code.configuration(card.capability, linear.inputs, problem.dtype, name, asked, cut, integers=True, tma=tma)


def _launched(asked: fused_code.Asked) -> fused_code.Asked:
    """What is asked of one layer of a network: nothing is added to that which has an activation."""
    return replace(asked, residual=asked.residual and asked.activation == "none")
