"""Take a published dVAE as the image tokenizer: two pickled files become one of ours.

No code of the files is run (`model_zoo.pickled_weights`); what does not fit the architecture is
refused.
"""

from __future__ import annotations

from infra.errors import PermanentError
from infra.work import Work
from model_zoo.published_dvae import read_published
from model_zoo.weights import load_network, save_weights
from schemas.artifact import ImageTokenizer
from schemas.stage import StageParams, stage


class ImportParams(StageParams):
    """Where the files are: paths or URLs of the encoder's and the decoder's."""

    encoder: str
    decoder: str
    resolution: int = 256
    """Pixels a side of the pictures that it is used on; the published one was trained at 256."""

    def sources(self) -> tuple[str, ...]:
        """The two files."""
        return (self.encoder, self.decoder)


@stage(retries=1, cores=1, memory_gb=2.0, versions=("torch",))
def import_image_tokenizer(params: ImportParams, work: Work) -> ImageTokenizer:
    """Convert the weights, and check that they fit the network."""
    if len(work.sources) != 2:
        raise PermanentError(
            f"encoder, decoder: name two files; {len(work.sources)} were found:"
            f" {[source.name for source in work.sources]}"
        )
    path = work.scratch / "dvae.safetensors"
    try:
        weights, config = read_published(*(work.fetch(source) for source in work.sources))
        save_weights(path, weights, "dvae", {**config, "resolution": params.resolution})
        load_network(path)
    except ValueError as error:
        raise PermanentError(str(error)) from error
    return ImageTokenizer(units=(work.add(path, path.name),))
