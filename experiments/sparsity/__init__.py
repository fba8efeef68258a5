"""Learned sparsity against fixed strengths: a planted support, and multi-task digits with an unseen task."""
