"""What routers are composed of: small functions on routes, scores and gates."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from duo.backbone import BIG, MODULES, SKIP, SMALL, Gate


def one_hot(route: Tensor) -> Tensor:
    """Weights (..., M) that are 1 for the module of a route and 0 for the others.

    >>> one_hot(torch.tensor([2, 0]))
    tensor([[0., 0., 1.],
            [1., 0., 0.]])
    """
    return F.one_hot(route.long(), len(MODULES)).float()


def replay(route_BTL: Tensor) -> Gate:
    """A gate that follows the route; asked about S tokens, it answers for the last S positions."""
    return lambda x_BSD, layer: one_hot(route_BTL[:, route_BTL.shape[1] - x_BSD.shape[1] :, layer])


def top(score_BTL: Tensor, count_BTM: Tensor) -> Tensor:
    """route_BTL that gives a token's highest scores big and its lowest skip, as many as `count_BTM` says.

    >>> top(torch.tensor([[[0.1, 0.9, 0.5]]]), torch.tensor([[[1, 1, 1]]]))
    tensor([[[0, 2, 1]]])
    """
    # twice gives places in the order; stable, so that equal scores go by layer on every machine
    rank_BTL = score_BTL.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    big_BTL = rank_BTL < count_BTM[..., BIG, None]
    skip_BTL = rank_BTL >= score_BTL.shape[-1] - count_BTM[..., SKIP, None]
    return torch.where(big_BTL, BIG, torch.where(skip_BTL, SKIP, SMALL))


def even_scores(layers: int) -> Tensor:
    """score_L whose highest, however many are taken, are spread evenly over the layers; for `top`."""
    golden = 0.6180339887  # its multiples, modulo 1
    return torch.arange(1, layers + 1) * golden % 1


def even_patterns(count_CM: Tensor) -> Tensor:
    """A pattern of each (skip, small, big) count that spreads its big layers evenly, (C, L).

    >>> even_patterns(torch.tensor([[0, 2, 2]]))
    tensor([[2, 1, 2, 1]])
    """
    layers = int(count_CM[0].sum())
    return top(even_scores(layers).expand(len(count_CM), -1), count_CM)


def straight_through(logits: Tensor) -> Tensor:
    """Exactly one-hot weights (..., M) of the highest logit, with the gradient of their softmax.

    In training the modules that are not chosen run too, so that their logits learn; give a module that is not allowed a
    logit of minus infinity.

    >>> straight_through(torch.tensor([0.1, 3.0, 0.2]))
    tensor([0., 1., 0.])
    """
    soft = logits.softmax(dim=-1)
    # the brackets matter: without them rounding leaves weights that are not exactly 0 or 1
    return F.one_hot(soft.argmax(dim=-1), logits.shape[-1]).to(soft) + (soft - soft.detach())


def capped(gate: Gate, count_BTM: Tensor) -> Gate:
    """The same one-hot gate held to counts per token, in layer order.

    No token gets big or small beyond its count: it gets the other of the two while that lasts, then skip. So the last
    layers are skipped where they are needed for the skip count. It starts anew at layer 0; asked about S tokens, it
    holds them to the last S counts.
    """
    left_BSM = count_BTM

    def held(x_BSD: Tensor, layer: int) -> Tensor:
        nonlocal left_BSM
        if layer == 0:
            left_BSM = count_BTM[:, count_BTM.shape[1] - x_BSD.shape[1] :].clone()
        wanted_BS = gate(x_BSD, layer).argmax(dim=-1)
        has_small_BS, has_big_BS = (left_BSM > 0)[..., 1:].unbind(dim=-1)
        small_first_BS = torch.where(has_small_BS, SMALL, torch.where(has_big_BS, BIG, SKIP))
        big_first_BS = torch.where(has_big_BS, BIG, torch.where(has_small_BS, SMALL, SKIP))
        chosen_BS = torch.where(wanted_BS == BIG, big_first_BS, torch.where(wanted_BS == SMALL, small_first_BS, SKIP))
        weight_BSM = one_hot(chosen_BS)
        left_BSM = left_BSM - weight_BSM.to(left_BSM)
        return weight_BSM

    return held
