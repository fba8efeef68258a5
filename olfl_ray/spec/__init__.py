"""What a study is: its form, its YAML, its digest."""

from olfl_ray.spec.points import active, base_values, get_dotted, seed_of, trial_config
from olfl_ray.spec.reading import parse_as, parse_spec, read_spec, spec_as_yaml
from olfl_ray.spec.secrets import without_secrets
from olfl_ray.spec.sections import (
    EvalSpec,
    FixedLoss,
    FocalSpec,
    LabelSmoothingSpec,
    LearnedLossSpec,
    LearnerSpec,
    MetaSpec,
    NamedBuilder,
    Poly1Spec,
    SplitSpec,
    Strict,
    TaskSpec,
)
from olfl_ray.spec.study import (
    NAME,
    ArmSpec,
    Parameter,
    PrunerSpec,
    Resources,
    StoragePlace,
    StorageSpec,
    StudySpec,
    TrialConfig,
)

__all__ = [
    "NAME",
    "ArmSpec",
    "EvalSpec",
    "FixedLoss",
    "FocalSpec",
    "LabelSmoothingSpec",
    "LearnedLossSpec",
    "LearnerSpec",
    "MetaSpec",
    "NamedBuilder",
    "Parameter",
    "Poly1Spec",
    "PrunerSpec",
    "Resources",
    "SplitSpec",
    "StoragePlace",
    "StorageSpec",
    "Strict",
    "StudySpec",
    "TaskSpec",
    "TrialConfig",
    "active",
    "base_values",
    "get_dotted",
    "parse_as",
    "parse_spec",
    "read_spec",
    "seed_of",
    "spec_as_yaml",
    "trial_config",
    "without_secrets",
]
