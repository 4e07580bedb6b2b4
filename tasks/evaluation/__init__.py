"""The parts of an evaluation: what a checker says, what another ranker says, what codes lose."""
