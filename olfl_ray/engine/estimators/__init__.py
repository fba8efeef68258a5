"""Estimators of the meta-gradient, one file each; which of them a learner gets; their comparison with a plain loop."""
