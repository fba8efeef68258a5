"""A study's specification: its schema, its YAML, its digest."""

from olfl_ray.seeds import seed_of
from olfl_ray.spec.options import checked_options
from olfl_ray.spec.points import active, base_values, get_dotted, set_dotted, trial_config
from olfl_ray.spec.reading import located, parse_as, parse_spec, read_spec, spec_as_yaml
from olfl_ray.spec.secrets import without_secrets
from olfl_ray.spec.sections import (
    PRINTABLE,
    EvalSpec,
    LearnedLossSpec,
    LearnerSpec,
    MetaSpec,
    MetricSpec,
    NamedBuilder,
    SplitSpec,
    Strict,
    TaskSpec,
)
from olfl_ray.spec.space import notes, own_point, planned, points_left, resolve_search, values_of
from olfl_ray.spec.study import (
    NAME,
    ArmSpec,
    Parameter,
    PrunerSpec,
    Resources,
    StoragePlace,
    StorageSpec,
    StudySpec,
    TrackerSpec,
    TrialConfig,
    same,
    trackers_from,
)
from olfl_ray.spec.text import printable

__all__ = [
    "NAME",
    "PRINTABLE",
    "ArmSpec",
    "EvalSpec",
    "LearnedLossSpec",
    "LearnerSpec",
    "MetaSpec",
    "MetricSpec",
    "NamedBuilder",
    "Parameter",
    "PrunerSpec",
    "Resources",
    "SplitSpec",
    "StoragePlace",
    "StorageSpec",
    "Strict",
    "StudySpec",
    "TaskSpec",
    "TrackerSpec",
    "TrialConfig",
    "active",
    "base_values",
    "checked_options",
    "get_dotted",
    "located",
    "notes",
    "own_point",
    "parse_as",
    "parse_spec",
    "planned",
    "points_left",
    "printable",
    "read_spec",
    "resolve_search",
    "same",
    "seed_of",
    "set_dotted",
    "spec_as_yaml",
    "trackers_from",
    "trial_config",
    "values_of",
    "without_secrets",
]
