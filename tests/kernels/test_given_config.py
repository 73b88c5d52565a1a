from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerneldyno.kernels import _given_config as configs
from kerneldyno.kernels._given_config import ModelError
from kerneldyno.kernels.layer.problem import Layer

SIZES = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072, "vocab_size": 100}
BERT = {"model_type": "bert", **SIZES}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
LLAMA = {**BERT, "model_type": "llama", "num_key_value_heads": 4, "max_position_embeddings": 4096}
VIT = {**BERT, "model_type": "vit", "image_size": 224, "patch_size": 16}


def test_a_bert() -> None:
    config = configs.parsed(BERT)
    assert (config.layers, config.positions, config.usual_length, config.padding_token) == (12, 512, 512, 0)
    layer = Layer(seq_len=8, **config.layer)
    assert layer.features == {"gelu"}
    assert (layer.dim, layer.heads, layer.head_dim, layer.hidden_dim, layer.norm_epsilon) == (768, 12, 64, 3072, 1e-12)


def test_a_llama() -> None:
    config = configs.parsed({**LLAMA, "rope_theta": 500000.0, "rope_scaling": None})
    layer = Layer(seq_len=8, **config.layer)
    assert layer.features == {"causal", "norm_first", "rmsnorm", "gated", "unbiased", "rotary", "grouped", "silu"}
    assert (layer.rope_theta, layer.rope_scaling, config.positions, config.usual_length) == (500000.0, "", 4096, 512)


@pytest.mark.parametrize(
    ("entries", "scaling"),
    [
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "linear:2"),
        ({"rope_scaling": LLAMA3}, "llama3:8,1,4,8192"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 7.5}}, ""),
    ],
)
def test_rotary_positions_by_their_older_and_newer_names(entries: dict, scaling: str) -> None:
    layer = configs.parsed({**LLAMA, **entries}).layer
    assert layer["rope_scaling"] == scaling
    assert layer["rope_theta"] == (7.5 if "rope_parameters" in entries else 10000.0)


def test_a_vit_looks_at_all_of_an_image_and_deit_has_a_token_more() -> None:
    assert configs.parsed(VIT).usual_length == 197
    assert configs.parsed({**VIT, "model_type": "deit"}).positions == 198
    assert configs.parsed({**VIT, "image_size": 1024}).usual_length == 4097


def test_a_window_that_is_there_and_one_that_is_not_used() -> None:
    assert configs.parsed({**LLAMA, "model_type": "mistral", "sliding_window": 4096}).window == 4096
    assert configs.parsed({**LLAMA, "model_type": "mistral", "sliding_window": 128}).usual_length == 128
    assert configs.parsed({**LLAMA, "model_type": "mistral", "sliding_window": None}).window == 0
    assert configs.parsed({**LLAMA, "model_type": "qwen2", "sliding_window": 4096, "use_sliding_window": False}).window == 0


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ({"model_type": "gpt_bigcode"}, "model_type 'gpt_bigcode' is not known here: known are bert"),
        ({"model_type": None}, "model_type None is not known"),
        ({"hidden_size": None}, "says nothing of hidden_size"),
        ({"hidden_size": "768"}, "hidden_size '768' is impossible"),
        ({"hidden_size": 770}, "hidden_size 770 cannot be split among 12 heads"),
        ({"num_key_value_heads": 5}, "12 heads cannot share 5 key-value heads"),
        ({"hidden_act": "mish"}, "hidden_act 'mish' is not known here"),
        ({"hidden_act": ["gelu"]}, r"hidden_act \['gelu'\] is not known here"),
        ({"hidden_size": 100, "num_attention_heads": 3, "head_dim": None}, "hidden_size 100 cannot be split among 3 heads"),
        ({"quantization_config": {"quant_method": "fp8"}}, "weights must be plain numbers"),
        ({"layer_norm_eps": 0}, "layer_norm_eps 0 is impossible"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type 'relative_key' is not supported"),
        ({"is_decoder": True}, "is_decoder True is not supported"),
        ({**LLAMA, "rope_scaling": {"rope_type": "yarn", "factor": 2}}, "rotary positions of type 'yarn' are not supported"),
        ({**LLAMA, "rope_scaling": "linear"}, "the rotary positions 'linear' are not understood"),
        ({**LLAMA, "partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5 is not supported"),
        ({**VIT, "image_size": 225}, "image_size 225 is no multiple of patch_size 16"),
    ],
)
def test_what_is_not_computed_here_is_refused_in_a_sentence(entries: dict, sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        configs.parsed({**BERT, **entries})


def test_a_directory_that_is_none_or_holds_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="--model nowhere: there is no such directory"):
        configs.read(tmp_path / "nowhere")
    with pytest.raises(ModelError, match="holds no config"):
        configs.read(tmp_path)
    for text in ("{", "[]"):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ModelError, match=r"config\.json"):
            configs.read(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(BERT))
    assert configs.read(tmp_path) == configs.parsed(BERT)


junk = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 5), st.floats(), st.text(max_size=5), st.dictionaries(st.text(max_size=9), st.integers())
)


@given(
    st.sampled_from([BERT, LLAMA, VIT, {**BERT, "model_type": "roberta"}]),
    st.dictionaries(
        st.sampled_from(
            [
                *BERT,
                *LLAMA,
                *VIT,
                "head_dim",
                "rope_scaling",
                "rope_theta",
                "sliding_window",
                "pad_token_id",
                "layer_norm_eps",
                "rms_norm_eps",
            ]
        ),
        junk,
    ),
)
def test_any_entries_are_understood_or_refused(entries: dict, changes: dict) -> None:
    try:
        config = configs.parsed({**entries, **changes})
    except ModelError:
        return
    assert Layer(seq_len=2, **config.layer).dim >= 1


@given(st.text(alphabet="ab/@0123456789abcdef-", max_size=30))
def test_a_given_layer_has_a_name_or_is_refused(text: str) -> None:
    try:
        configs.require_given(text)
    except ValueError:
        assert configs.told(text) == []
    else:
        assert (text == "") == (configs.told(text) == [])
