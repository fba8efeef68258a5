"""Online loss learning in your own training loop: the learned loss adapts while the module trains on it."""

import torch
from torch import nn
from torch.nn import functional as F

from olfl_ray import LearnedLoss, LossNetwork, OnlineLossLearner

torch.manual_seed(0)
x, y = torch.randn(512, 20), torch.randint(3, (512,))
x[:, 0] += 2 * y  # one column depends on the class
module = nn.Sequential(nn.Linear(20, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 3))
learned_loss = LearnedLoss(LossNetwork(), "classification")
optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
learner = OnlineLossLearner(module, optimizer, learned_loss, F.cross_entropy, eta=1e-3)

for step in range(200):
    train, meta = torch.randint(256, (64,)), torch.randint(256, 512, (64,))
    metrics = learner.step((x[train], y[train]), (x[meta], y[meta]))
    if step % 50 == 49:
        print(step + 1, f"task loss of the meta batch {metrics['meta_loss']:.3f}")
