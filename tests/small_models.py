"""Writes small random models with the `transformers` library, and the hidden states that it computes itself: run with a folder.

For each model NAME: the directory NAME, NAME.inputs.safetensors, and NAME.expected.safetensors with what enters each layer.
"""

import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file

SMALL = {"vocab_size": 200, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
IMAGES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64, "image_size": 32, "patch_size": 8}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
LENGTH = 24


def models():
    """(name, model)."""
    kv = {"num_key_value_heads": 2}
    yield "bert-small", transformers.BertModel(transformers.BertConfig(**SMALL, max_position_embeddings=64))
    yield "bert-masked", transformers.BertForMaskedLM(transformers.BertConfig(**SMALL, max_position_embeddings=64, hidden_act="gelu_new"))
    yield "roberta-small", transformers.RobertaModel(transformers.RobertaConfig(**SMALL, max_position_embeddings=66))
    config = transformers.LlamaConfig(**SMALL, **kv, head_dim=16, rope_theta=5000.0, rope_scaling=LLAMA3, max_position_embeddings=128)
    yield "llama-small", transformers.LlamaForCausalLM(config)
    biased = transformers.LlamaConfig(**SMALL, attention_bias=True, rope_scaling={"rope_type": "linear", "factor": 4.0})
    yield "llama-biased", transformers.LlamaModel(biased)
    yield "mistral-small", transformers.MistralModel(transformers.MistralConfig(**SMALL, **kv, sliding_window=48))
    yield "qwen2-small", transformers.Qwen2Model(transformers.Qwen2Config(**SMALL, **kv))
    yield "vit-small", transformers.ViTModel(transformers.ViTConfig(**IMAGES))
    yield "deit-small", transformers.DeiTModel(transformers.DeiTConfig(**IMAGES, qkv_bias=False))


def louder(model):
    """Weights so large that attention is far from uniform, and biases that show when they are forgotten."""
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            parameter.mul_(5)
        elif name.endswith("bias"):
            parameter.normal_(std=0.2)
        else:
            parameter.add_(torch.randn_like(parameter) * 0.1)


def main(folder: Path) -> None:
    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    for name, model in models():
        louder(model)
        model.eval()
        # one in several files, as large models are
        model.save_pretrained(folder / name, **({"max_shard_size": "30KB"} if name == "llama-small" else {}))
        if "deit" in name or "vit" in name:
            inputs = {"pixel_values": torch.randn(2, 3, 32, 32)}
        else:
            inputs = {"input_ids": torch.randint(3, 200, (2, LENGTH))}
        states = model(**inputs, output_hidden_states=True).hidden_states
        last = [] if "llama" in name or "mistral" in name or "qwen" in name else [states[-1]]  # theirs went through one more norm
        save_file(inputs, folder / f"{name}.inputs.safetensors")
        save_file({"states": torch.stack([*states[:-1], *last])}, folder / f"{name}.expected.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
