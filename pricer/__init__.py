"""Pricer: what a base Llama and its fine-tuned sibling think a product costs."""

__version__ = "0.1.0"
