"""Left padding in searches: it neither counts in an average nor costs anything."""

import pytest
import torch
from conftest import backbone_of, pass_flops, random_route, random_tokens, toy_backbone
from hypothesis import given, settings
from hypothesis import strategies as st

from duo import Budget, Trial, replay
from duo.search import all_patterns, entropy, patterns_of
from duo.search.patterns import counts_of

LAYERS = 3
ASKED = [  # context, unit and method
    *(("same", unit, "exact") for unit in ("token", "sequence", "batch")),
    *((context, "token", method) for context in ("committed", "reference") for method in ("exact", "local", "beam")),
]


def trials_of(pads, tokens, scope, seed):
    """Sequences that end alike, behind so much padding each, in one trial; and in trials without padding."""
    backbone = toy_backbone(skip_scope=scope)
    token_BT = random_tokens(len(pads), max(pads) + tokens + 1, seed=seed)
    inputs_BT, labels_BT = token_BT[:, :-1].clone(), token_BT[:, 1:].clone()
    for row, pad in enumerate(pads):
        inputs_BT[row, :pad] = -1  # their labels stay: a trial knows that padding predicts nothing
    rows = [range(len(pads))] if len({*pads}) == 1 else [[row] for row in range(len(pads))]
    plain = [
        Trial(backbone, inputs_BT[row, pads[row[0]] :], labels_BT[row, pads[row[0]] :], torch.tensor([*row]))
        for row in map(list, rows)
    ]
    return Trial(backbone, inputs_BT, labels_BT), plain


def search(trial, asked, budgets, route_BTL, **options):
    context, unit, method = asked
    if context == "reference":
        with torch.no_grad():
            context = backbone_of(trial)(trial.tokens_BT, replay(route_BTL))
    patterns = all_patterns(LAYERS, (0, 1, 2))
    if method != "exact":  # one pattern of each count to start from
        (budget,) = budgets
        counts = counts_of(LAYERS, budget).tolist()
        patterns = torch.tensor([[2] * big + [1] * small + [0] * skip for skip, small, big in counts])
    return trial.search(patterns, budgets, context, unit=unit, method=method, **options)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    asked=st.sampled_from(ASKED),
    pads=st.sampled_from([(2, 2), (3, 0), (1, 3), (0, 4, 1), (5,)]),
    tokens=st.integers(1, 4),
    budget=st.sampled_from([Budget(1), Budget(1, 1), Budget(0.5)]),
    scope=st.sampled_from(["ffn", "block"]),
    criterion=st.sampled_from([None, entropy]),
    price=st.sampled_from([0, 1e-5]),
    seed=st.integers(0, 99),
)
def test_padding_moves_no_route_no_mean_and_no_cost(asked, pads, tokens, budget, scope, criterion, price, seed):
    context, unit, method = asked
    even = len({*pads}) == 1
    if unit == "batch" and not even:
        pads, even = (2, 2), True  # only then is the same batch one without padding
    options = {"criterion": criterion}
    if method == "exact":
        options |= {"price": price, "at_most": bool(price), "table": context != "committed"}
    trial, plain = trials_of(pads, tokens, scope, seed)
    route_BTL = random_route(*trial.tokens_BT.shape, LAYERS, (0, 1, 2), seed=seed)
    padded = search(trial, asked, [budget], route_BTL, **options)
    means, weights = [], []
    for part in plain:
        rows, pad = part.sequence_B.tolist(), trial.tokens_BT.shape[1] - part.tokens_BT.shape[1]
        found = search(part, asked, [budget], route_BTL[rows, pad:], **options)
        assert torch.equal(padded.route_BTGL[rows, pad:], found.route_BTGL)
        assert torch.allclose(padded.loss_BTG[rows, pad:], found.loss_BTG, atol=1e-5)
        means.append(found.mean_loss_P)
        weights.append(part.tokens_BT.numel())
    if padded.mean_loss_P is not None:
        mean_P = sum(n * mean_P for n, mean_P in zip(weights, means, strict=True)) / sum(weights)
        assert torch.allclose(padded.mean_loss_P, mean_P, atol=1e-5)
    spent = sum(pass_flops(part) for part in plain)
    # a search in turn computes together what tokens side by side ask for: elsewhere its costs are theirs as well
    if even or context == "same" or (budget != Budget(0.5) and method != "beam"):
        assert pass_flops(trial) == spent
        assert trial.meter.layer_evaluations == sum(part.meter.layer_evaluations for part in plain)
        assert trial.meter.passes == pytest.approx(trial.meter.layer_evaluations / (LAYERS * sum(weights)))
    assert pass_flops(trial) > 0


@pytest.mark.parametrize("unit", ["sequence", "batch"])
@pytest.mark.parametrize("criterion", [None, entropy])
def test_a_unit_averages_over_its_real_tokens(unit, criterion):
    trial, _ = trials_of((0, 3, 1), tokens=3, scope="block", seed=5)
    patterns = patterns_of(LAYERS, Budget(1, 1))
    found = search(trial, ("same", unit, "exact"), [Budget(1, 1)], None, criterion=criterion, table=True)
    every = all_patterns(LAYERS, (0, 1, 2)).tolist()
    table_BTP = found.table_BTP[..., [every.index(pattern) for pattern in patterns.tolist()]].clone()
    real_BT = trial.tokens_BT >= 0
    table_BTP[~real_BT] = torch.nan
    best_B = table_BTP.nanmean((0, 1) if unit == "batch" else 1).argmin(-1).expand(3)
    assert torch.equal(found.route_BTGL[:, :, 0][real_BT], patterns[best_B][:, None].expand(3, 6, LAYERS)[real_BT])


@pytest.mark.parametrize("pads", [(4, 4), (3, 0)])
def test_a_prediction_is_the_same_behind_padding_and_costs_the_same(pads):
    trial, plain = trials_of(pads, tokens=3, scope="ffn", seed=1)
    padded_BTV = trial.prediction(all_patterns(LAYERS))
    for part in plain:
        rows, pad = part.sequence_B.tolist(), trial.tokens_BT.shape[1] - part.tokens_BT.shape[1]
        assert torch.allclose(padded_BTV[rows, pad:], part.prediction(all_patterns(LAYERS)), atol=1e-5)
    assert pass_flops(trial) == sum(pass_flops(part) for part in plain)
    assert trial.meter.layer_evaluations == sum(part.meter.layer_evaluations for part in plain)


def test_padding_brings_no_candidates():
    trial, (long, short) = trials_of((0, 3), tokens=2, scope="ffn", seed=2)
    count_BTM = torch.tensor([0, 2, 1]).repeat(*trial.tokens_BT.shape, 1)
    count_BTM[1, :3] = torch.tensor([0, 0, 3])
    trial.search(all_patterns(LAYERS), [count_BTM])
    for part in (long, short):
        part.search(all_patterns(LAYERS), [Budget(1)])
    assert pass_flops(trial) == pass_flops(long) + pass_flops(short)
