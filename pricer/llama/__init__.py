"""From texts to price distributions: a base Llama, its adapter, and the forward passes over the lattice."""
