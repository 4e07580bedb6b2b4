"""What pictures are measured by: likeness, distances of distributions, what ranking gains.

Everything here takes and gives plain arrays, so that each measure is tested against a slow, plain
version of itself.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch.nn import functional

Pixels = np.ndarray  # uint8 [N, 3, H, W]


def psnr(pictures: Pixels, originals: Pixels) -> np.ndarray:
    """Peak signal-to-noise ratio of each picture in dB; equal pictures count 100."""
    difference = pictures.astype(np.float64) - originals.astype(np.float64)
    error = (difference**2).mean(axis=(1, 2, 3))
    return np.minimum(100.0, 10 * np.log10(255.0**2 / np.maximum(error, 1e-12)))


def ssim(pictures: Pixels, originals: Pixels) -> np.ndarray:
    """Structural similarity of each picture (Wang et al., 2004): an 11x11 Gaussian of 1.5 pixels.

    Taken over luma, at every place where the whole window lies in the picture.
    """
    first, second = (_luma(pixels)[:, None] for pixels in (pictures, originals))
    window = _window(min(11, first.shape[-1], first.shape[-2]), 1.5)[None, None]

    def blur(values: torch.Tensor) -> torch.Tensor:
        return functional.conv2d(values, window)

    one, other = blur(first), blur(second)
    variances = blur(first**2) - one**2 + blur(second**2) - other**2
    covariance = blur(first * second) - one * other
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    index = (2 * one * other + c1) * (2 * covariance + c2)
    index = index / ((one**2 + other**2 + c1) * (variances + c2))
    return np.asarray(index.mean(dim=(1, 2, 3)).numpy())


def _luma(pixels: Pixels) -> torch.Tensor:
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
    return torch.einsum("nchw,c->nhw", torch.from_numpy(np.asarray(pixels)).double(), weights)


def _window(side: int, deviation: float) -> torch.Tensor:
    axis = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    line = torch.exp(-(axis**2) / (2 * deviation**2))
    line = line / line.sum()
    return line[:, None] * line[None, :]


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Fréchet distance of two sets of features [N, D], each taken as one Gaussian (Heusel et al.).

    Raises:
        ValueError: if a set has fewer than two rows, since it has no covariance then.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError(f"{len(first)} and {len(second)} pictures: a covariance takes two or more")
    means = [features.mean(axis=0) for features in (first, second)]
    one, other = (np.atleast_2d(np.cov(features, rowvar=False)) for features in (first, second))
    # tr sqrt(AB) is the sum of the roots of the eigenvalues of sqrt(A) B sqrt(A), all real.
    values, vectors = np.linalg.eigh(one)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ other @ root), 0)).sum()
    distance = ((means[0] - means[1]) ** 2).sum() + np.trace(one) + np.trace(other) - 2 * shared
    return max(0.0, float(distance))


def best_of(values: Sequence[float], size: int) -> float:
    """What the best-ranked of `size` candidates is worth on average.

    Args:
        values: what each candidate is worth, best-ranked first.
        size: how many of them were drawn, all draws being equally likely.

    The candidate at place i (from 0) is the best-ranked of a draw when the other size − 1 come from
    the n − 1 − i behind it.
    """
    count = len(values)
    if not 1 <= size <= count:
        raise ValueError(f"best of {size}: there are {count} candidates")
    chances = [math.comb(count - 1 - place, size - 1) for place in range(count)]
    shares = zip(chances, values, strict=True)
    return sum(chance * value for chance, value in shares) / math.comb(count, size)


def sizes_up_to(count: int) -> list[int]:
    """1, 2, 4, … and `count` itself: the numbers of candidates that a curve shows."""
    powers = [2**power for power in range(count.bit_length()) if 2**power < count]
    return [*powers, count]


def rank_of_own(similarity: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Rank (from 1) of each picture's own caption among all, ties counted against it.

    Args:
        similarity: [..., M] of pictures and M captions.
        own: int, which of the captions is each picture's; broadcast against [...].
    """
    indices = np.broadcast_to(own, similarity.shape[:-1])[..., None]
    return np.asarray((similarity >= np.take_along_axis(similarity, indices, -1)).sum(axis=-1))


def words(caption: str) -> tuple[str, ...]:
    """The words of a caption, lower case, without punctuation."""
    return tuple(re.findall(r"\w+", caption.lower()))


def word_distance(first: Sequence[str], second: Sequence[str]) -> int:
    """Least number of words to insert, delete or replace to turn one into the other."""
    previous = list(range(len(second) + 1))
    for i, word in enumerate(first, start=1):
        current = [i]
        for j, other in enumerate(second, start=1):
            change = previous[j - 1] + (word != other)
            current.append(min(change, previous[j] + 1, current[-1] + 1))
        previous = current
    return previous[-1]


class NearestCaption:
    """Finds the nearest of many captions by `word_distance`; equal ones in alphabetical order."""

    def __init__(self, captions: Iterable[str]) -> None:
        self._captions = [(text, words(text)) for text in sorted(set(captions))]
        self._counts = [Counter(one) for _, one in self._captions]

    def find(self, prompt: str) -> tuple[str, int]:
        """The nearest caption and its distance in words.

        Raises:
            ValueError: if there are no captions.
        """
        if not self._captions:
            raise ValueError("there are no captions to be near to")
        asked = words(prompt)
        count = Counter(asked)
        # No alignment keeps more words than both have, which bounds the distance from below.
        bounds = [
            max(len(asked), len(one)) - (count & other).total()
            for (_, one), other in zip(self._captions, self._counts, strict=True)
        ]
        best, found = len(asked) + max(len(one) for _, one in self._captions) + 1, ""
        for index in np.argsort(bounds, kind="stable"):
            if bounds[index] >= best:
                break
            text, other_words = self._captions[index]
            distance = word_distance(asked, other_words)
            if distance < best:
                best, found = distance, text
        return found, best
