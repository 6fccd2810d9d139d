"""DenseNets that have seen data, and images to try them on."""

from __future__ import annotations

import torch

from eq_aimet.models import EquivariantDenseNet

SIZE = 33  # grids 16, 8, 4 and 2: both windows occur
WIDTH = 0.25
P4M, P4 = {"group": 4, "reflections": True}, {"group": 4, "reflections": False}


def trained_network(make=EquivariantDenseNet, *, size=SIZE, width=WIDTH, seed=0, **arguments):
    """A network whose batch norms have seen data and whose weights have been moved by gradients."""
    torch.manual_seed(seed)
    network = make(width=width, input_size=size, **arguments)
    for module in network.modules():
        if isinstance(module, (torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)):
            module.momentum = 1.0  # two steps are too few for a running average
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(2):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(noise_images(8, size)), torch.arange(8) % 2).backward()
        optimizer.step()
    return network


def noise_images(count, size=SIZE):
    """Noise of different brightness and colour, so that the answers differ."""
    return 2 * torch.rand(count, 3, 1, 1) * torch.rand(count, 3, size, size)
