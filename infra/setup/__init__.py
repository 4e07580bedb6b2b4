"""How the virtual environment of a checkout is made, mended and locked."""
