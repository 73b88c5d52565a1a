from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kerneldyno.kernels import _given_embeddings as embeddings
from kerneldyno.kernels import _given_files as files
from kerneldyno.kernels._given_config import ModelError
from kerneldyno.kernels.attention.problem import Attention
from kerneldyno.kernels.feedforward.problem import FeedForward
from kerneldyno.kernels.layer.problem import Layer

TEXT = ("bert-small", "bert-masked", "roberta-small", "llama-small", "llama-biased", "mistral-small", "qwen2-small")
IMAGES = ("vit-small", "deit-small")
LENGTH = 24


def source(folder: Path, name: str) -> files.Source:
    return files.at(folder / name, inputs=folder / f"{name}.inputs.safetensors")


def whole(source: files.Source, layer: int, **fields) -> Layer:
    length = source.config.positions if source.config.family == "vit" else LENGTH
    return Layer(**{"batch": 2, "seq_len": length, **source.config.layer, "given": source.given(layer), **fields})


@pytest.mark.parametrize("name", [*TEXT, *IMAGES])
def test_hidden_states_are_those_of_transformers(small_models: Path, name: str) -> None:
    found = source(small_models, name)
    states = load_file(small_models / f"{name}.expected.safetensors")["states"]
    assert len(states) >= found.config.layers
    with files.offered(found):
        for layer in range(found.config.layers):
            problem = whole(found, layer)
            inputs = problem.inputs(0)
            assert torch.allclose(inputs.x, states[layer], rtol=1e-4, atol=2e-5), layer
            if layer + 1 < len(states):
                after = problem.reference(inputs, problem.weights(0)).float()
                assert torch.allclose(after, states[layer + 1], rtol=1e-4, atol=2e-5), layer


@pytest.mark.parametrize("name", ["bert-small", "llama-small", "vit-small"])
def test_the_parts_of_a_layer_get_what_reaches_them_there(small_models: Path, name: str) -> None:
    """Attention, projection, sum, norm and network, put together from the three problems' own inputs and weights."""
    found = source(small_models, name)
    with files.offered(found):
        layer = whole(found, 1)
        inputs, weights = layer.inputs(0), layer.weights(0)
        sizes = {name: getattr(layer, name) for name in ("batch", "heads", "kv_heads", "head_dim", "given")}
        attention = Attention(q_len=layer.seq_len, causal=layer.mask == "causal", **sizes)
        plain = layer.feedforward.fields() | {"given": layer.given}
        network = FeedForward(**plain)
        attended = attention.naive(attention.inputs(0))
        out = torch.nn.functional.linear(attended.transpose(1, 2).flatten(2), weights.w_out, weights.b_out)
        z = inputs.x + out
        if not layer.norm_first:
            z = layer.normalized(z, weights.norm1_weight, weights.norm1_bias)
        assert torch.allclose(network.inputs(0).x, z, rtol=1e-4, atol=1e-5)
        fed = network.naive(network.inputs(0), network.weights(0))
        answer = fed if layer.norm_first else layer.normalized(fed, weights.norm2_weight, weights.norm2_bias)
        assert torch.allclose(answer, layer.naive(inputs, weights), rtol=1e-4, atol=1e-5)
        assert network.label.endswith(f"fp32 {name} layer 1")
        assert attention.label.endswith(f"fp32 {name} layer 1")
        decode = Attention(**{**attention.fields(), "q_len": 1, "kv_len": layer.seq_len})
        assert torch.equal(decode.inputs(0).q, attention.inputs(0).q[:, :, -1:])


def test_seeds_draw_other_tokens_and_padding_reaches_all_layers(small_models: Path) -> None:
    found = files.at(small_models / "bert-small")
    with files.offered(found):
        first, again, other = (whole(found, 2).inputs(seed).x for seed in (0, 0, 1))
        assert torch.equal(first, again)
        assert not torch.isclose(first, other).all(-1).any()
        padded = whole(found, 2, padding=True).inputs(0)
        assert padded.lengths.tolist() == [12, 24]
        assert torch.equal(padded.x[1], first[1])
        assert not torch.allclose(padded.x[0, :12], first[0, :12])
    drawn = embeddings.tokens(found, 0, 64, 64).flatten()
    assert found.config.padding_token not in drawn.tolist()
    counts = drawn.bincount(minlength=200).sort(descending=True).values
    assert counts[0] > 5 * counts[20]


def test_another_dtype_is_the_same_weights_rounded(small_models: Path) -> None:
    found = files.at(small_models / "llama-small")
    with files.offered(found):
        wide, narrow = (whole(found, 1, dtype=dtype).weights(0) for dtype in ("float32", "bfloat16"))
    assert torch.equal(narrow.w_qkv, wide.w_qkv.bfloat16())
    assert wide.b_qkv is None


def test_inputs_beyond_those_of_the_file_are_shifted(small_models: Path, tmp_path: Path) -> None:
    ids = torch.arange(3, 3 + 48).reshape(2, 24)
    save_file({"input_ids": ids}, tmp_path / "ids.safetensors")
    found = files.at(small_models / "bert-small", inputs=tmp_path / "ids.safetensors")
    with files.offered(found):
        x = [whole(found, 0, batch=1, seq_len=12).inputs(seed).x for seed in range(5)]
    assert all(not torch.allclose(x[0], later) for later in x[1:])
    save_file({"hidden_states": torch.ones(1, 24, 32)}, tmp_path / "states.safetensors")
    found = files.at(small_models / "bert-small", inputs=tmp_path / "states.safetensors")
    with files.offered(found):
        assert torch.equal(whole(found, 0, batch=1).inputs(0).x, torch.ones(1, 24, 32))


def test_a_layer_without_embeddings_gets_random_numbers(small_models: Path, tmp_path: Path) -> None:
    kept = load_file(small_models / "bert-small" / "model.safetensors")
    save_file({name: tensor for name, tensor in kept.items() if "word_embeddings" not in name}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((small_models / "bert-small" / "config.json").read_bytes())
    found = files.at(None, weights=tmp_path / "model.safetensors")
    assert not found.embeds
    with files.offered(found):
        assert abs(float(whole(found, 0).inputs(0).x.std()) - 1) < 0.1
        assert torch.equal(whole(found, 0).weights(0).w1, kept["encoder.layer.0.intermediate.dense.weight"])


def test_names_of_the_oldest_models_are_understood(small_models: Path, tmp_path: Path) -> None:
    kept = load_file(small_models / "bert-small" / "model.safetensors")
    old = {
        f"bert.{name.replace('LayerNorm.weight', 'LayerNorm.gamma').replace('LayerNorm.bias', 'LayerNorm.beta')}": tensor
        for name, tensor in kept.items()
    }
    save_file(old, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((small_models / "bert-small" / "config.json").read_bytes())
    new, found = files.at(small_models / "bert-small"), files.at(tmp_path)
    with files.offered(found):
        x = whole(found, 2).inputs(0).x
    with files.offered(new):
        assert torch.equal(whole(new, 2).inputs(0).x, x)


def test_what_was_planned_with_is_what_is_read(small_models: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((small_models / "bert-small" / name).read_bytes())
    found = files.at(tmp_path)
    problem = whole(found, 0)
    with pytest.raises(ModelError, match="not at hand: give --model again"):
        problem.inputs(0)
    with files.offered(files.at(small_models / "vit-small")), pytest.raises(ModelError, match="others than those that were planned with"):
        problem.weights(0)
    with files.offered(found):
        (tmp_path / "model.safetensors").write_bytes((small_models / "bert-masked" / "model.safetensors").read_bytes())
        with pytest.raises(ModelError, match="changed since the run was planned"):
            problem.weights(0)


@pytest.mark.parametrize("given", ["bert", "bert/1", "bert/1@12", "a/b/1@123456789abc", "bert/x@123456789abc"])
@pytest.mark.parametrize("problem", [Layer, FeedForward])
def test_nobody_makes_up_a_layer(given: str, problem: type) -> None:
    with pytest.raises(ValueError, match="leave it empty"):
        problem(seq_len=8, given=given)


def test_given_queries_are_those_of_the_last_keys() -> None:
    given = "bert/0@0123456789ab"
    with pytest.raises(ValueError, match="those of the last keys"):
        Attention(q_len=8, kv_len=4, given=given)
    with pytest.raises(ValueError, match="leave structured out"):
        Attention(q_len=8, structured=True, given=given)
    assert "given" not in Attention(q_len=8).fields()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_the_same_reaches_a_layer_on_a_gpu(small_models: Path) -> None:
    found = files.at(small_models / "llama-small")
    with files.offered(found):
        problem = whole(found, 2)
        there, here = problem.inputs(0, "cuda"), problem.inputs(0)
        assert there.x.is_cuda
        assert problem.weights(0, "cuda").w_qkv.is_cuda
    assert torch.allclose(there.x.cpu(), here.x, rtol=1e-2, atol=1e-2)  # its products may be made of shorter numbers
