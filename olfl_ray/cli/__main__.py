"""`python -m olfl_ray.cli`: the same as `olfl`."""

from olfl_ray.cli import main

main()
