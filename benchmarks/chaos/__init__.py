"""Chaos: sweeps that are killed, at random and at each transition of a study's life, compared with undisturbed ones."""
