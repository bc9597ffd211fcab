"""Pricer: what a base Llama and its fine-tuned sibling think a product costs."""

import os

__version__ = "0.1.0"

# Read when torch is loaded: its threads sleep while they wait for each other. On a machine with other work, such as a
# shared Space, spinning ones keep those that they wait for off the cores, and a pass takes twice as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
