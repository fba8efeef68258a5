"""The command `olfl`: parse and print; every command is a thin shell over one public function."""

from olfl_ray.cli.app import main, run_app

__all__ = ["main", "run_app"]
