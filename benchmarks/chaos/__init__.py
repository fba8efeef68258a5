"""Chaos: sweeps that are killed, at random and at each edge of a study's life, against the same sweeps left in peace."""
