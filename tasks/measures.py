"""What pictures are measured by: likeness, and what ranking gains.

Everything here takes and gives plain arrays, so that each measure is tested against a slow, plain
version of itself.
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from scipy.sparse import csr_array
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


def clip_score(cosines: np.ndarray) -> float:
    """100 × the mean of cosines, negative ones counted as 0 (Hessel et al., arXiv 2104.08718)."""
    return float(100 * np.maximum(cosines, 0).mean())


def best_of(values: Sequence[float], size: int) -> float:
    """What the best-ranked of `size` candidates is worth on average.

    Args:
        values: what each candidate is worth, best-ranked first.
        size: how many of them were drawn, all draws being equally likely.
    """
    return float(np.dot(_chances(len(values), size), values))


@functools.lru_cache(maxsize=64)
def _chances(count: int, size: int) -> np.ndarray:
    """How likely each of `count` ranked candidates is the best of `size`, float64 [count].

    The candidate at place i (from 0) is the best-ranked of a draw when the other size − 1 come from
    the n − 1 − i behind it. In whole numbers, since those of 512 candidates have 150 digits.
    """
    if not 1 <= size <= count:
        raise ValueError(f"best of {size}: there are {count} candidates")
    draws = math.comb(count, size)
    return np.array([math.comb(count - 1 - place, size - 1) / draws for place in range(count)])


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
        self._captions = sorted(set(captions))
        numbers: dict[tuple[str, int], int] = {}
        found = [_numbered(words(text), numbers) for text in self._captions]
        self._lengths = np.array([len(one) for one in found])
        columns = np.concatenate([*found, np.zeros(0, np.int64)])
        rows = np.append(0, np.cumsum(self._lengths))
        ones = np.ones(len(columns), np.int32)
        self._numbers = numbers
        self._words = csr_array((ones, columns, rows), (len(found), len(numbers)))

    def find(self, prompt: str) -> tuple[str, int]:
        """The nearest caption and its distance in words.

        Raises:
            ValueError: if there are no captions.
        """
        if not self._captions:
            raise ValueError("there are no captions to be near to")
        asked = words(prompt)
        shared = np.zeros(self._words.shape[1], np.int32)
        shared[[self._numbers[one] for one in _occurrences(asked) if one in self._numbers]] = 1
        # No alignment keeps more words than both have, which bounds the distance from below.
        bounds = np.maximum(len(asked), self._lengths) - self._words @ shared
        best, found = len(asked) + int(self._lengths.max()) + 1, ""
        for bound in np.unique(bounds):
            if bound >= best:
                break
            for index in np.flatnonzero(bounds == bound):
                text = self._captions[index]
                distance = word_distance(asked, words(text))
                if distance < best:
                    best, found = distance, text
                if best == bound:
                    break
        return found, best


def _occurrences(text: Iterable[str]) -> Iterator[tuple[str, int]]:
    """Each word with how often it was there before; texts share as many as their bags do."""
    before: Counter[str] = Counter()
    for word in text:
        yield word, before[word]
        before[word] += 1


def _numbered(text: Iterable[str], numbers: dict[tuple[str, int], int]) -> np.ndarray:
    return np.array([numbers.setdefault(one, len(numbers)) for one in _occurrences(text)], np.int64)
