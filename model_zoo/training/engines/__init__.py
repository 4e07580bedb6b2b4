"""The engines: adapters of `torch`, DeepSpeed and FSDP2 to `model_zoo.training.engine`."""
