"""The base learning rate instead of phi, with the task loss as base loss: an ablation of Raymond et al., arXiv 2301.13247."""

from olfl_ray.methods.method import Method

__all__ = ["OnlineLearningRate"]


class OnlineLearningRate(Method):
    """Algorithms 1 and 2 on a scalar; its gradient needs no estimator of its own."""

    learns = "learning_rate"
    before = True
    during = True
    uses = (
        "meta.optimizer",
        "meta.eta_init",
        "meta.eta_online",
        "meta.init_steps",
        "meta.inner_steps",
        "meta.every",
        "meta.batch",
        "meta.clip_norm",
    )
