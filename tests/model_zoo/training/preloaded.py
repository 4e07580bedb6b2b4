"""What the engines import when they are used, imported at once."""

import torch.distributed.fsdp

from model_zoo.training.engines import fsdp, zero

zero._import_deepspeed(torch.device("cpu"))

__all__ = ["fsdp"]
