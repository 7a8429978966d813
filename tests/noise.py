"""Noise of the size of float32's rounding, for tests that must not rest on last bits.

Another processor adds the same terms up in another order. Here every output of a layer (a module without modules in
it), every gradient that arrives there and every gradient that an optimiser takes is multiplied by 1 - 2^-23, 1 or
1 + 2^-23, number by number. The noise follows from the tensor, its layout and a salt alone: what is computed twice in
one way stays equal to the last bit, and what is computed in two ways does not.
"""

import zlib

import torch
from torch import Tensor
from torch.nn.modules.module import register_module_forward_hook
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils._pytree import tree_leaves, tree_map

EPSILON = 2.0**-23


def rounded(value: object) -> bool:
    """Tell whether noise is for this: numbers of float32 on the CPU."""
    return isinstance(value, Tensor) and value.dtype == torch.float32 and value.device.type == "cpu"


def noisy(tensor: Tensor, salt: int, epsilon: float = EPSILON) -> Tensor:
    """The tensor with its noise, number by number of ``epsilon`` of its size."""
    seed = zlib.crc32(tensor.detach().contiguous().numpy().data, zlib.crc32(f"{salt} {tensor.stride()}".encode()))
    steps = torch.randint(-1, 2, tensor.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.int8)
    return tensor * (1 + epsilon * steps)


class _Noise(torch.autograd.Function):
    """Noise on a value and on its gradient."""

    @staticmethod
    def forward(context, value, *how):
        context.how = how
        return noisy(value, *how)

    @staticmethod
    def backward(context, gradient):
        return noisy(gradient, *context.how), None, None


def install(salt: int, epsilon: float = EPSILON) -> None:
    """Add noise to all that modules and optimisers of this process compute in float32 on the CPU."""

    def after_forward(module, given, made):
        if torch.compiler.is_compiling() or next(module.children(), None) is not None:
            return made  # a module of modules adds nothing to their rounding
        before = {id(leaf) for leaf in tree_leaves(given)}  # an identity computes nothing
        return tree_map(
            lambda leaf: _Noise.apply(leaf, salt, epsilon) if rounded(leaf) and id(leaf) not in before else leaf, made
        )

    def before_step(optimizer, arguments, named):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if rounded(parameter.grad):
                    parameter.grad = noisy(parameter.grad, salt, epsilon)

    register_module_forward_hook(after_forward)
    register_optimizer_step_pre_hook(before_step)
