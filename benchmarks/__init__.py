"""Each a command that prints a table; with `--write` it goes to where the project shows it."""

import os

# Spinning OpenMP threads make torch many times slower on shared cores; must be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
