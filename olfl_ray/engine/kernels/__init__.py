"""Kernels that can be differentiated as a meta-gradient needs, in place of faster ones that cannot."""
