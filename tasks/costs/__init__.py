"""What a run would take before a GPU is rented: memory, traffic, arithmetic, time, money, disk.

No stage imports it. Sizes of networks come from `model_zoo.sizes`; here stands the arithmetic of a
run, each figure with the formula that it comes from.
"""
