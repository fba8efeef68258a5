"""Estimators of the meta-gradient, one file each; the choice among them; and their comparison with a plain loop."""
