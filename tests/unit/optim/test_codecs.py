"""Codecs by themselves: what comes back, what it takes, and by lot."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from gradient.optim import BF16Codec, FourthRootCodec, FP16Codec, FP32Codec, Int8MomentumCodec, SignedSqrtCodec
from gradient.optim.codecs import BUILTIN

ERRORS = {
    FP32Codec: (4.0, 0.0),
    BF16Codec: (2.0, 1 / 256),
    FP16Codec: (2.0, 1 / 2048),
    SignedSqrtCodec: (1.0625, 0.008),
    Int8MomentumCodec: (1.0625, 0.008),
    FourthRootCodec: (1.0625, 0.008),
}
"""Bytes an element, and the error as a part of the largest value."""


def test_every_codec_is_here():
    assert set(ERRORS) == set(BUILTIN)


def values_for(kind):
    torch.manual_seed(0)
    values = torch.randn(50, 128)
    return values.square() if kind is FourthRootCodec else values


@pytest.mark.parametrize("kind", ERRORS)
def test_bytes_and_errors_are_those_that_are_promised(kind):
    values = values_for(kind)
    before = values.clone()
    codec = kind()
    packed = codec.encode(values)
    found = codec.decode(packed, torch.device("cpu"))
    bytes_, error = ERRORS[kind]
    assert codec.bytes(packed) == bytes_ * values.numel()
    # Of a block, as 64 of them share a scale.
    largest = values.abs().view(-1, 64).amax(1, keepdim=True)
    assert bool(((found - values).view(-1, 64).abs() <= error * largest).all())
    assert found.dtype == values.dtype and found.shape == values.shape
    found.fill_(7)
    assert values.equal(before) and codec.decode(packed).ne(7).any()


@pytest.mark.parametrize("kind", ERRORS)
def test_what_was_decoded_is_coded_to_the_same(kind):
    codec = kind()
    once = codec.encode(values_for(kind))
    again = codec.encode(codec.decode(once))
    assert again.codes.equal(once.codes)
    assert once.scales is None or again.scales.equal(once.scales)


@pytest.mark.parametrize("kind", ERRORS)
def test_several_are_packed_as_one_by_one(kind):
    codec, values = kind(), values_for(kind)
    packed = codec.batch_encode([values, values[:1]])
    assert [codec.bytes(one) for one in packed] == [codec.bytes(codec.encode(part)) for part in (values, values[:1])]
    found = codec.batch_decode(packed, torch.device("cpu"))
    assert found[0].equal(codec.decode(codec.encode(values))) and found[1].shape == (1, 128)


def test_by_lot_values_are_right_on_average_and_neighbours_at_most():
    torch.manual_seed(0)
    values = torch.rand(64, 64)
    codec = FourthRootCodec("stochastic")
    scales = codec.encode(values).scales.view(64, 1)
    exact = (255 * (values.double() / scales) ** 0.25).clamp(max=255 - 1e-6)
    below = exact.floor()
    step = scales * (((below + 1) / 255) ** 4 - (below / 255) ** 4)
    total = torch.zeros_like(values, dtype=torch.float64)
    for count in range(400):
        packed = codec.encode_as(values, seed=3, draws=count)
        assert bool(((packed.codes - exact).abs() < 1 + 1e-4).all())
        total += packed.decode()
    # A draw has a deviation of at most half a step, the mean of 400 of a fortieth: six of them.
    assert bool(((total / 400 - values).abs() <= 0.15 * step + 1e-6).all())
    assert (total / 400 - values).div(step).mean().abs() < 0.003
    assert codec.encode_as(values, seed=3, draws=1).codes.ne(codec.encode_as(values, seed=4, draws=1).codes).any()
    assert codec.encode_as(values, seed=3, draws=1).codes.equal(codec.encode_as(values, seed=3, draws=1).codes)


@pytest.mark.parametrize(
    ("rounding", "expected"),
    [("auto", [True, True, True, False, False]), ("nearest", [False] * 5), ("stochastic", [True] * 5)],
)
def test_lots_are_drawn_where_an_average_would_not_move_otherwise(rounding, expected):
    codec = FourthRootCodec(rounding)
    assert [codec.is_stochastic(beta2) for beta2 in (None, 0.999, 0.99, 0.95, 0.0)] == expected


def test_codecs_with_the_same_options_are_equal_and_survive_copies():
    codecs = [kind(offload_to_cpu=where) for kind in BUILTIN for where in (False, True)]
    codecs += [FourthRootCodec("nearest"), FourthRootCodec("stochastic")]
    assert len(set(codecs)) == len(codecs)
    for codec in codecs:
        assert copy.deepcopy(codec) == codec == pickle.loads(pickle.dumps(codec))
    assert repr(FP16Codec(offload_to_cpu=True)) == "FP16Codec(offload_to_cpu=True)"
