"""Policies: which codec each tensor of the state has, at which step."""

from __future__ import annotations

import logging
import math

import pytest
import torch
from torch import nn, optim

from gradient.errors import InvalidInputError
from gradient.optim import (
    AdaptiveWarmupPolicy,
    BF16Codec,
    ConfigurablePolicy,
    EightBitPolicy,
    FourthRootCodec,
    FP16Codec,
    FP32Codec,
    Int8MomentumCodec,
    Lion,
    Policy,
    Rule,
    SelectivePolicy,
    SignedSqrtCodec,
    WarmupPolicy,
    kept,
    wrap,
    wrap_low_memory_adamw,
)

LARGE, SMALL = nn.Parameter(torch.zeros(64, 64)), nn.Parameter(torch.zeros(63, 65))


def adam_state(param):
    return {"step": torch.tensor(1.0), "exp_avg": torch.zeros_like(param), "exp_avg_sq": torch.zeros_like(param)}


def chosen(policy, param=LARGE, state=None, step=1):
    codecs = policy.get_codecs(param, adam_state(param) if state is None else state, step)
    return {key: codec.kind for key, codec in codecs.items()}


EIGHT_BITS = {"exp_avg": "signed-sqrt", "exp_avg_sq": "fourth-root"}


def test_the_default_codes_moments_of_what_has_two_dimensions_and_4096_elements():
    policy = EightBitPolicy()
    assert chosen(policy) == EIGHT_BITS
    assert chosen(policy, SMALL) == chosen(policy, nn.Parameter(torch.zeros(10**4))) == {}
    assert chosen(policy, nn.Parameter(torch.zeros(8, 8, 8, 8))) == EIGHT_BITS
    assert chosen(policy, nn.Parameter(torch.zeros(64, 64, dtype=torch.float64))) == {}
    assert chosen(EightBitPolicy(SMALL.numel()), SMALL) == EIGHT_BITS


def test_the_default_codes_nothing_but_moments_in_the_shape_of_their_parameter():
    state = {
        "momentum_buffer": LARGE,
        "square_avg": LARGE,
        "acc_delta": LARGE,
        "max_exp_avg_sq": LARGE,
        "sum": LARGE,
        "prev": LARGE,
        "exp_avg": torch.zeros(64),
        "exp_avg_sq": torch.zeros(64, 64, dtype=torch.int64),
    }
    coded = {"momentum_buffer": "signed-sqrt", "square_avg": "fourth-root", "acc_delta": "fourth-root"}
    assert chosen(EightBitPolicy(), LARGE, state) == coded
    # Centered: the square of an average is taken from it.
    assert chosen(EightBitPolicy(), LARGE, {"square_avg": LARGE, "grad_avg": LARGE}) == {}


def test_a_warmup_codes_momentum_from_its_last_step_on_and_variance_as_asked():
    policy = WarmupPolicy(10)
    assert chosen(policy, step=9) == {}
    assert chosen(policy, step=10) == {"exp_avg": "signed-sqrt", "exp_avg_sq": "float32"}
    assert chosen(policy, SMALL, step=10) == {"exp_avg": "float32", "exp_avg_sq": "float32"}
    assert [policy.next_change(step) for step in (0, 9, 10, 99)] == [10, 10, None, None]
    policy = WarmupPolicy(0, variance_codec=FourthRootCodec(), small_tensor_codec=BF16Codec(), min_int8_elements=4096)
    assert chosen(policy) == EIGHT_BITS
    assert chosen(policy, SMALL) == {"exp_avg": "bfloat16", "exp_avg_sq": "bfloat16"}
    policy = WarmupPolicy(0, momentum_key="m", variance_key="v", variance_codec=FP16Codec())
    assert chosen(policy, LARGE, {"m": LARGE, "v": LARGE, "exp_avg": LARGE}) == {"m": "signed-sqrt", "v": "float16"}


@pytest.mark.parametrize("resident", [None, True, False])
def test_a_warmup_keeps_codes_with_the_cpu_if_they_are_not_to_stay_on_the_device(resident):
    codecs = WarmupPolicy(0, device_resident=resident).get_codecs(LARGE, adam_state(LARGE), 1)
    assert {codec.offload_to_cpu for codec in codecs.values()} == {resident is False}


def test_an_adaptive_warmup_ends_when_the_loss_has_not_fallen_often_enough():
    policy = AdaptiveWarmupPolicy(100, patience=2, tol=0.1)
    losses = {1.0: False, 0.95: False, 0.89: False, 0.85: False}
    for loss, ended in losses.items():
        # 0.95 is no new best, 0.89 is one.
        assert policy.update_on_loss(loss) is ended
        assert chosen(policy, step=3) == {}
    assert policy.update_on_loss(0.80) is True
    assert policy.update_on_loss(0.80) is False
    assert chosen(policy, step=3) == {"exp_avg": "signed-sqrt", "exp_avg_sq": "float32"}


def test_an_adaptive_warmup_ends_with_its_steps_in_any_case_and_when_told():
    assert chosen(AdaptiveWarmupPolicy(5), step=5) == chosen(WarmupPolicy(5), step=5)
    policy = AdaptiveWarmupPolicy(5)
    policy.activate_compression()
    assert chosen(policy, step=1) == chosen(WarmupPolicy(5), step=5)


def test_codecs_by_key_and_one_for_all_others_but_for_counters():
    policy = ConfigurablePolicy({"exp_avg": SignedSqrtCodec()}, FP16Codec(), warmup_steps=3)
    assert chosen(policy, step=2) == {}
    assert chosen(policy, step=3) == {"exp_avg": "signed-sqrt", "exp_avg_sq": "float16"}
    assert chosen(ConfigurablePolicy({"exp_avg": None})) == {"exp_avg": "float32", "exp_avg_sq": "float32"}


def model_of():
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(64, 64), nn.Linear(64, 64), nn.Linear(64, 128))


def kinds(optimizer):
    return [getattr(optimizer.store.entries[p].get("exp_avg_sq"), "kind", None)
            for p in optimizer.param_groups[0]["params"] if p.dim() > 1]  # fmt: skip


def stepped(model, optimizer):
    model(torch.arange(64)).square().sum().backward()
    optimizer.step()
    return optimizer


RULES = {
    "name": (Rule(None, name="0.*"), [None, "fourth-root", "fourth-root"]),
    "exact name": (Rule(None, name="2.weight"), ["fourth-root", "fourth-root", None]),
    "module": (Rule(None, module=nn.Embedding), [None, "fourth-root", "fourth-root"]),
    "modules": (Rule(None, module=(nn.Embedding, nn.Linear)), [None, None, None]),
    "shape": (Rule(None, shape=lambda shape: shape[0] == 128), ["fourth-root", "fourth-root", None]),
    "all that is given": (Rule(None, name="*weight", module=nn.Linear, shape=lambda shape: math.prod(shape) == 4096),
                          ["fourth-root", None, "fourth-root"]),
    "everything": (Rule(None), [None, None, None]),
}  # fmt: skip


@pytest.mark.parametrize("case", RULES)
def test_rules_choose_by_name_module_and_shape(case):
    rule, expected = RULES[case]
    model = model_of()
    optimizer = wrap(optim.AdamW(model.parameters()), SelectivePolicy([rule]), model=model)
    assert kinds(stepped(model, optimizer)) == expected


def test_the_first_rule_that_holds_counts_and_the_default_where_none_does():
    model = model_of()
    half = ConfigurablePolicy({"exp_avg_sq": BF16Codec()})
    rules = [Rule(half, name="1.*"), Rule(None, module=nn.Linear), Rule(EightBitPolicy(), name="1.*")]
    optimizer = wrap(optim.AdamW(model.parameters()), SelectivePolicy(rules, EightBitPolicy(10**6)), model=model)
    assert kinds(stepped(model, optimizer)) == [None, "bfloat16", None]
    assert SelectivePolicy([Rule(WarmupPolicy(7)), Rule(WarmupPolicy(5))]).next_change(0) == 5


def test_names_are_those_of_named_parameters_and_of_several_models():
    model = model_of()
    policy = SelectivePolicy([Rule(None, name="0.*")])
    optimizer = wrap(optim.AdamW(model.named_parameters()), policy)
    assert kinds(stepped(model, optimizer)) == [None, "fourth-root", "fourth-root"]
    one, two = model_of(), model_of()
    both = optim.AdamW([*one.parameters(), *two.parameters()])
    wrap(both, SelectivePolicy([Rule(None, name="0.*")]), model={"one": one, "two": two})
    two(one(torch.arange(64)).argmax(1) % 64).square().sum().backward()
    one(torch.arange(64)).sum().backward()
    both.step()
    assert kinds(both) == [None, "fourth-root", "fourth-root"] * 2


def test_a_group_that_is_added_is_asked_for_by_name_too():
    model = model_of()
    optimizer = optim.AdamW(model[0].parameters())
    wrap(optimizer, SelectivePolicy([Rule(None, name="2.weight")]), model=model)
    optimizer.add_param_group({"params": [*model[1].parameters(), *model[2].parameters()]})
    stepped(model, optimizer)
    assert not isinstance(optimizer.store.entries[model[1].weight]["exp_avg_sq"], torch.Tensor)
    assert isinstance(optimizer.store.entries[model[2].weight]["exp_avg_sq"], torch.Tensor)


def test_eight_bit_momentum_that_is_asked_for_as_a_second_moment_is_a_fourth_root_and_that_is_said(caplog, monkeypatch):
    monkeypatch.setattr(kept, "_said", set())
    weight = nn.Parameter(torch.randn(64, 64))
    optimizer = wrap(optim.AdamW([weight]), ConfigurablePolicy({"exp_avg_sq": Int8MomentumCodec()}))
    weight.grad = torch.ones_like(weight)
    with caplog.at_level(logging.WARNING, "gradient"):
        optimizer.step()
    assert kinds(optimizer) == ["fourth-root"]
    assert [record.getMessage() for record in caplog.records] == [
        "exp_avg_sq is a second moment, and Int8MomentumCodec is for first ones: it is coded as FourthRootCodec does"
    ]


def test_half_precision_that_would_make_second_moments_zero_is_a_fourth_root_and_that_is_said(caplog, monkeypatch):
    monkeypatch.setattr(kept, "_said", set())
    weight = nn.Parameter(torch.zeros(64, 64))
    optimizer = wrap_low_memory_adamw([weight], lr=1e-3, warmup_steps=0, weight_decay=0.0)
    with caplog.at_level(logging.WARNING, "gradient"):
        for _ in range(30):
            weight.grad = 1e-5 * torch.randn(64, 64)
            optimizer.step()
    assert any("makes small ones zero" in record.getMessage() for record in caplog.records)
    assert kinds(optimizer) == ["fourth-root"] and float(weight.abs().max()) < 0.03


@pytest.mark.parametrize("kind", [optim.AdamW, optim.NAdam, Lion])
def test_a_first_moment_never_loses_its_sign(kind, caplog, monkeypatch):
    monkeypatch.setattr(kept, "_said", set())
    weight = nn.Parameter(torch.zeros(64, 64))
    optimizer = wrap(kind([weight]), ConfigurablePolicy({"exp_avg": FourthRootCodec(offload_to_cpu=True)}))
    weight.grad = -torch.ones_like(weight)
    with caplog.at_level(logging.WARNING, "gradient"):
        optimizer.step()
    assert float(optimizer.state[weight]["exp_avg"].max()) < 0
    assert optimizer.store.entries[weight]["exp_avg"].kind == "signed-sqrt"
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("exp_avg is a first moment, and FourthRootCodec is for second ones, which have no sign")


@pytest.mark.parametrize("kind", [optim.AdamW, optim.RAdam])
def test_a_key_that_no_state_has_is_said_once_and_what_is_right_is_coded(kind, caplog, monkeypatch):
    monkeypatch.setattr(kept, "_said", set())
    weights = [nn.Parameter(torch.ones(64, 64)) for _ in range(2)]
    policy = ConfigurablePolicy({"exp_agv": FP16Codec(), "exp_avg": BF16Codec()})
    optimizer = wrap(kind(weights), policy)
    with caplog.at_level(logging.WARNING, "gradient"):
        for weight in weights:
            weight.grad = torch.ones_like(weight)
        optimizer.step()
    assert optimizer.store.stats()["exp_avg"].num_coded == 2
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("ConfigurablePolicy has codecs for exp_agv, which the state does not have: it has ")
    copy = wrap(kind([nn.Parameter(torch.ones(64, 64)) for _ in range(2)]), policy)
    copy.load_state_dict(optimizer.state_dict())


def test_a_rule_that_holds_for_nothing_is_said(caplog, monkeypatch):
    monkeypatch.setattr(kept, "_said", set())
    model = model_of()
    with caplog.at_level(logging.WARNING, "gradient"):
        wrap(
            optim.AdamW(model.parameters()),
            SelectivePolicy([Rule(None, name="encoder.*"), Rule(None, name="0.*")]),
            model=model,
        )
    (said,) = [record.getMessage() for record in caplog.records]
    assert "encoder.*" in said and "none of the optimizer's parameters" in said


class Silent(Policy):
    """Forgets to return anything."""

    def get_codecs(self, param, state, step):
        return None


@pytest.mark.parametrize("kind", [optim.AdamW, optim.RAdam])
def test_a_policy_that_returns_nothing_is_named(kind):
    weight = nn.Parameter(torch.ones(64, 64))
    optimizer = wrap(kind([weight]), Silent())
    weight.grad = torch.ones_like(weight)
    with pytest.raises(InvalidInputError, match=r"Silent\.get_codecs gave None"):
        optimizer.step()


BAD = {
    "min_elements": lambda: EightBitPolicy(-1),
    "min_elements of text": lambda: EightBitPolicy("all"),
    "warmup_steps": lambda: WarmupPolicy(-1),
    "warmup_steps of a float": lambda: WarmupPolicy(1.5),
    "warmup_steps that are true": lambda: ConfigurablePolicy({}, warmup_steps=True),
    "a class as a codec": lambda: WarmupPolicy(1, variance_codec=FP16Codec),
    "a class in a map": lambda: ConfigurablePolicy({"exp_avg": FP32Codec}),
    "a list of codecs": lambda: ConfigurablePolicy([FP32Codec()]),
    "a rule that is none": lambda: SelectivePolicy([EightBitPolicy()]),
    "a rounding that is unknown": lambda: FourthRootCodec("up"),
    "where codes are kept": lambda: FP16Codec("cpu"),
    "one rule that is no list": lambda: SelectivePolicy(Rule(None)),
    "a default that is no policy": lambda: SelectivePolicy([], default="fp32"),
    "a rule's policy": lambda: Rule("fp32", name="*"),
    "a rule's name that is a list": lambda: Rule(None, name=["0.weight"]),
    "a rule's module that is text": lambda: Rule(None, module="Linear"),
    "a rule's module that is a module": lambda: Rule(None, module=nn.Linear(1, 1)),
    "a rule's modules of which one is none": lambda: Rule(None, module=(nn.Linear, int)),
    "a rule's shape that is a shape": lambda: Rule(None, shape=(128, 128)),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_options_are_refused_at_once(case):
    with pytest.raises(InvalidInputError) as caught:
        BAD[case]()
    assert caught.value.code == "bad-option"


def test_one_policy_may_be_that_of_several_optimizers():
    policy = SelectivePolicy([Rule(None, name="0.*")])
    models = [model_of(), model_of()]
    optimizers = [wrap(optim.AdamW(model.parameters()), policy, model=model) for model in models]
    for model, optimizer in zip(models, optimizers, strict=True):
        assert kinds(stepped(model, optimizer)) == [None, "fourth-root", "fourth-root"]
