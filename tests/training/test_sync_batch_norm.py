"""Batch norm that several processes share."""

import torch
from torch import nn

from energy_at.training.sync_batch_norm import SharedBatchNorm

# Batch norm


def test_shared_batch_norm_of_one_process_is_batch_norm():
    torch.manual_seed(1)
    x = (3 * torch.randn(8, 4, 5, 5) + 2).double().requires_grad_()
    plain = nn.BatchNorm2d(4).double()
    nn.init.uniform_(plain.weight)
    shared = nn.Sequential(nn.BatchNorm2d(4)).double()
    shared[0].load_state_dict(plain.state_dict())
    SharedBatchNorm().apply(shared)
    for _ in range(2):
        expected, found = plain(x), shared(x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(shared[0].running_var, plain.running_var)
    torch.testing.assert_close(shared[0].running_mean, plain.running_mean)
    seen = [torch.autograd.grad(out.square().sum(), x, create_graph=True)[0]
            for out in (expected, found)]  # fmt: skip
    torch.testing.assert_close(seen[1], seen[0])
    twice = [torch.autograd.grad(grad.square().sum(), x)[0] for grad in seen]
    torch.testing.assert_close(twice[1], twice[0])
    SharedBatchNorm().revert(shared)
    assert type(shared[0]) is nn.BatchNorm2d
