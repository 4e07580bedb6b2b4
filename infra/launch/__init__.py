"""How a training is started: one contract (`contract`), and one file for each way to fulfil it."""
