"""Parts of a user of olfl_ray; docs/extending.md shows each file."""
