"""The mathematics of attention, against an independent implementation that visits one query after the other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kerneldyno.kernels.attention import _blocks
from kerneldyno.kernels.attention._paging import paged
from kerneldyno.kernels.attention.problem import Attention, AttentionInputs


def sees(problem: Attention, inputs: AttentionInputs, b: int, i: int, j: int) -> bool:
    """Query i of batch row b sees key j, as the definition says it."""
    end = int(inputs.lengths[b]) if problem.ragged and inputs.lengths is not None else problem.kv_len
    position = i + end - problem.q_len
    if problem.causal and j > position:
        return False
    if problem.window and abs(j - position) >= problem.window:
        return False
    if inputs.lengths is not None and j >= int(inputs.lengths[b]):
        return False
    return inputs.mask is None or bool(inputs.mask[0, 0, i, j])


def one_by_one(problem: Attention, inputs: AttentionInputs) -> torch.Tensor:
    q, k, v = (tensor.double() for tensor in (inputs.q, inputs.k, inputs.v))
    rows = []

    def at(tensor: torch.Tensor, b: int, h: int, j: int) -> torch.Tensor:
        if inputs.block_table is None:
            return tensor[b, h, j]
        return tensor[int(inputs.block_table[b, j // problem.page_size]), h, j % problem.page_size]

    for b in range(problem.batch):
        for h in range(problem.heads):
            shared = h // (problem.heads // problem.kv_heads)
            for i in range(problem.q_len):
                keys = [j for j in range(problem.kv_len) if sees(problem, inputs, b, i, j)]
                total, mixed = torch.zeros((), dtype=torch.double), q[b, h, i] * 0
                for j in keys:
                    score = (q[b, h, i] * at(k, b, shared, j)).sum() / problem.head_dim**0.5
                    if problem.softcap:
                        score = problem.softcap * (score / problem.softcap).tanh()
                    if inputs.bias is not None:
                        score = score + inputs.bias[0, h, i, j].double()
                    total, mixed = total + score.exp(), mixed + score.exp() * at(v, b, shared, j)
                rows.append(mixed / total if keys else mixed)
    return torch.stack(rows).reshape(problem.batch, problem.heads, problem.q_len, problem.head_dim)


@st.composite
def problems(draw: st.DrawFn, /, **fixed: Any) -> Attention:
    kv_heads, q_len, kv_len = draw(st.integers(1, 2)), draw(st.integers(1, 5)), draw(st.integers(1, 5))
    lengths = draw(st.sampled_from(["", "padding", "ragged"]))
    return Attention(
        batch=draw(st.integers(1, 3)),
        heads=kv_heads * draw(st.integers(1, 2)),
        kv_heads=kv_heads,
        q_len=q_len,
        kv_len=max(q_len, kv_len) if lengths == "ragged" else kv_len,
        head_dim=draw(st.integers(1, 4)),
        causal=draw(st.booleans()),
        padding=lengths == "padding",
        ragged=lengths == "ragged",
        bias=draw(st.sampled_from(["none", "additive", "boolean"])),
        window=draw(st.sampled_from([0, 0, 1, 2, 4])),
        softcap=draw(st.sampled_from([0.0, 0.0, 0.5, 3.0])),
        page_size=0 if fixed.get("direction") == "backward" else draw(st.sampled_from([0, 0, 1, 2, 3])),
        **fixed,
    )


@given(problem=problems(), seed=st.integers(0, 9))
@settings(deadline=None, max_examples=60)
def test_reference_and_naive_follow_the_definition(problem: Attention, seed: int) -> None:
    inputs = problem.inputs(seed)
    right = one_by_one(problem, inputs)
    assert problem.reference(inputs).dtype == torch.float64
    torch.testing.assert_close(problem.reference(inputs), right, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(problem.naive(inputs), right.float(), rtol=1e-4, atol=1e-5)


@given(problem=problems(direction="backward"), seed=st.integers(0, 9))
@settings(deadline=None, max_examples=25)
def test_gradients_follow_the_definition(problem: Attention, seed: int) -> None:
    inputs = problem.inputs(seed)
    assert inputs.grad is not None
    leaves = {name: getattr(inputs, name).double().requires_grad_() for name in "qkv"}
    output = one_by_one(problem, inputs.replace(**leaves))
    # where nobody sees a key, k and v have no part in the output
    right = torch.autograd.grad(output, list(leaves.values()), inputs.grad.double(), materialize_grads=True)
    found = problem.gradients(inputs)
    for name, gradient in zip("qkv", right, strict=True):
        torch.testing.assert_close(found.by_name[name], gradient, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.output, problem.reference(inputs), rtol=0, atol=1e-12)


@pytest.mark.parametrize("scores", [1, 7, 64, 300])
def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch, case: dict[str, Any], scores: int) -> None:
    direction = "forward" if "page_size" in case else "backward"
    problem = Attention(**{**case, "q_len": min(case["q_len"], 9), "kv_len": 11, "head_dim": 4}, direction=direction)
    inputs = problem.inputs(0)

    def everything() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return problem.reference(inputs), problem.gradients(inputs).by_name if direction == "backward" else {}

    whole, whole_gradients = everything()
    monkeypatch.setitem(_blocks.BLOCK_SCORES, "cpu", scores)
    parts, part_gradients = everything()
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-14)
    for name, gradient in part_gradients.items():
        torch.testing.assert_close(gradient, whole_gradients[name], rtol=0, atol=1e-13)


def test_naive_gradients_are_in_the_problems_dtype() -> None:
    problem = Attention(q_len=9, head_dim=8, dtype="bfloat16", direction="backward")
    found = problem.gradients(problem.inputs(0), naive=True)
    assert {tensor.dtype for tensor in (found.output, *found.by_name.values())} == {torch.bfloat16}


def test_gradients_need_inputs_with_grad() -> None:
    with pytest.raises(ValueError, match="hold no grad"):
        Attention(q_len=2, direction="backward").gradients(Attention(q_len=2).inputs(0))


def test_visible_is_what_the_definition_says(case: dict[str, Any]) -> None:
    problem = Attention(**{**case, "q_len": min(case["q_len"], 6), "kv_len": min(case.get("kv_len", 6), 8)})
    inputs = problem.inputs(3)
    visible = problem.visible(inputs)
    if visible is None:
        assert not problem.masked or problem.bias == "additive"
        return
    visible = visible.expand(problem.batch, problem.heads, problem.q_len, problem.kv_len)
    for b in range(problem.batch):
        for i in range(problem.q_len):
            for j in range(problem.kv_len):
                assert bool(visible[b, 0, i, j]) == sees(problem, inputs, b, i, j)


def test_with_mask_hides_in_addition() -> None:
    problem = Attention(batch=2, q_len=4, kv_len=6, bias="boolean")
    inputs = problem.inputs(0)
    only_first = torch.arange(6).expand(4, 6) == 0
    both = inputs.with_mask(only_first)
    assert inputs.mask is not None
    assert both.mask is not None
    assert torch.equal(both.mask, inputs.mask & only_first)
    blind = ~inputs.mask[0, 0, :, 0]
    output = problem.reference(both)
    assert torch.equal(output[:, :, blind], torch.zeros_like(output[:, :, blind]))
    expected = inputs.v[:, :, :1].double().expand(-1, -1, int((~blind).sum()), -1)
    torch.testing.assert_close(output[:, :, ~blind], expected, rtol=0, atol=1e-15)
    torch.testing.assert_close(Attention(q_len=4, kv_len=6).inputs(0).with_mask(only_first).mask, only_first[None, None])


def test_inputs_repeat_with_the_seed_and_differ_between_seeds() -> None:
    problem = Attention(batch=2, q_len=5, padding=True, bias="boolean", dtype="float16", direction="backward")
    once, again, other = (problem.inputs(seed).tensors() for seed in (4, 4, 5))
    for name, tensor in once.items():
        assert torch.equal(tensor, again[name])
    assert not torch.equal(once["q"], other["q"])
    assert torch.equal(once["lengths"], other["lengths"]), "lengths follow from the shape alone"
    assert {once[name].dtype for name in ("q", "k", "v", "grad")} == {torch.float16}
    assert once["mask"].dtype == torch.bool
    assert once["lengths"].dtype == torch.int32


@pytest.mark.parametrize(
    ("batch", "keys", "lengths"),
    [(1, 10, (7,)), (2, 10, (5, 10)), (3, 512, (256, 384, 512)), (4, 9, (4, 6, 7, 9)), (3, 1, (1, 1, 1))],
)
def test_lengths_of_padded_rows(batch: int, keys: int, lengths: tuple[int, ...]) -> None:
    assert Attention(batch=batch, q_len=keys, padding=True).lengths() == lengths
    assert Attention(batch=batch, q_len=keys).lengths() == (keys,) * batch


def test_defaults_follow_the_given_sizes() -> None:
    problem = Attention(heads=4, q_len=7)
    assert (problem.kv_heads, problem.kv_len, problem.head_dim, problem.grouped, problem.cross) == (4, 7, 64, False, False)
    assert problem.fields()["kv_heads"] == 4
    assert Attention(**problem.fields()) == problem
    assert problem.weights(0) is None


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({"batch": 2, "heads": 8, "q_len": 512, "causal": True}, "2×8×512×64 causal fp32"),
        ({"heads": 32, "kv_heads": 8, "q_len": 2048, "head_dim": 128, "dtype": "bfloat16"}, "1×32/8×2048×128 bf16"),
        ({"heads": 32, "kv_heads": 8, "q_len": 1, "kv_len": 4096, "head_dim": 128}, "1×32/8×1→4096×128 fp32"),
        ({"q_len": 3, "padding": True, "bias": "additive", "direction": "backward"}, "1×8×3×64 padding bias fp32 fwd+bwd"),
        ({"q_len": 3, "causal": True, "bias": "boolean", "dtype": "float16"}, "1×8×3×64 causal mask fp16"),
        ({"q_len": 9, "causal": True, "window": 4, "softcap": 50}, "1×8×9×64 causal window 4 softcap 50 fp32"),
        ({"q_len": 1, "kv_len": 9, "ragged": True, "page_size": 16}, "1×8×1→9×64 ragged pages of 16 fp32"),
    ],
)
def test_label_tells_problems_apart(changes: dict[str, Any], label: str) -> None:
    assert Attention(**changes).label == label


def test_axes_and_features() -> None:
    decode = Attention(batch=4, q_len=1, kv_len=512, causal=True, padding=True)
    assert decode.shape == (4, 512)
    assert decode.tokens == 4
    assert decode.features == {"causal", "padding"}
    assert Attention(q_len=9, kv_len=3).shape == (1, 9)
    assert Attention(q_len=3, bias="additive").features == {"bias"}
    assert Attention(q_len=3, bias="boolean").features == {"mask"}
    assert Attention(heads=4, kv_heads=1, q_len=3, kv_len=9).features == frozenset()
    everything = Attention(q_len=3, window=2, softcap=1.5, ragged=True, page_size=4)
    assert everything.features == {"window", "softcap", "ragged", "paged"}


def test_fields_that_ask_for_nothing_do_not_change_the_name_of_a_case() -> None:
    plain = Attention(q_len=3)
    assert not {"window", "softcap", "ragged", "page_size"} & set(plain.fields())
    asking = Attention(q_len=3, window=2, softcap=30, page_size=4)
    assert {name: asking.fields()[name] for name in ("window", "softcap", "page_size")} == {"window": 2, "softcap": 30.0, "page_size": 4}
    assert isinstance(asking.softcap, float)
    assert Attention(**asking.fields()) == asking


def test_pages_lie_apart_and_hold_what_the_rows_hold() -> None:
    problem = Attention(batch=3, q_len=2, kv_len=21, kv_heads=2, heads=2, head_dim=4, page_size=8, ragged=True)
    inputs = problem.inputs(0)
    assert inputs.k.shape == (10, 2, 8, 4)
    assert inputs.lengths is not None
    assert inputs.block_table is not None
    assert inputs.lengths.tolist() == [10, 15, 21]
    owned = [inputs.block_table[row, : -(-int(n) // 8)].tolist() for row, n in enumerate(inputs.lengths)]
    assert len({page for pages in owned for page in pages}) == sum(len(pages) for pages in owned) == 7
    assert [inputs.block_table[row, len(pages) :].tolist() for row, pages in enumerate(owned)] == [[0], [0], []]
    moved = paged(problem, problem.dense(inputs), 3)
    assert moved.block_table is not None
    assert not torch.equal(moved.block_table, inputs.block_table)
    assert torch.equal(problem.reference(moved), problem.reference(inputs))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"q_len": 0}, "q_len 0 is impossible"),
        ({"q_len": 4, "kv_len": -1}, "kv_len -1 is impossible"),
        ({"q_len": 4, "batch": 0}, "batch 0 is impossible"),
        ({"q_len": 4, "head_dim": 2.5}, "head_dim 2.5 is impossible"),
        ({"q_len": 4, "heads": 6, "kv_heads": 4}, "heads 6 cannot share 4 kv_heads evenly"),
        ({"q_len": 4, "heads": 2, "kv_heads": 4}, "heads 2 cannot share 4 kv_heads evenly"),
        ({"q_len": 4, "bias": "alibi"}, "bias 'alibi' is unknown"),
        ({"q_len": 4, "window": -1}, "window -1 is impossible"),
        ({"q_len": 4, "page_size": True}, "page_size True is impossible"),
        ({"q_len": 4, "softcap": -2.0}, "softcap -2.0 is impossible"),
        ({"q_len": 4, "softcap": float("nan")}, "softcap nan is impossible"),
        ({"q_len": 4, "ragged": True, "padding": True}, "ragged and padding are two meanings"),
        ({"q_len": 4, "kv_len": 3, "ragged": True}, "q_len 4 is impossible in a ragged cache of kv_len 3"),
        ({"q_len": 4, "page_size": 16, "direction": "backward"}, "'backward' is not defined for a paged cache"),
        ({"q_len": 4, "dtype": "int8"}, "dtype 'int8' is unknown"),
        ({"q_len": 4, "direction": "sideways"}, "direction 'sideways' is not defined"),
    ],
)
def test_impossible_problems_are_refused_in_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Attention(**changes)


@pytest.mark.parametrize(
    ("changes", "flops"),
    [
        ({"heads": 8, "q_len": 512}, 4 * 8 * 512 * 512 * 64),
        ({"heads": 8, "q_len": 512, "causal": True}, 2 * 8 * 512 * 512 * 64),
        # 64 heads of 128, 4096 tokens, causal: what cuDNN's published 591 TFLOP/s at 0.465 ms are counted from
        ({"heads": 64, "kv_heads": 8, "q_len": 4096, "head_dim": 128, "causal": True}, 274_877_906_944),
        ({"heads": 2, "q_len": 1, "kv_len": 100, "causal": True}, 4 * 2 * 100 * 64),
        ({"heads": 1, "q_len": 10, "kv_len": 100, "causal": True}, 4 * 64 * (10 * 100 - 50)),
        ({"heads": 1, "q_len": 100, "kv_len": 10, "causal": True}, 4 * 64 * 50),
        ({"heads": 1, "batch": 2, "q_len": 4, "kv_len": 8, "padding": True}, 4 * 64 * 4 * (4 + 8)),
        ({"heads": 8, "q_len": 512, "direction": "backward"}, 14 * 8 * 512 * 512 * 64),
        ({"heads": 1, "q_len": 100, "causal": True, "window": 10}, 4 * 64 * (100 * 10 - 45)),
        ({"heads": 1, "q_len": 1, "kv_len": 100, "batch": 2, "ragged": True, "window": 60}, 4 * 64 * (50 + 60)),
        ({"heads": 1, "q_len": 4, "kv_len": 100, "batch": 2, "ragged": True, "causal": True}, 4 * 64 * (4 * 150 - 16)),
    ],
)
def test_flops(changes: dict[str, Any], flops: int) -> None:
    assert Attention(**changes).flops() == flops


@given(problem=problems())
@settings(deadline=None, max_examples=60)
def test_flops_count_the_pairs_up_to_half_a_pair_per_query(problem: Attention) -> None:
    inputs = problem.inputs(0).replace(mask=None)
    visible = problem.visible(inputs)
    pairs = problem.batch * problem.q_len * problem.kv_len
    if visible is not None:
        pairs = int(visible.expand(problem.batch, 1, problem.q_len, problem.kv_len).sum())
    exact = 4 * problem.heads * problem.head_dim * pairs
    most = 0 if problem.window else 2 * problem.heads * problem.head_dim * problem.batch * problem.q_len
    assert 0 <= exact - problem.flops() <= most


@given(problem=problems())
@settings(deadline=None, max_examples=60)
def test_bytes_count_the_keys_that_somebody_sees(problem: Attention) -> None:
    plain = Attention(**{**problem.fields(), "bias": "none", "page_size": 0})
    keys = sum(plain.lengths())
    if plain.window:
        visible = plain.visible(plain.inputs(0))
        assert visible is not None
        keys = int(visible.expand(plain.batch, 1, plain.q_len, plain.kv_len).any(2).sum())
    queries = plain.batch * plain.heads * plain.q_len
    assert plain.min_bytes() == 4 * plain.head_dim * (2 * queries + 2 * plain.kv_heads * keys)


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({"heads": 8, "q_len": 512}, 4 * 8 * 512 * 64 * 4),
        ({"heads": 8, "kv_heads": 2, "q_len": 1, "kv_len": 512, "dtype": "bfloat16"}, (2 * 8 + 2 * 2 * 512) * 64 * 2),
        ({"heads": 1, "batch": 2, "q_len": 4, "kv_len": 8, "padding": True}, (2 * 2 * 4 + 2 * (4 + 8)) * 64 * 4),
        ({"heads": 3, "q_len": 8, "bias": "additive"}, (4 * 3 * 8 * 64 + 3 * 8 * 8) * 4),
        ({"heads": 3, "q_len": 8, "bias": "boolean"}, 4 * 3 * 8 * 64 * 4 + 8 * 8),
        ({"heads": 8, "q_len": 512, "direction": "backward"}, 8 * 8 * 512 * 64 * 4),
        ({"heads": 1, "q_len": 1, "kv_len": 100, "causal": True, "window": 10}, (2 + 2 * 10) * 64 * 4),
        ({"heads": 1, "batch": 2, "q_len": 1, "kv_len": 40, "ragged": True, "page_size": 16}, (2 * 2 + 2 * 60) * 64 * 4 + (2 + 3) * 4),
    ],
)
def test_min_bytes(changes: dict[str, Any], size: int) -> None:
    assert Attention(**changes).min_bytes() == size
