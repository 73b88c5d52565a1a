"""Block-sparse attention: of the blocks of keys those with the largest estimated weight, chosen anew in every call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._cards import Card
from .._identity import triton_kernels
from ..registry import Device, Kernel, NotAsNamed, Run, Setup, Trace, kernel
from . import _sparse_card
from ._on_device import started
from ._precision import precision
from ._sparse_blocks import KEYS, QUERIES, Choice, kept_share, spans, too_few
from ._sparse_claim import claimed
from ._sparse_code import BLOCKS, Asked, configurations
from ._sparse_gather import through_blocks
from .problem import Attention, AttentionInputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch

    from .._code import Configuration

MASS = 0.9
"""Of the estimated weight, that the kept blocks have together."""


def refuses(problem: Attention, device: Device) -> str | None:
    """Few keys, of which there is nothing to leave out, and what the Triton kernels are not written for."""
    most = KEYS * BLOCKS[1]
    if device.kind == "cuda" and problem.kv_len > most:
        return f"chooses among at most {most} keys on a GPU, not among {problem.kv_len}"
    return too_few(problem) or _sparse_card.refuses(problem, device)


def launched(problem: Attention, choice: Choice, card: Card, *, precision: str = "ieee") -> Run:
    """inputs -> output by the Triton kernels, cut for the card; in Triton's interpreter on a CPU."""
    from ._sparse_launch import attend

    options = _sparse_card.options(problem, card, Asked(precision=precision))
    return lambda inputs: attend(inputs.q, inputs.k, inputs.v, lengths=inputs.lengths, choice=choice, **options)


def device_code(capability: tuple[int, int]) -> Iterator[Configuration]:
    """Every form in which its kernels may be launched on a card."""
    return configurations(capability, listed=True)


def flops_at_most(problem: Attention, choice: Choice, queries: int) -> int:
    """Of products with the kept blocks, what a mask hides in them included, and of the estimates."""
    found = 0
    for length in problem.lengths():
        every = list(spans(problem, queries, length))
        pairs = sum(span.kept(choice) for span in every) * min(queries, problem.q_len) * KEYS
        estimates = len(every) * -(-length // KEYS)
        found += 2 * problem.heads * problem.head_dim * (2 * pairs + estimates)
    return found


def judge_of(choice: Choice) -> Callable[[Attention, Setup, Trace], str]:
    """Who says what ran, and what share of the blocks that leaves: of the mass only a CPU shows it, by the products that were made."""

    def ran(problem: Attention, setup: Setup, trace: Trace) -> str:
        queries = QUERIES[setup.device.type]
        if setup.device.type == "cuda":
            told = f"{choice.mass:.0%} of the mass" if choice.mass else f"{kept_share(problem, choice, queries):.0%} of the blocks"
            cut = _sparse_card.options(problem, Card.of(setup.device), Asked())["cut"]
            names = ("sparse_kernel", "select_kernel", "pool_kernel")
            return f"{triton_kernels(*names, alone=True)(problem, setup, trace)}: {told} of {KEYS} keys for {queries} queries, {cut}"
        most = flops_at_most(problem, choice, queries)
        if not 0 < trace.product_flops <= most:
            raise NotAsNamed(f"torch's products took {trace.product_flops:.3g} flop, those with the kept blocks take at most {most:.3g}")
        every = flops_at_most(problem, Choice(parts=1), queries)
        return f"{trace.product_flops / every:.0%} of the products with visible blocks of {KEYS} keys for {queries} queries"

    return ran


def declared(name: str, choice: Choice, summary: str) -> Kernel:
    """The kernel of that name, which keeps so much.

    A block's weight is estimated as what its mean key gets from the mean query, as in MInference's block-sparse heads (arXiv 2407.02490).
    The first block stays in any case: first tokens draw attention whatever they say (StreamingLLM, arXiv 2309.17453). So do, of a causal
    problem, those at the queries' own positions, and every query sees a key. What is left of the share goes to the heaviest others.
    Heads choose for themselves, but where they have a single query each: there a group has one choice, since its keys are read once.
    """

    def claim(problem: Attention, setup: Setup, inputs: AttentionInputs) -> torch.Tensor:
        return claimed(problem, inputs, choice, QUERIES[setup.device.type])

    def build(problem: Attention, setup: Setup) -> Run:
        if setup.device.type != "cuda":
            return through_blocks(problem, choice, QUERIES["cpu"])
        return started(launched(problem, choice, Card.of(setup.device), precision=precision()), setup.calibration)

    build.__doc__ = summary
    return kernel(
        Attention,
        name=name,
        accepts=("causal", "padding", "ragged"),
        requires=("cuda:triton",),
        approximate=True,
        claim=claim,
        refuses=refuses,
        identified=judge_of(choice),
        device_code=device_code,
    )(build)


CHOSEN = f"the {KEYS}-key blocks with the largest estimated weight for each block of queries, chosen in every call"
block_sparse_50 = declared("block_sparse_50", Choice(parts=2), f"Half of the visible keys: {CHOSEN}.")
block_sparse_25 = declared("block_sparse_25", Choice(parts=4), f"A quarter of the visible keys: {CHOSEN}.")
block_sparse_12 = declared("block_sparse_12", Choice(parts=8), f"An eighth of the visible keys: {CHOSEN}.")
block_sparse_mass90 = declared("block_sparse_mass90", Choice(mass=MASS), f"As many as have 90 % of the estimated weight of {CHOSEN}.")
