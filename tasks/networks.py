"""Stages that use trained networks: which networks they may be, so that their code is known.

What a weights file holds is known only when it is read, but a stage's code is part of its identity
before. So the networks are declared, and a file with another one is refused.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from pydantic import field_validator

from infra.errors import PermanentError
from model_zoo.generators import sampler_of
from model_zoo.weights import read_header
from schemas.stage import StageParams


class NetworkParams(StageParams):
    """Parameters of a stage that loads networks of these names."""

    networks: tuple[str, ...]
    """Modules of `model_zoo` that the inputs' files are of."""

    @field_validator("networks")
    @classmethod
    def _are_modules(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        for name in networks:
            if not name.isidentifier() or find_spec(f"model_zoo.{name}") is None:
                raise ValueError(f"there is no network {name!r}: no module model_zoo.{name}")
        return networks

    def modules(self) -> tuple[str, ...]:
        """The networks, and what samples from those that generate."""
        samplers = [one.split(":")[0] for name in self.networks if (one := sampler_of(name))]
        return (*(f"model_zoo.{name}" for name in self.networks), *samplers)

    def check(self, path: Path) -> Path:
        """The path, if the network in the file is one of those declared.

        Raises:
            PermanentError: if it is another.
        """
        name, _ = read_header(path)
        if name not in self.networks:
            raise PermanentError(
                f"networks: {path.name} holds a {name!r}, which is not among {self.networks};"
                f" declare it"
            )
        return path
