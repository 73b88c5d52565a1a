"""What enters the first layer of a model: tokens or images, given in a file or drawn, through the model's own embeddings, in float32."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812

from ._given_config import ModelError
from ._given_files import opened

if TYPE_CHECKING:
    from collections.abc import Callable
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
    readers: dict[str, tuple[int, Callable[[torch.Tensor], torch.Tensor]]] = {
        "hidden_states": (3, lambda part: part.float()),
        "pixel_values": (4, lambda part: _patches(source, part.float())),
        "input_ids": (2, lambda part: _embedded(source, part.long())),
    }
    with opened(path, "pt") as file:
        names = [name for name in readers if name in set(file.keys())]
    wanted = "pixel_values" if source.config.family == "vit" else "input_ids"
    if not names or names[0] not in (wanted, "hidden_states"):
        raise ModelError(f"--inputs {path.name}: holds no {wanted} and no hidden_states, which {source.config.model_type} takes")
    axes, embed = readers[names[0]]
    tensor = read(path, names[0])
    if tensor.dim() != axes or not len(tensor):
        raise ModelError(f"--inputs {path.name}: {names[0]} has the shape {list(tensor.shape)}, but must have {axes} axes, sequences first")
    if names[0] == "pixel_values":
        _require_size(path, list(tensor.shape[1:]), [source.config.image[0], source.config.image[1], source.config.image[1]], names[0])
        return embed(torch.stack([_turned(tensor, 1, place) for place in _places(seed, batch)]))
    if names[0] == "hidden_states":
        _require_size(path, list(tensor.shape[2:]), [source.config.layer["dim"]], names[0])
    if tensor.shape[1] < seq_len:
        raise ModelError(f"--inputs {path.name}: {names[0]} has sequences of {tensor.shape[1]}, not of {seq_len}: give a shorter --seq-len")
    windows = tensor[:, : tensor.shape[1] // seq_len * seq_len].reshape(-1, seq_len, *tensor.shape[2:])
    return embed(torch.stack([_turned(windows, 0, place) for place in _places(seed, batch)]))


def _places(seed: int, batch: int) -> range:
    return range(seed * batch, (seed + 1) * batch)


def _turned(sequences: torch.Tensor, axis: int, place: int) -> torch.Tensor:
    """The sequence at this place; past the last they begin anew, shifted along `axis`, so that no two seeds have the same."""
    again, index = divmod(place, len(sequences))
    return sequences[index].roll(again * SHIFT, dims=axis)


def _require_size(path: Path, found: list[int], wanted: list[int], name: str) -> None:
    if found != wanted:
        raise ModelError(f"--inputs {path.name}: {name} has the sizes {found} where config.json asks for {wanted}")


def _embedded(source: Source, ids: torch.Tensor) -> torch.Tensor:
    """float32 [batch, seq_len, dim]: the embeddings of these tokens, as the model computes them."""
    config = source.config

    def rows(name: str, index: torch.Tensor) -> torch.Tensor:
        full = f"{source.prefix}{name}"
        if full not in source.files:
            raise ModelError(f"the weights of {source.name} hold no tensor {full!r}: give hidden_states as --inputs instead of input_ids")
        table = read(source.files[full], full)
        if int(index.min()) < 0 or int(index.max()) >= len(table):
            raise ModelError(f"{source.name} has {len(table)} rows of {full}, not the one numbered {int(index.max())}: give other inputs")
        return table[index].float()

    if config.family == "llama":
        return rows("embed_tokens.weight", ids)
    positions = torch.arange(ids.shape[1]).expand_as(ids)
    if config.family == "roberta":  # padding has a position of its own, and the first token the one after it
        there = (ids != config.padding_token).long()
        positions = there.cumsum(1) * there + config.padding_token
    summed = rows("embeddings.word_embeddings.weight", ids) + rows("embeddings.token_type_embeddings.weight", torch.zeros_like(ids))
    summed = summed + rows("embeddings.position_embeddings.weight", positions)
    names = [f"{source.prefix}embeddings.LayerNorm.{kind}" for kind in ("weight", "bias")]
    weight, bias = (read(source.files[name], name).float() for name in names)
    return F.layer_norm(summed, summed.shape[-1:], weight, bias, config.layer["epsilon"])


def _patches(source: Source, pixels: torch.Tensor) -> torch.Tensor:
    """float32 [batch, tokens, dim]: the class token (and DeiT's for distillation), then the patches, with their positions."""

    def tensor(name: str) -> torch.Tensor:
        full = f"{source.prefix}embeddings.{name}"
        if full not in source.files:
            raise ModelError(f"the weights of {source.name} hold no tensor {full!r}: give hidden_states as --inputs")
        return read(source.files[full], full).float()

    patch = source.config.image[2]
    patches = F.conv2d(pixels, tensor("patch_embeddings.projection.weight"), tensor("patch_embeddings.projection.bias"), stride=patch)
    first = ["cls_token", "distillation_token"] if source.config.model_type == "deit" else ["cls_token"]
    tokens = [tensor(name).expand(len(pixels), -1, -1) for name in first]
    return torch.cat([*tokens, patches.flatten(2).mT], dim=1) + tensor("position_embeddings")
