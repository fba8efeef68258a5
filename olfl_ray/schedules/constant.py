"""No schedule: the factor is 1."""

from olfl_ray.schedules.schedule import Schedule

__all__ = ["Constant"]


class Constant(Schedule):
    """A constant learning rate."""

    def factor(self, done: float) -> float:
        return 1.0
