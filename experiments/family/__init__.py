"""The family of learned losses at an equal number of base-learner passes: task loss, ML3, TaylorGLO, GP, EvoMAL, AdaLFL."""

from experiments.family.document import write_page
from experiments.family.rows import Family, Plan, plan_of, read_family, study_of

__all__ = ["Family", "Plan", "plan_of", "read_family", "study_of", "write_page"]
