"""Benchmarks and crash tests, each next to its document; they run from a checkout and are not installed."""

import os
from pathlib import Path

# Processes that a benchmark starts, including Ray's workers, import this package too.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
