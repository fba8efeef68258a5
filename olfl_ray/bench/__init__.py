"""Benchmarks against peers, and proofs by force; each writes a document beside its results."""
