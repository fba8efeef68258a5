"""`python -m olfl_ray`: the same as `olfl`."""

from olfl_ray.cli import main

main()
