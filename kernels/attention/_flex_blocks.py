"""Which blocks of keys FlexAttention visits, from arithmetic on block numbers instead of a look at every pair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import pad

if TYPE_CHECKING:
    from ._flex_layout import Layout
    from .problem import AttentionInputs

    Runs = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
    Lists = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None]


@dataclass(frozen=True)
class Blocks:
    """Lists of the blocks to visit, made of constants that are made once: inductor (2.13) stumbles over divisions of an arange.

    The keys that the queries of one block see by their positions and lengths are a run, and those that all of them see
    are a run within it: whole blocks of the latter need no mask, and nothing outside of the former is visited. torch's
    create_block_mask would evaluate the mask at every pair to find out the same.
    """

    layout: Layout
    start: torch.Tensor
    """The first row of each block of queries: int64 [q blocks]."""
    first: torch.Tensor
    """The first query of each, and `last` the last one; blocks of packed heads hold all queries."""
    last: torch.Tensor
    numbers: torch.Tensor
    """0, 1, … for each block of keys: int64 [kv blocks]."""
    heads: torch.Tensor
    """0, 1, … for each key-value head: int64 [kv_heads, 1, 1]."""

    @classmethod
    def of(cls, layout: Layout, device: torch.device) -> Blocks:
        start = torch.arange(0, layout.rows, layout.q_block, device=device)
        first, last = start, start + layout.q_block - 1
        if layout.packed:
            first, last = start * 0, start + layout.problem.q_len - 1
        numbers = torch.arange(-(-layout.problem.kv_len // layout.kv_block), device=device)
        heads = torch.arange(layout.problem.kv_heads, device=device)[:, None, None]
        return cls(layout, start, first, last.clamp(max=layout.problem.q_len - 1), numbers, heads)

    def lists(self, inputs: AttentionInputs) -> Lists:
        """(counts, numbers) of the blocks that need a mask, and of those that need none: None where there are never any.

        counts int32 [rows, 1, q blocks], numbers int32 [rows, 1, q blocks, kv blocks], rows being 1 where batch rows are
        all alike. Traceable by torch.compile.
        """
        begin, end, full_begin, full_end = self._runs(inputs)
        full = (full_end - full_begin).clamp(min=0)
        some = end - begin - full
        left = torch.where(full > 0, full_begin - begin, some)  # how many of them lie before the full ones
        left_of, right_of = begin[..., None] + self.numbers, (full_end - left)[..., None] + self.numbers
        masked = self._placed(inputs, some, torch.where(self.numbers < left[..., None], left_of, right_of))
        if not self.layout.cpu and (self.layout.short or inputs.mask is not None):
            return *masked, None, None  # better than empty lists: the decoding kernel then divides what is in the other
        return *masked, *self._placed(inputs, full, full_begin[..., None] + self.numbers)

    def _runs(self, inputs: AttentionInputs) -> Runs:
        """(first, one past the last) block seen by any and by all queries of each block: int64 [1 or batch, q blocks] each."""
        problem, size = self.layout.problem, self.layout.kv_block
        lengths = None if inputs.lengths is None else inputs.lengths.long()[:, None]
        past = lengths - problem.q_len if problem.ragged and lengths is not None else problem.kv_len - problem.q_len
        from_first, to_first = self._seen(lengths, (self.first + past).view(-1, len(self.first)))
        from_last, to_last = self._seen(lengths, (self.last + past).view(-1, len(self.last)))
        begin, full_begin = from_first // size, (from_last + size - 1) // size
        end = torch.where(to_last > from_first, (to_last + size - 1) // size, begin)
        full_end = to_first // size
        if inputs.mask is not None:
            full_end = full_begin
        elif not self.layout.cpu:  # there a block that sticks out beyond the last query is never full
            full_end = torch.where(self.start + self.layout.q_block <= self.layout.rows, full_end, full_begin)
        return begin, end, full_begin, full_end

    def _seen(self, lengths: torch.Tensor | None, position: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(first, one past the last) key that a query at these positions [1 or batch, q blocks] sees."""
        problem = self.layout.problem
        begin = (position - problem.window + 1).clamp(min=0) if problem.window else torch.zeros_like(position)
        end = torch.full_like(position, problem.kv_len)
        if problem.causal or problem.window:
            end = (position + (1 if problem.causal else problem.window)).clamp(min=0, max=problem.kv_len)
        end = end if lengths is None else end.minimum(lengths)
        return begin.expand_as(end), end

    def _placed(self, inputs: AttentionInputs, counts: torch.Tensor, numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Counts and numbers of blocks as FlexAttention takes them: for each head those of the pool, where keys are paged."""
        problem, layout = self.layout.problem, self.layout
        numbers = numbers.clamp(min=0, max=len(self.numbers) - 1)
        if inputs.block_table is None:
            return counts.int()[:, None].contiguous(), numbers.int()[:, None].contiguous()
        per_page = problem.page_size // layout.kv_block
        numbers = numbers.expand(problem.batch, -1, -1)
        pages = inputs.block_table.long().gather(1, (numbers // per_page).flatten(1)).view(numbers.shape)
        found = (pages[:, None] * problem.kv_heads + self.heads) * per_page + (numbers % per_page)[:, None]
        found = found.int().reshape(layout.batch, 1, *numbers.shape[1:])
        if layout.cpu:  # its list must be as long as there are blocks in the pool
            found = pad(found, (0, layout.keys // layout.kv_block - len(self.numbers)))
        counts = counts.int()[:, None].expand(problem.batch, problem.kv_heads, -1)
        return counts.reshape(layout.batch, 1, -1), found
