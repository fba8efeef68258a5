"""All built-in data sets by name."""

from olfl_ray.data.finding import Source
from olfl_ray.data.images import IMAGES
from olfl_ray.data.labelled import LABELLED
from olfl_ray.data.multitask import MULTITASK
from olfl_ray.data.tabular import ROWS

__all__ = ["SOURCES"]

SOURCES: dict[str, Source] = {**IMAGES, **LABELLED, **MULTITASK, **ROWS}
