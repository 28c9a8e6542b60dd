"""A layer's two FFNs on the tokens that chose them: several ways to compute one rule.

The rule is `weight_small * small(x) + weight_big * big(x)`, where a weight of 0 costs nothing. Each way is there
because it was measured to pay (`LOG.md`, 2026-11-29), but for those on a GPU: there the host shall not wait for counts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

Product = Callable[[nn.Linear, Tensor], Tensor]
"""product(linear, x_RX) -> what the linear layer makes of the rows."""

FEW = 16  # tokens, at most, for which a list is quicker than indices, and on a GPU both modules than waiting for counts


class Module(Protocol):
    """An FFN."""

    def __call__(self, x_RD: Tensor, product: Product = ...) -> Tensor:
        """(R, D) -> (R, D)."""


FFNs = tuple[Module, Module]
"""Small and big."""


def mix(ffns: FFNs, x_ND: Tensor, weight_NO: Tensor, real_N: Tensor | None = None) -> Tensor:
    """The rule for all tokens, (N, D).

    Where the weights learn (`learning`), the real tokens run the other module too: it adds 0 here, and what it would
    have added to the gradient of the weights (a gate learns from what it did not choose).

    Args:
        ffns: small and big. With gradients both are called, on an empty batch if need be: so their parameters get zero
            gradients instead of none, and no process waits for another.
        x_ND: what they read.
        weight_NO: of small and big.
        real_N: False for padding; None where there is none.
    """
    learns, few = learning(weight_NO), len(x_ND) <= FEW
    if not x_ND.is_cpu and (learns or few):
        return run_both(ffns, x_ND, weight_NO)
    if few and not torch.is_grad_enabled():
        return run_few(ffns, x_ND, weight_NO)
    if can_group(x_ND):
        return run_grouped(ffns, x_ND, weight_NO)
    chosen_NO = weight_NO != 0
    used = chosen_NO.sum(0).tolist()  # the one place where a GPU is waited for
    if used == [len(x_ND)] * 2:
        return run_both(ffns, x_ND, weight_NO)
    if not learns and sorted(used) == [0, len(x_ND)]:
        return run_one(ffns, x_ND, weight_NO, used.index(len(x_ND)))
    y_ND = run_chosen(ffns, x_ND, weight_NO, chosen_NO, used[0])
    if learns:
        with torch.no_grad():  # times a weight of 0: neither x nor the parameters have a gradient through it
            idle_NO = ~chosen_NO if real_N is None else ~chosen_NO & real_N[:, None]
            made_RD, at = gathered(ffns, x_ND, idle_NO, int(idle_NO[:, 0].sum()))
        y_ND = y_ND.index_add(0, at[0], weighed(made_RD, weight_NO[at], x_ND))
    return y_ND


def learning(weight: Tensor) -> bool:
    """Whether weights are to get a gradient: then what they are weights of must be known, also where they are 0."""
    return torch.is_grad_enabled() and weight.requires_grad


def weighed(made_RD: Tensor, weight_R: Tensor, like: Tensor) -> Tensor:
    """Outputs times weights, in the type of the stream: autocast may have changed it."""
    return (made_RD * weight_R[:, None]).to(like.dtype)


def run_both(ffns: FFNs, x_ND: Tensor, weight_NO: Tensor) -> Tensor:
    """Both modules on all tokens: soft mixtures, and the rule written out."""
    # a view for each, so that gradients add up module by module, in every way alike
    small_ND, big_ND = (ffn(x_ND.view_as(x_ND)) for ffn in ffns)
    return weighed(small_ND, weight_NO[:, 0], x_ND) + weighed(big_ND, weight_NO[:, 1], x_ND)


def run_one(ffns: FFNs, x_ND: Tensor, weight_NO: Tensor, module: int) -> Tensor:
    """One module on all tokens: nothing is gathered."""
    y_ND = ffns[module](x_ND)
    if torch.is_grad_enabled():
        y_ND = torch.cat((y_ND, ffns[1 - module](x_ND[:0])))
    return weighed(y_ND, weight_NO[:, module], x_ND)


def run_few(ffns: FFNs, x_ND: Tensor, weight_NO: Tensor) -> Tensor:
    """A few tokens, without gradients: sorted out in Python, where operators on indices would take longer."""
    rows = weight_NO.tolist()
    small, big = ([number for number, row in enumerate(rows) if row[module]] for module in (0, 1))
    if sorted((len(small), len(big))) == [0, len(rows)]:
        module = int(len(big) > 0)
        y_ND = ffns[module](x_ND)
        return y_ND if all(row[module] == 1 for row in rows) else weighed(y_ND, weight_NO[:, module], x_ND)
    if not small and not big:
        return torch.zeros_like(x_ND)
    at = torch.tensor(small + big), torch.tensor([0] * len(small) + [1] * len(big))
    small_RD, big_RD = x_ND.index_select(0, at[0]).tensor_split((len(small),))
    made_RD = torch.cat([ffn(part_RD) for ffn, part_RD in zip(ffns, (small_RD, big_RD), strict=True) if len(part_RD)])
    return torch.zeros_like(x_ND).index_add_(0, at[0], weighed(made_RD, weight_NO[at], x_ND))


def run_chosen(ffns: FFNs, x_ND: Tensor, weight_NO: Tensor, chosen_NO: Tensor, small_count: int) -> Tensor:
    """Many tokens, `small_count` of which chose small: sorted by module once, each module on its slice."""
    made_RD, at = gathered(ffns, x_ND, chosen_NO, small_count)
    # added, not written: a soft mixture gives a token to both
    return torch.zeros_like(x_ND).index_add(0, at[0], weighed(made_RD, weight_NO[at], x_ND))


def gathered(ffns: FFNs, x_ND: Tensor, chosen_NO: Tensor, small_count: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """What small, then big make of the tokens chosen for them, (R, D), and where these stand in (N, O)."""
    module_R, token_R = chosen_NO.t().nonzero().unbind(1)  # R: the tokens of small, then those of big
    # gathered, not masked: both FFNs on all tokens are slower than all big (measured)
    small_RD, big_RD = x_ND.index_select(0, token_R).tensor_split((small_count,))
    return torch.cat((ffns[0](small_RD), ffns[1](big_RD))), (token_R, module_R)


def can_group(x_ND: Tensor) -> bool:
    """Whether the device multiplies a number of rows that it alone knows: Hopper and later, in bfloat16."""
    if not x_ND.is_cuda or x_ND.dtype != torch.bfloat16 or torch.is_autocast_enabled("cuda"):
        return False
    return hasattr(torch, "_grouped_mm") and torch.cuda.get_device_capability(x_ND.device) >= (9, 0)


def run_grouped(ffns: FFNs, x_ND: Tensor, weight_NO: Tensor) -> Tensor:
    """Many tokens on a GPU: sorted for each module, which computes the first rows; the host does not wait."""
    y_ND = torch.zeros_like(x_ND)
    for ffn, weight_N in zip(ffns, weight_NO.unbind(1), strict=True):
        order_N = (weight_N == 0).to(torch.int8).argsort(stable=True)
        count_1 = (weight_N != 0).sum(dtype=torch.int32)[None]
        made_ND = ffn(x_ND.index_select(0, order_N), partial(first_rows, count_1))
        y_ND = y_ND.index_add(0, order_N, weighed(made_ND, weight_N[order_N], x_ND))
    return y_ND


def first_rows(count_1: Tensor, linear: nn.Linear, x_NX: Tensor) -> Tensor:
    """A linear layer on the first rows alone, or on all if its shape asks for that; of the others nobody asks."""
    if any(size % 8 for size in linear.weight.shape):  # the kernels below take rows of whole 16 bytes
        return linear(x_NX)
    first_N1 = torch.arange(len(x_NX), device=x_NX.device)[:, None] < count_1
    # what it leaves in the other rows is undefined, and so are their gradients: both are masked
    made_NX = torch._grouped_mm(x_NX.where(first_N1, 0), linear.weight.t()[None], offs=count_1).where(first_N1, 0)
    return made_NX if linear.bias is None else made_NX + linear.bias
