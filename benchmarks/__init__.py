"""Benchmarks and proofs, each beside its document; they run from a checkout and are no part of the installed package."""

import os
from pathlib import Path

# Processes that a benchmark starts, Ray's workers among them, import this package, too.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
