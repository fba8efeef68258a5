"""Learned losses: each is a file with a subclass of `olfl_ray.losses.ElementwiseLoss`, and its settings in the class."""
