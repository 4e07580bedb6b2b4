"""The registered model: prompts in, pictures out (`mlflow.pyfunc.load_model`).

MLflow keeps this file itself with the model and runs it when the model is loaded, so nothing is
pickled. The model's folder holds the weights, the sources of the code that draws, and `model.json`:

    artist    "module:Class"; `Class.load(folder).draw(prompts, candidates, keep, seed)` draws
    sha256    hash of each file of weights, checked before anything is opened
"""

from __future__ import annotations

import hashlib
import importlib
import io
import json
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext

COLUMNS = ("prompt", "rank", "score", "seed", "png")


class DrawingModel(PythonModel):
    """Draws candidates for each prompt and keeps those that the ranker likes best.

    Input: prompts, as a list of texts or a table whose first column holds them.
    Parameters: `candidates` drawn for a prompt, `keep` of them returned, `seed`.
    Output: a table with a row a picture: prompt, rank (from 1), score (higher is better), the seed
    that drew it, and the picture as PNG bytes.
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Check the weights' hashes and load them.

        Raises:
            ValueError: naming each file that is missing or altered.
        """
        folder = Path(context.artifacts["model"])
        about = json.loads((folder / "model.json").read_text())
        problems = [text for name in about["sha256"] if (text := _problem(folder, name, about))]
        if problems:
            raise ValueError("the model was altered after it was made: " + "; ".join(problems))
        module, name = about["artist"].split(":")
        self._artist = getattr(importlib.import_module(module), name).load(folder)

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,  # MLflow makes one of a list of texts
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Draw; see the class."""
        prompts = [str(prompt) for prompt in model_input.iloc[:, 0]]
        drawn = self._artist.draw(prompts, **(params or {}))
        rows = [
            (prompt, rank, one.score, one.seed, _png(one.picture))
            for prompt, pictures in zip(prompts, drawn, strict=True)
            for rank, one in enumerate(pictures, start=1)
        ]
        return pd.DataFrame(rows, columns=list(COLUMNS))


def _problem(folder: Path, name: str, about: dict[str, Any]) -> str | None:
    path = folder / name
    if not path.is_file():
        return f"{name} is missing"
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return None if sha256 == about["sha256"][name] else f"{name} is altered"


def _png(picture: Any) -> bytes:
    target = io.BytesIO()
    picture.save(target, "PNG")
    return target.getvalue()


mlflow.models.set_model(DrawingModel())
