"""Slots hold what they say they hold, new numbers in every round, and answers find back to their questions."""

from __future__ import annotations

import torch

from kerneldyno.bench.pool import Pool
from kerneldyno.kernels.attention.problem import Attention

PROBLEM = Attention(batch=1, heads=2, q_len=8, head_dim=16)


def test_numbers_are_new_in_every_round_and_answers_known():
    variants = [PROBLEM.inputs(0), PROBLEM.inputs(1)]
    rights = [PROBLEM.reference(inputs) for inputs in variants]
    pool = Pool(variants, 2, PROBLEM)
    addresses = [slot.q.data_ptr() for slot in pool.slots]
    seen = set()
    for number in range(50):
        pool.refresh(number)
        for i, slot in enumerate(pool.slots):
            seen.add(slot.k.numpy().tobytes())
            answered = pool.answered(i, PROBLEM.reference(slot))
            torch.testing.assert_close(answered.plain(), rights[answered.variant])
            assert answered.variant == (i + number) % 2
    assert len(seen) == 100
    assert [slot.q.data_ptr() for slot in pool.slots] == addresses


def test_without_a_problem_the_variants_take_turns_as_they_are():
    variants = [PROBLEM.inputs(0), PROBLEM.inputs(1)]
    pool = Pool(variants, 3)
    pool.refresh(1)
    assert torch.equal(pool.slots[0].q, variants[1].q)
    assert pool.take(2) == [0, 1]
    assert pool.take(3) == [2, 0, 1]
    answer = object()
    assert pool.answered(0, answer).plain() is answer
