"""Search: which settings an arm's next trial has, and which trials end early. Each searcher is a file."""

import warnings

from olfl_ray.search.arm import SEARCHERS, ArmSearch, check_search, scattered
from olfl_ray.search.notes import notes
from olfl_ray.search.searcher import Searcher
from olfl_ray.search.space import SearchTrial, Space

__all__ = ["SEARCHERS", "ArmSearch", "SearchTrial", "Searcher", "Space", "check_search", "notes", "scattered"]

warnings.filterwarnings("ignore", message="IProgress not found")  # of Optuna in a notebook
