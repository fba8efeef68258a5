"""Servers on loopback for benchmarks and tests: PostgreSQL, MLflow, an S3 endpoint, a Ray cluster."""
