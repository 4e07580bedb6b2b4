"""The arithmetic of CLIP in closed form, without building one."""

from __future__ import annotations

from model_zoo.clip import CLIPConfig


def clip_flops(config: CLIPConfig) -> int:
    """FLOPs of one pair's forward pass, of which a multiplication and an addition are two.

    A picture is its patches and one token more, a caption its tokens and their end; every token
    looks at every other one, since masked scores are computed as well.
    """
    patches = (config.resolution // config.patch) ** 2
    image = _tower(patches + 1, config.image_width, config.image_layers)
    image += 2 * 3 * config.patch**2 * config.image_width * patches
    text = _tower(config.text_length + 1, config.text_width, config.text_layers)
    return image + text + 2 * config.features * (config.image_width + config.text_width)


def _tower(tokens: int, width: int, layers: int) -> int:
    return layers * (2 * tokens * 12 * width**2 + 4 * tokens**2 * width)
