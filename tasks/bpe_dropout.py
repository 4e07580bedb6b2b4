"""BPE dropout (Provilkov et al. 2020, algorithm 1; 10 % in DALL-E's training), seeded.

The tokenizers library draws its dropout from a generator that cannot be seeded, and a caption's
tokens have to be the same in every run. So merging is done here, from the vocabulary and the merges
of a `tokenizer.json`; without dropout it gives what the library gives.
"""

from __future__ import annotations

import itertools
import json

import numpy as np
from tokenizers import Tokenizer

from tasks.text import one_line


class DropoutEncoder:
    """Splits captions into tokens, leaving out each possible merge with some probability."""

    def __init__(self, tokenizer: Tokenizer, dropout: float) -> None:
        """Take vocabulary and merges of a byte-level BPE.

        Raises:
            ValueError: if dropout is not in [0, 1], or the tokenizer is no BPE.
        """
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout {dropout} is no probability; give 0 to 1")
        model = json.loads(tokenizer.to_str())["model"]
        if model["type"] != "BPE":
            raise ValueError(f"dropout is for a BPE, not for a {model['type']} tokenizer")
        self._tokenizer = tokenizer
        self._dropout = dropout
        self._ids: dict[str, int] = model["vocab"]
        self._ranks = {tuple(pair): rank for rank, pair in enumerate(model["merges"])}

    def encode(self, caption: str, random: np.random.Generator) -> list[int]:
        """Token ids of a caption; other draws of `random` split its words otherwise."""
        text = self._tokenizer.normalizer.normalize_str(one_line(caption))
        pieces = self._tokenizer.pre_tokenizer.pre_tokenize_str(text)
        return [self._ids[token] for piece, _ in pieces for token in self._split(piece, random)]

    def _split(self, piece: str, random: np.random.Generator) -> list[str]:
        """Merge the best pair that was not left out, until there is none."""
        tokens = list(piece)
        while len(tokens) > 1:
            pairs = list(itertools.pairwise(tokens))
            kept = random.random(len(pairs)) >= self._dropout
            known = [
                (self._ranks[pair], place)
                for place, pair in enumerate(pairs)
                if kept[place] and pair in self._ranks
            ]
            if not known:
                break
            _, place = min(known)
            tokens[place : place + 2] = [tokens[place] + tokens[place + 1]]
        return tokens
