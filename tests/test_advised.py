"""Routes by what another prediction expects of them, and the prediction of the candidates together."""

import json
from dataclasses import asdict, replace

import pytest
import torch
from conftest import command, random_tokens, toy_backbone
from safetensors.torch import save
from tokenizers import Tokenizer, models

from duo import Budget, Spec, Trial, one_hot, replay
from duo.backbone.flops import run_flops
from duo.data.tokenizer import tokenizer_digest
from duo.recipe import load
from duo.recipe.sections import CompareConfig
from duo.routing.meter import Meter
from duo.search import all_patterns, expected_loss, patterns_of
from duo.stages.publish import SCHEMA
from duo.storage.shared import STORE
from duo.storage.store import Store
from duo.storage.weights import weights_digest
from routers.advised import Advised

PATTERNS = patterns_of(3, Budget(1))


@torch.no_grad()
def mean_of_passes(backbone, tokens_BT, patterns):
    """The candidates' probabilities, one ordinary pass for each."""
    probabilities = []
    for pattern_L in patterns:
        route_BTL = pattern_L.expand(*tokens_BT.shape, -1)
        probabilities.append(backbone(tokens_BT, replay(route_BTL)).logits_BTV.double().softmax(-1))
    return torch.stack(probabilities).mean(0)


@pytest.mark.parametrize("skip_scope", ["ffn", "block"])
def test_the_averaged_prediction_is_the_mean_of_ordinary_passes(skip_scope):
    backbone, tokens_BT = toy_backbone(skip_scope=skip_scope), random_tokens(2, 7)
    patterns = all_patterns(3, (0, 1, 2))
    trial = Trial(backbone, tokens_BT)
    predicted = trial.prediction(patterns)
    assert predicted.double() == pytest.approx(mean_of_passes(backbone, tokens_BT, patterns), abs=1e-6)
    assert not trial.meter.labels_consulted
    assert trial.meter.passes > 1


def test_the_route_nearest_to_the_averaged_prediction_is_found_without_labels():
    backbone, tokens_BT = toy_backbone(), random_tokens(2, 5)
    trial = Trial(backbone, tokens_BT)
    target_BTV = trial.prediction(PATTERNS)
    found = trial.search(PATTERNS, [Budget(1)], "same", expected_loss, targets=target_BTV, table=True)
    assert found.loss_BTG[..., 0].equal(found.table_BTP.min(-1).values)
    assert not trial.meter.labels_consulted


SPEC = Spec(3, 16, Budget(1))


def publish(store, backbone):
    """A published backbone with a tokenizer, as far as a teacher needs it; its digest."""
    words = {f"word{index}": index for index in range(backbone.config.vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="word0")).to_str().encode()
    tokens = {"schema": SCHEMA, "digests": {}, "length": 8, "splits": {"held": 1}, "documents": {"held": [1]}}
    head = {
        "schema": SCHEMA,
        "about": {"name": "teacher", "train_tokens": 0, "seed": 0, "stage1": {}},
        "config": asdict(backbone.config),
        "weights": weights_digest(backbone),
        "parameters": sum(backbone.parameter_counts().values()),
        "tokens": store.add("tokens", tokens, {"tokenizer.json": tokenizer}),
    }
    return store.add("backbones", head, {"weights.safetensors": save(backbone.state_dict())})


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv(STORE, str(tmp_path / "store"))
    return Store(str(tmp_path / "store"))


def trial_of(backbone=None, batch=2, tokens=6, **about):
    return Trial(backbone or toy_backbone(), random_tokens(batch, tokens), **about)


def routes_of(router, trial):
    with torch.no_grad():
        return trial.run(router.eval().route(trial)).weight_BTLM.argmax(-1)


def big(backbone, tokens_BT):
    """The backbone's prediction with nothing but big modules."""
    with torch.no_grad():
        route_BTL = torch.full((*tokens_BT.shape, backbone.config.layers), 2)
        return backbone(tokens_BT, replay(route_BTL)).logits_BTV


@torch.no_grad()
def best_for(probability_BTV, backbone, tokens_BT):
    """The route of the lowest expected loss, token after token, by one ordinary pass for each candidate."""
    route_BTL = PATTERNS[0].expand(*tokens_BT.shape, 3).clone()
    for row in range(len(tokens_BT)):
        for at in range(tokens_BT.shape[1]):
            expected = []
            for pattern_L in PATTERNS:
                route_BTL[row, at] = pattern_L
                logits_BTV = backbone(tokens_BT, replay(route_BTL)).logits_BTV
                expected.append(-(probability_BTV[row, at] * logits_BTV[row, at].log_softmax(-1)).sum())
            route_BTL[row, at] = PATTERNS[torch.stack(expected).argmin()]
    return route_BTL


def test_every_token_takes_the_candidate_of_the_lowest_loss_that_the_teacher_expects(store):
    teacher, trial = toy_backbone(seed=1, width=24, layers=2), trial_of()
    router = Advised(SPEC, teacher=publish(store, teacher))
    wanted = best_for(big(teacher, trial.tokens_BT).softmax(-1), toy_backbone(), trial.tokens_BT)
    assert routes_of(router, trial).equal(wanted)
    assert router.predict(trial).allclose(big(teacher, trial.tokens_BT).log_softmax(-1), atol=1e-5)


def test_the_backbones_own_prediction_under_all_big_advises_without_any_store():
    backbone, trial = toy_backbone(), trial_of()
    router = Advised(SPEC, teacher="self")
    own_BTV = big(backbone, trial.tokens_BT).softmax(-1)
    assert routes_of(router, trial).equal(best_for(own_BTV, backbone, trial.tokens_BT))
    assert router.predict(trial).exp().allclose(own_BTV, atol=1e-5)
    assert not trial.meter.labels_consulted
    assert not len(router.pattern_PL)  # nothing of its own is averaged


def test_without_a_teacher_the_average_of_the_backbones_own_candidates_advises():
    backbone, trial = toy_backbone(), trial_of()
    router = Advised(SPEC)
    assert sorted(router.pattern_PL.tolist()) == sorted(PATTERNS.tolist())  # all three, for there are no more
    own_BTV = mean_of_passes(backbone, trial.tokens_BT, PATTERNS)
    assert routes_of(router, trial).equal(best_for(own_BTV.float(), backbone, trial.tokens_BT))
    assert router.predict(trial).exp().double() == pytest.approx(own_BTV, abs=1e-6)
    torch.manual_seed(0)
    few = Advised(Spec(3, 16, Budget(0.5)), patterns=2)
    assert len(few.pattern_PL) == 4  # two of each count


def test_routes_with_advice_need_no_labels_and_cost_what_was_computed(store):
    teacher, trial = toy_backbone(seed=1), trial_of()
    weight_BTLM = one_hot(torch.full((*trial.tokens_BT.shape, 3), 2))
    passed = float(run_flops(teacher.config, weight_BTLM, trial.position_BT).sum())
    trial.prediction(PATTERNS)
    for router, advice in ((Advised(SPEC), trial.meter.flops), (Advised(SPEC, publish(store, teacher)), passed)):
        meter, searched = Meter(), trial_of()
        routed = trial_of(meter=meter)
        with meter.counting():
            router.route(routed)
        advice_BTV = router.advise(trial_of())
        searched.search(PATTERNS, [Budget(1)], criterion=expected_loss, targets=advice_BTV)
        assert not routed.meter.labels_consulted
        asked = 0 if router.teacher is None else 1
        assert routed.meter.passes >= searched.meter.passes + asked > 1
        assert routed.meter.flops >= searched.meter.flops + advice


def test_a_teacher_is_no_part_of_the_routers_weights(store):
    router = Advised(SPEC, teacher=publish(store, toy_backbone(seed=1)))
    routes_of(router, trial_of())
    assert {name: value.numel() for name, value in router.state_dict().items()} == {"pattern_PL": 0}
    assert not [*router.parameters()]


def test_a_teacher_that_is_not_there_or_was_changed_is_named_before_any_work(store, tmp_path):
    digest = publish(store, toy_backbone(seed=2))  # of its own: a teacher is kept in memory
    for unknown in ("ab" * 32, "abc", "../../etc"):
        with pytest.raises(ValueError, match=f"router.teacher='{unknown}' cannot be had"):
            Advised(SPEC, teacher=unknown)
    (tmp_path / "store" / "backbones" / digest / "weights.safetensors").write_bytes(b"others")
    with pytest.raises(ValueError, match="weights.safetensors was changed"):
        Advised(SPEC, teacher=digest)


def test_a_recipe_may_shorten_its_teacher_and_means_the_whole_digest(store):
    digest = publish(store, toy_backbone(seed=3))
    asked = ["router.name=advised", "budget.big=1"]
    whole, short = (load("tiny", [*asked, f"router.teacher={text}"]) for text in (digest, digest[:6]))
    assert short.router_options == {"teacher": digest}
    assert short.digest == whole.digest
    rows = {"rows": {"taught": {"router": {"name": "advised", "teacher": digest[:6]}}}}
    (group,) = replace(load("tiny"), compare=CompareConfig(**rows)).groups.values()
    assert group["taught"].router_options == {"teacher": digest}
    with pytest.raises(ValueError, match=r"router.teacher=abcdef: 0 backbones begin with 'abcdef'"):
        load("tiny", [*asked, "router.teacher=abcdef"])
    assert load("tiny", [*asked, "router.teacher=self"]).router_options == {"teacher": "self"}


def test_a_teacher_that_reads_other_tokens_is_refused(store):
    router = Advised(SPEC, teacher=publish(store, toy_backbone(seed=1, vocabulary=32)))
    with pytest.raises(ValueError, match="predicts 32 tokens, the backbone 64"):
        router.route(trial_of())
    teacher = toy_backbone(seed=1)
    router = Advised(SPEC, teacher=publish(store, teacher))
    with pytest.raises(ValueError, match="another tokenizer .* of the same 64 tokens"):
        router.route(trial_of(tokenizer="0123456789abcdef"))
    words = {f"word{index}": index for index in range(64)}
    same = tokenizer_digest(Tokenizer(models.WordLevel(words, unk_token="word0")))
    assert routes_of(router, trial_of(tokenizer=same)).equal(routes_of(router, trial_of()))
    short = Advised(SPEC, teacher=publish(store, toy_backbone(seed=1, family="opt", positions=5)))
    with pytest.raises(ValueError, match="has 5 positions, the sequences 6 tokens"):
        short.route(trial_of())


def test_advice_that_is_searched_for_locally_says_so():
    router = Advised(SPEC, search="local").eval()
    router.calibrate([Trial(toy_backbone(), random_tokens(2, 6), random_tokens(2, 6, seed=1))])
    assert router.search_method == "local"
    assert (routes_of(router, trial_of()) == 2).sum(-1).eq(1).all()
    with pytest.raises(ValueError, match="router.patterns=0"):
        Advised(SPEC, patterns=0)


def test_a_run_with_advice_is_deployable_and_says_its_passes(finished, small, tmp_path):
    run = [*small, f"cache={finished}/cache", "full_holdout=false", "router.name=advised"]
    command(*run, f"output={tmp_path}/own")
    score = json.loads((tmp_path / "own" / "result.json").read_text())["subset"]["router"]["held"]
    assert not score["labels_consulted"]
    assert score["passes"] > 1
    assert score["within_budget"]


def test_a_published_backbone_advises_a_run_on_tokens_of_the_same_tokenizer(
    finished, submitted, small, tmp_path, monkeypatch
):
    monkeypatch.setenv(STORE, str(submitted))
    (digest,) = Store(str(submitted)).digests("backbones")
    run = [*small, "full_holdout=false", "router.name=advised", f"router.teacher={digest}"]
    command(*run, f"cache={finished}/cache", f"output={tmp_path}/run")
    assert json.loads((tmp_path / "run" / "result.json").read_text())["subset"]["router"]["held"]["passes"] > 1
    # fewer documents make another tokenizer of as many tokens
    other = [part for part in run if not part.startswith("data.train_bytes")]
    printed = command(*other, "data.train_bytes=15000", f"cache={tmp_path}/cache", f"output={tmp_path}/other", check=1)
    assert f"router.teacher={digest[:12]} has another tokenizer" in printed
