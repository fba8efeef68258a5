"""Buffers of a learned loss are part of a trial's state."""

import torch

from olfl_ray.engine import LearnerState
from olfl_ray.trial.state import ReplicateState, TrialState, state_from_bytes, state_to_bytes


def test_buffers_of_the_learned_loss_round_trip_bit_for_bit() -> None:
    one = {"w": torch.randn(3)}
    own = {"mean": torch.randn(2), "count": torch.tensor(7)}
    learner = LearnerState(theta=one, buffers={}, opt_state={}, phi=one, meta_state={}, loss_buffers=own)
    state = TrialState(init_steps=0, step=1, replicates=(ReplicateState(learner=learner, rng=torch.get_rng_state()),))
    found = state_from_bytes(state_to_bytes(state)).replicates[0].learner.loss_buffers
    assert found.keys() == own.keys()
    assert all(torch.equal(found[name], value) and found[name].dtype == value.dtype for name, value in own.items())
