"""The first NaN or infinity of a computation."""

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

FILLS = ("masked_fill", "masked_fill_", "full", "full_like", "where", "fill_", "new_full", "scalar_tensor")


class FirstBad(TorchDispatchMode):
    """Within this context, the first operation that gives NaN or infinity from finite tensors raises
    FloatingPointError. A fill with infinity, as masks have, may; so may memory that nothing has filled yet."""

    def __torch_dispatch__(self, function, types, given=(), named=None):
        clean = not any(map(bad, tree_leaves((given, named))))
        made, name = function(*given, **(named or {})), function.overloadpacket.__name__
        if clean and name not in FILLS and "empty" not in name and any(map(bad, tree_leaves(made))):
            raise FloatingPointError(name)
        return made


def bad(value: object) -> bool:
    """Tell whether a tensor holds NaN or plus infinity; minus infinity masks scores before a softmax."""
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.is_meta:
        return False
    return bool((value.isnan() | (value == float("inf"))).any())
