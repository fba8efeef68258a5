"""Methods: what is meta-learned, and when. Each method is a file."""

from olfl_ray.methods.chosen import METHODS, method_of
from olfl_ray.methods.complete import check_settings, complete
from olfl_ray.methods.loss_network import loss_network
from olfl_ray.methods.method import Method, Setting
from olfl_ray.methods.passes import base_passes
from olfl_ray.methods.unused import check_used

__all__ = [
    "METHODS",
    "Method",
    "Setting",
    "base_passes",
    "check_settings",
    "check_used",
    "complete",
    "loss_network",
    "method_of",
]
