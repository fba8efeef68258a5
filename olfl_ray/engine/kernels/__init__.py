"""Kernels that are differentiable as a meta-gradient requires, in place of faster ones that are not."""
