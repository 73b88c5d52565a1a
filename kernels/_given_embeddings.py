"""What enters the first layer of a model: tokens or images, given in a file or drawn, through the model's own embeddings, in float32."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812

from ._given_config import ModelError
from ._given_files import inputs_of, opened

if TYPE_CHECKING:
    from pathlib import Path

    from ._given_files import Source

SHIFT = 13
"""Where a file of inputs has no more sequences, they come again, so many tokens further round."""
COARSE, FINE = 8, 0.3
"""Drawn images are blobs, an eighth of the image wide, with some noise."""


def entering(source: Source, seed: int, batch: int, seq_len: int) -> torch.Tensor:
    """float32 [batch, seq_len, dim] on the CPU: other seeds, other sequences. N(0, 1) where the model has no embeddings.

    Raises ModelError when the given inputs do not fit.
    """
    if source.inputs is not None:
        found = _given(source, source.inputs, seed, batch, seq_len)
    elif not source.embeds:
        generator = torch.Generator().manual_seed(seed)
        found = torch.randn(batch, seq_len, source.config.layer["dim"], generator=generator)
    elif source.config.family == "vit":
        found = _patches(source, images(source, seed, batch))
    else:
        found = _embedded(source, tokens(source, seed, batch, seq_len))
    if found.shape[1] < seq_len:
        raise ModelError(f"{source.name} has sequences of {found.shape[1]} tokens here, not of {seq_len}: give a shorter --seq-len")
    return found[:, :seq_len].contiguous()


def read(path: Path, name: str) -> torch.Tensor:
    """One tensor of a file, mapped into memory rather than read whole."""
    with opened(path, "pt") as file:
        tensor: torch.Tensor = file.get_tensor(name)
    return tensor


def tokens(source: Source, seed: int, batch: int, seq_len: int) -> torch.Tensor:
    """int64 [batch, seq_len], frequent as words are: the r-th of the vocabulary r times as rare as the first (Zipf's law).

    Which token has which rank is the same for every seed; padding has none.
    """
    count = source.config.vocabulary
    ranks = torch.randperm(count, generator=torch.Generator().manual_seed(count))
    ranks = ranks[ranks != source.config.padding_token]
    edges = (1 / torch.arange(1, len(ranks) + 1, dtype=torch.float64)).cumsum(0)
    drawn = torch.rand(batch, seq_len, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * edges[-1]
    return ranks[torch.searchsorted(edges, drawn).clamp(max=len(ranks) - 1)]


def images(source: Source, seed: int, batch: int) -> torch.Tensor:
    """float32 [batch, channels, height, width], about N(0, 1) as normalized pixels are, neighbours alike."""
    channels, size, _ = source.config.image
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(batch, channels, COARSE, COARSE, generator=generator)
    blobs = F.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=False)
    return blobs + FINE * torch.randn(batch, channels, size, size, generator=generator)


def _given(source: Source, path: Path, seed: int, batch: int, seq_len: int) -> torch.Tensor:
    """The embedded inputs of a file: as many of its sequences as are asked for, from a place that the seed says."""
    name, shape = inputs_of(source, path)
    tensor = read(path, name)
    if name == "pixel_values":
        return _patches(source, torch.stack([_turned(tensor, 1, place) for place in _places(seed, batch)]).float())
    if shape[1] < seq_len:
        raise ModelError(f"--inputs {path.name}: {name} has sequences of {shape[1]}, not of {seq_len}: give a shorter --seq-len")
    windows = tensor[:, : shape[1] // seq_len * seq_len].reshape(-1, seq_len, *shape[2:])
    found = torch.stack([_turned(windows, 0, place) for place in _places(seed, batch)])
    return found.float() if name == "hidden_states" else _embedded(source, found.long())


def _own(source: Source, name: str) -> torch.Tensor:
    """A tensor of the model, by its name without the prefix."""
    full = source.called(f"{source.prefix}{name}")
    if full not in source.files:
        raise ModelError(f"the weights of {source.name} hold no tensor {full!r}: give hidden_states as --inputs")
    return read(source.files[full], full)


def _places(seed: int, batch: int) -> range:
    return range(seed * batch, (seed + 1) * batch)


def _turned(sequences: torch.Tensor, axis: int, place: int) -> torch.Tensor:
    """The sequence at this place; past the last they begin anew, shifted along `axis`, so that no two seeds have the same."""
    again, index = divmod(place, len(sequences))
    return sequences[index].roll(again * SHIFT, dims=axis)


def _embedded(source: Source, ids: torch.Tensor) -> torch.Tensor:
    """float32 [batch, seq_len, dim]: the embeddings of these tokens, as the model computes them."""
    config = source.config

    def rows(name: str, index: torch.Tensor) -> torch.Tensor:
        table = _own(source, name)
        if int(index.min()) < 0 or int(index.max()) >= len(table):
            raise ModelError(f"{source.name} has {len(table)} {name}, none numbered {int(index.max())}: give inputs made for this model")
        return table[index].float()

    if config.family == "llama":
        return rows("embed_tokens.weight", ids)
    positions = torch.arange(ids.shape[1]).expand_as(ids)
    if config.family == "roberta":  # padding has a position of its own, and the first token the one after it
        there = (ids != config.padding_token).long()
        positions = there.cumsum(1) * there + config.padding_token
    summed = rows("embeddings.word_embeddings.weight", ids) + rows("embeddings.token_type_embeddings.weight", torch.zeros_like(ids))
    summed = summed + rows("embeddings.position_embeddings.weight", positions)
    weight, bias = (_own(source, f"embeddings.LayerNorm.{kind}").float() for kind in ("weight", "bias"))
    return F.layer_norm(summed, summed.shape[-1:], weight, bias, config.layer["epsilon"])


def _patches(source: Source, pixels: torch.Tensor) -> torch.Tensor:
    """float32 [batch, tokens, dim]: the class token (and DeiT's for distillation), then the patches, with their positions."""

    def tensor(name: str) -> torch.Tensor:
        return _own(source, f"embeddings.{name}").float()

    patch = source.config.image[2]
    patches = F.conv2d(pixels, tensor("patch_embeddings.projection.weight"), tensor("patch_embeddings.projection.bias"), stride=patch)
    first = ["cls_token", "distillation_token"] if source.config.model_type == "deit" else ["cls_token"]
    tokens = [tensor(name).expand(len(pixels), -1, -1) for name in first]
    return torch.cat([*tokens, patches.flatten(2).mT], dim=1) + tensor("position_embeddings")
