"""Start a dVAE's codebook from clusters of the data (our choice; the paper starts at random).

A random start has to discover, through Gumbel noise, that codes can tell pictures apart; on the
demo's pictures it takes thousands of updates to 19 dB, and codes collapse on the way. Clusters of
the encoder's features (k-means, Lloyd 1982) make every code mean something before the first update:
23 to 25 dB, from where training goes on. P is the patch's pixels, 3·patch².
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from model_zoo.dvae import DVAE, map_pixels

_PICTURES = 1200  # looked at
_PATCHES = 30_000  # clustered
_ROUNDS = 20
# Patches are drawn by their variance, and flat ones hardly at all: they are most of a drawing and
# few in kind, and a code for each tint of a background is only noise to the prior.
_FLAT_WEIGHT = 1e-5
_SHARPNESS = 4.0  # logits: squared distances to the clusters, over the mean one, times this
_LOG_SCALE = -1.5  # ln b of the likelihood at the start


@torch.no_grad()
def start_codebook(network: DVAE, images: Tensor, seed: int) -> None:
    """Set the encoder's last layer, and where it can be a table the decoder, from clusters.

    Args:
        network: freshly drawn; changed in place.
        images: uint8 [N, 3, H, W], of the training's resolution.
        seed: of the patches and the first clusters; the same seed gives the same start.

    Raises:
        ValueError: if there are fewer patches than codes.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(images), generator=generator)[:_PICTURES]
    targets = map_pixels(images[chosen], network.config.pixel_margin)
    features = _rows(_hidden(network, targets))
    patches = _rows(functional.pixel_unshuffle(targets, network.config.factor))
    if len(features) < network.config.vocabulary:
        raise ValueError(
            f"vocabulary={network.config.vocabulary}: only {len(features)} patches to make codes of"
        )
    clusters = k_means(_sample(features, patches, generator), network.config.vocabulary, generator)
    distances = torch.cdist(features, clusters)
    _set_encoder(network, clusters, distances.min(dim=1).values.square().mean())
    if network.config.is_table:
        _set_decoder(network, _means(patches, distances.argmin(dim=1), len(clusters)))


def k_means(rows: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """Centres [K, D] of rows [N, D]; an empty cluster starts again from a row."""
    centres = rows[torch.randperm(len(rows), generator=generator)[:clusters]]
    for _ in range(_ROUNDS):
        nearest = torch.cdist(rows, centres).argmin(dim=1)
        spare = rows[torch.randint(len(rows), (clusters,), generator=generator)]
        centres = _means(rows, nearest, clusters, spare)
    return centres


def _means(rows: Tensor, group: Tensor, groups: int, empty: Tensor | None = None) -> Tensor:
    """Mean row of each group; rows of `empty`, or the mean of all, where a group has none."""
    counts = torch.bincount(group, minlength=groups)[:, None]
    sums = torch.zeros(groups, rows.shape[1]).index_add_(0, group, rows)
    spare = rows.mean(dim=0) if empty is None else empty
    return torch.where(counts > 0, sums / counts.clamp_min(1), spare)


def _sample(features: Tensor, patches: Tensor, generator: torch.Generator) -> Tensor:
    contrast = patches.view(len(patches), 3, -1).std(dim=2).sum(dim=1)
    count = min(_PATCHES, len(patches))
    return features[torch.multinomial(contrast.square() + _FLAT_WEIGHT, count, generator=generator)]


def _hidden(network: DVAE, targets: Tensor) -> Tensor:
    """What the encoder's last layer sees, [B, C, h, w]."""
    hidden = functional.pixel_unshuffle(targets, network.config.patch)
    for layer in list(network.encoder)[:-1]:
        hidden = layer(hidden)
    return hidden


def _rows(maps: Tensor) -> Tensor:
    return maps.permute(0, 2, 3, 1).flatten(0, 2)


def _set_encoder(network: DVAE, clusters: Tensor, spread: Tensor) -> None:
    """Logits that are minus squared distances to the clusters (up to what all codes share)."""
    output = network.encoder.get_submodule("output")
    assert isinstance(output, nn.Conv2d) and output.bias is not None
    scale = _SHARPNESS / spread.clamp_min(1e-8)
    output.weight.copy_((2 * scale * clusters)[:, :, None, None])
    output.bias.copy_(-scale * clusters.square().sum(dim=1))


def _set_decoder(network: DVAE, patches: Tensor) -> None:
    """A decoder whose path, before its branches have learned, shows each code's mean patch.

    The identity path ends in a ReLU, so values travel as their positive and negative parts.
    """
    first, last = (network.decoder.get_submodule(name) for name in ("input", "output"))
    assert isinstance(first, nn.Conv2d) and isinstance(last, nn.Conv2d)
    assert last.bias is not None
    size = patches.shape[1]
    margin = network.config.pixel_margin / 2
    values = torch.logit(patches.clamp(margin, 1 - margin)).t()
    first.weight.zero_()
    first.weight[: 2 * size, :, 0, 0] = torch.cat([values, -values])
    last.weight.mul_(0.1)
    last.weight[:size] = 0
    each = torch.arange(size)
    last.weight[each, each, 0, 0] = 1.0
    last.weight[each, size + each, 0, 0] = -1.0
    last.bias[size:] = _LOG_SCALE
