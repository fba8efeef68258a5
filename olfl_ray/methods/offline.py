"""A loss network learned before training, then frozen (ML3: Bechtle et al. 2021)."""

from olfl_ray.methods.method import Method

__all__ = ["Offline"]


class Offline(Method):
    """Algorithm 1, then training on the learned loss."""

    learns = "loss"
    before = True
    during = False
    uses = (
        "loss",
        "meta.optimizer",
        "meta.eta_init",
        "meta.init_steps",
        "meta.inner_steps",
        "meta.batch",
        "meta.clip_norm",
        "meta.estimator",
        "meta.memory",
    )
