"""Networks and the mathematics of training them: torch only, one file a network."""
