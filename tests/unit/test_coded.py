"""Codes of optimizer state: the kernels and torch's operations give the same bits, within the stated errors."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from gradient import _coded_ops, coded
from gradient.errors import InvalidInputError

KINDS = ("signed-sqrt", "fourth-root")
INF, NAN = float("inf"), float("nan")


def transposed(values):
    return values.t() if values.dim() == 2 else values.transpose(0, 1)


SHAPES = {
    "blocks": lambda: torch.randn(8, 128),
    "tails": lambda: torch.randn(7, 100),
    "one more than a block": lambda: torch.randn(5, 65),
    "short rows": lambda: torch.randn(50, 3),
    "rows of one": lambda: torch.randn(130, 1),
    "one dimension": lambda: torch.randn(1000),
    "no dimension": lambda: torch.randn(()),
    "one element": lambda: torch.randn(1, 1),
    "empty": lambda: torch.randn(0, 70),
    "empty rows": lambda: torch.randn(70, 0),
    "channels last": lambda: torch.randn(6, 9, 3, 5).to(memory_format=torch.channels_last),
    "transposed": lambda: torch.randn(70, 90).t(),
    "transposed batch": lambda: torch.randn(3, 70, 9).transpose(0, 2),
    "sliced": lambda: torch.randn(20, 200)[3:17, 5:170:2],
    "expanded": lambda: torch.randn(1, 70).expand(6, 70),
    "half": lambda: torch.randn(9, 70).half(),
    "bfloat16": lambda: torch.randn(9, 70).bfloat16(),
    "double": lambda: torch.randn(9, 70).double(),
}


def stress():
    """Rows of what breaks codes: outliers, subnormals, both ends of the exponent, zeros, and what is not finite."""
    torch.manual_seed(5)
    noise = torch.randn(64)
    rows = [noise * 10.0**power for power in range(-45, 39)]
    rows += [torch.zeros(64), -torch.zeros(64), torch.where(noise > 0, noise, 0.0), torch.full((64,), 1e-45)]
    rows += [torch.where(torch.arange(64) == 9, odd, noise) for odd in (1e30, -1e30, 1e-30, -0.0, NAN, INF, -INF)]
    rows += [torch.logspace(-40, 38, 64), torch.exp(2 * torch.randn(64)), torch.full((64,), torch.finfo().max)]
    rows += [torch.full((64,), INF), torch.full((64,), NAN), torch.full((64,), torch.finfo().tiny) * noise]
    rows += [torch.arange(64) / 63.0, (torch.arange(64) / 127.0) ** 2, (torch.arange(64) / 255.0) ** 4]
    return torch.stack([row.float() for row in rows])


def given(kind, values):
    return values.abs() if kind == "fourth-root" else values


def by_operations(values, kind, lot=None):
    """Codes, scales and decoded values, all by torch's operations."""
    made = coded.zeros(values, kind)
    source = values if values.dtype in coded.FLOATS else values.float()
    source = torch.empty_like(made.codes, dtype=source.dtype).copy_(source)
    length = coded.row_len(made.codes)
    _coded_ops.encode(kind, coded.flat(source), coded.flat(made.codes), made.scales, length, lot)
    back = torch.empty_like(source)
    _coded_ops.decode(kind, coded.flat(made.codes), made.scales, coded.flat(back), length)
    return made.codes, made.scales, back.to(values.dtype)


def bits(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8).tolist()


def assert_same_bits(found, expected):
    assert found.shape == expected.shape and found.dtype == expected.dtype
    assert bits(found) == bits(expected)


def assert_both_agree(values, kind, lot=None):
    number, count = lot or (0, None)
    kernels = coded.encode(values, kind, seed=number, draws=count)
    codes, scales, back = by_operations(values, kind, lot)
    assert_same_bits(kernels.codes, codes)
    is_number = ~scales.isnan()
    assert kernels.scales.isnan().equal(scales.isnan())
    assert_same_bits(kernels.scales[is_number], scales[is_number])
    decoded = kernels.decode()
    assert decoded.isnan().equal(back.isnan())
    assert_same_bits(decoded.nan_to_num(0.0, INF, -INF), back.nan_to_num(0.0, INF, -INF))


@pytest.mark.parametrize("lot", [None, (3, 5)])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_kernels_and_operations_give_the_same_bits(shape, kind, lot):
    torch.manual_seed(1)
    assert_both_agree(given(kind, SHAPES[shape]()), kind, lot)


@pytest.mark.parametrize("lot", [None, (0, 0), (2**31, 2**40)])
@pytest.mark.parametrize("kind", KINDS)
def test_kernels_and_operations_agree_about_every_strange_number(kind, lot):
    assert_both_agree(given(kind, stress()), kind, lot)
    assert_both_agree(given(kind, stress()).reshape(-1)[:-13], kind, lot)


@pytest.mark.parametrize("lot", [None, (1, 2)])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(3, 1000), (40, 70), (5000,), (900, 3), (7, 128), (7, 129)])
def test_pieces_of_a_tensor_are_coded_as_the_whole(monkeypatch, shape, kind, lot):
    torch.manual_seed(2)
    values = given(kind, torch.randn(shape))
    whole = by_operations(values, kind, lot)
    monkeypatch.setattr(_coded_ops, "_PIECE", 128)
    for found, expected in zip(by_operations(values, kind, lot), whole, strict=True):
        assert_same_bits(found, expected)
    assert_both_agree(values, kind, lot)


def largest_by_block(values):
    return values.abs().amax(dim=1, keepdim=True)


def test_a_first_moment_comes_back_within_the_error_that_is_stated():
    torch.manual_seed(3)
    values = torch.cat([torch.randn(500, 64) * 10.0**power for power in (-30, -6, 0, 6, 30)])
    error = (coded.encode(values, "signed-sqrt").decode() - values).abs() / largest_by_block(values)
    assert error.max() <= 0.008
    share = values.abs() / largest_by_block(values)
    # Half a code of the root, and it goes to zero with the value.
    assert bool((error <= 1.001 * share.sqrt() / 127 + 0.26 / 127**2).all())


def test_a_second_moment_comes_back_within_half_a_code():
    torch.manual_seed(3)
    values = torch.cat([torch.randn(500, 64).square() * 10.0**power for power in (-20, -6, 0, 6, 30)])
    found = coded.encode(values, "fourth-root").decode()
    roots = (values.double() / largest_by_block(values)) ** 0.25
    error = ((found.double() / largest_by_block(values)) ** 0.25 - roots).abs()
    # Nothing is coded as zero: what is far below the first code becomes it.
    assert bool((error <= torch.where(roots < 0.5 / 255, 1 / 255, 0.501 / 255)).all())


@pytest.mark.parametrize("count", [None, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_only_zero_is_zero(kind, count):
    values = given(kind, stress())
    values = values[values.isfinite().all(dim=1)]
    made = coded.encode(values, kind, draws=count)
    assert not made.decode()[values == 0].any()
    if kind == "fourth-root":
        assert made.codes.ne(0).equal(values != 0)
        assert bool((made.decode()[values > 1e-37] > 0).all())


@pytest.mark.parametrize("count", [None, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_the_largest_of_a_block_and_its_sign_are_exact(kind, count):
    torch.manual_seed(4)
    values = given(kind, torch.randn(400, 64) * 10.0 ** torch.randint(-25, 38, (400, 1)))
    found = coded.encode(values, kind, draws=count).decode()
    place = values.abs().argmax(dim=1, keepdim=True)
    assert_same_bits(found.gather(1, place), values.gather(1, place))


@pytest.mark.parametrize("count", [None, 11])
@pytest.mark.parametrize("kind", KINDS)
def test_what_was_decoded_is_coded_to_the_same_bits(kind, count):
    values = given(kind, stress())
    values = values[values.isfinite().all(dim=1)]
    once = coded.encode(values, kind, draws=count)
    again = coded.encode(once.decode(), kind, draws=count)
    assert_same_bits(again.decode().abs(), once.decode().abs())
    # Below the least scale the largest has not the largest code, and what is decoded has another scale.
    large = values.abs().amax(dim=1) >= (2.0**-112 if kind == "signed-sqrt" else 2.0**-92)
    assert_same_bits(again.scales[large], once.scales[large])
    assert_same_bits(again.codes[large], once.codes[large])


@pytest.mark.parametrize("odd", [NAN, INF, -INF])
@pytest.mark.parametrize("kind", KINDS)
def test_a_block_with_what_is_no_number_shows_it_and_its_neighbours_do_not(kind, odd):
    values = given(kind, torch.randn(3, 128))
    values[1, 70] = given(kind, torch.tensor(odd))
    found = coded.encode(values, kind).decode()
    assert not bool(found[1, 64:].isfinite().any())
    assert bool(found[1, :64].isfinite().all() and found[0].isfinite().all() and found[2].isfinite().all())


def test_a_second_moment_below_zero_is_refused():
    values = torch.ones(2, 64)
    values[1, 5] = -1.0
    for refused in (lambda: coded.encode(values, "fourth-root"), lambda: by_operations(values, "fourth-root")):
        with pytest.raises(InvalidInputError, match="less than zero"):
            refused()


def test_whole_numbers_are_refused():
    with pytest.raises(InvalidInputError, match="int64"):
        coded.encode(torch.arange(64), "signed-sqrt")


def test_another_number_and_another_count_draw_other_codes_and_the_same_draw_the_same():
    torch.manual_seed(6)
    values = torch.randn(64, 64).square()
    codes = {(number, count): coded.encode(values, "fourth-root", seed=number, draws=count).codes
             for number in (0, 1, 2) for count in (0, 1, 2)}  # fmt: skip
    for one in codes:
        assert codes[one].equal(coded.encode(values, "fourth-root", seed=one[0], draws=one[1]).codes)
        for other in codes:
            # Two independent draws differ in about a third of their codes.
            share = codes[one].ne(codes[other]).float().mean()
            assert share == 0 if one == other else 0.15 < share < 0.5


def test_lots_are_right_on_average_and_rounding_to_the_nearest_is_not():
    torch.manual_seed(7)
    values = torch.full((64, 64), 0.0123)
    values[:, 0] = 1.0
    drawn = torch.stack([coded.encode(values, "fourth-root", draws=count).decode() for count in range(100)])
    spread = drawn[:, :, 1:].std() / (drawn[:, :, 1:].numel() ** 0.5)
    assert abs(drawn[:, :, 1:].mean() - 0.0123) < 5 * spread
    nearest = coded.encode(values, "fourth-root").decode()[:, 1:].mean()
    assert abs(nearest - 0.0123) > 5 * spread


def test_lots_are_right_on_average_in_each_place_of_a_block():
    values = torch.full((256, 64), 0.3)
    values[:, 10] = 1.0
    drawn = torch.stack([coded.encode(values, "fourth-root", seed=9, draws=count).decode() for count in range(40)])
    mean, spread = drawn.mean(dim=(0, 1)), drawn.std(dim=(0, 1)) / (40 * 256) ** 0.5
    others = torch.arange(64) != 10
    assert bool(((mean - 0.3).abs() < 5 * spread)[others].all())


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "float16"])
def test_floats_are_their_own_codes_in_memory_of_their_own(kind):
    values = torch.randn(70, 3).t()
    made = coded.encode(values, kind)
    assert made.scales is None and made.codes.data_ptr() != values.data_ptr()
    assert made.codes.dtype == coded.WIDTHS[kind] and made.codes.stride() == values.stride()
    decoded = made.decode()
    assert decoded.dtype == torch.float32 and decoded.data_ptr() != made.codes.data_ptr()
    assert decoded.equal(values.to(coded.WIDTHS[kind]).float())


@pytest.mark.parametrize("shape", ["channels last", "transposed", "transposed batch"])
def test_codes_and_what_they_decode_to_lie_as_the_tensor_does(shape):
    values = SHAPES[shape]()
    made = coded.encode(values, "signed-sqrt")
    assert made.codes.stride() == values.stride() == made.decode().stride()


def test_bytes_are_one_an_element_and_four_a_block():
    assert coded.encode(torch.randn(32, 256), "signed-sqrt").nbytes == 32 * 256 + 4 * 32 * 4
    # The last block of a row is as short as it has to be, and short rows share blocks.
    assert coded.encode(torch.randn(32, 65), "signed-sqrt").nbytes == 32 * 65 + 4 * 32 * 2
    assert coded.encode(torch.randn(32, 3), "signed-sqrt").nbytes == 96 + 4 * 2
    conv = torch.randn(4, 32, 3, 3).to(memory_format=torch.channels_last)
    assert coded.encode(conv, "signed-sqrt").nbytes == 4 * 288 + 4 * 4 * 5


def test_rows_do_not_share_blocks():
    values = torch.ones(2, 65)
    values[1] = 1e20
    assert coded.encode(values, "signed-sqrt").decode()[0].equal(values[0])


SCRIPT = """
import hashlib, torch
from torch import optim
from gradient import coded, wrap
torch.manual_seed(0)
digest = hashlib.sha256()
values = torch.randn(50, 333) * torch.logspace(-38, 38, 333)
for kind, count in (("signed-sqrt", None), ("fourth-root", None), ("fourth-root", 3)):
    given = values.abs() if kind == "fourth-root" else values
    made = coded.encode(given, kind, draws=count)
    for part in (made.codes, made.scales, made.decode()):
        digest.update(part.numpy().tobytes())
for dtype in (torch.float32, torch.bfloat16, torch.float16):
    weight = torch.randn(70, 90).to(dtype).requires_grad_()
    optimizer = wrap(optim.AdamW([weight], lr=0.01))
    for _ in range(5):
        weight.grad = torch.randn(70, 90).to(dtype)
        optimizer.step()
    digest.update(weight.detach().view(torch.uint8).numpy().tobytes())
print(digest.hexdigest())
"""


def test_every_instruction_set_gives_the_same_bits(capsys):
    from gradient import _core

    exec(SCRIPT, {})
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert coded.how()["capability"] == (environment.get("GRADIENT_CPU_CAPABILITY") or _core.cpu_capabilities()[0])
    environment["GRADIENT_CPU_CAPABILITY"] = "default"
    run = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True, env=environment)
    assert run.stdout == capsys.readouterr().out


def test_an_instruction_set_that_is_not_there_is_an_error_that_names_those_that_are(monkeypatch):
    monkeypatch.setattr(coded._How, "capability", None)
    monkeypatch.setenv("GRADIENT_CPU_CAPABILITY", "mmx")
    with pytest.raises(InvalidInputError, match=r"GRADIENT_CPU_CAPABILITY=mmx: this processor has .*default"):
        coded.encode(torch.ones(1), "signed-sqrt")
    monkeypatch.setenv("GRADIENT_CPU_CAPABILITY", "default")
    assert coded.how()["capability"] == "default"


STRIDED = set(SHAPES) - {"no dimension", "sliced", "expanded", "half", "bfloat16", "double", "empty rows"}


@pytest.mark.parametrize("piece", [64, 128, 192, 1 << 20])
@pytest.mark.parametrize("name", sorted(STRIDED))
def test_idle_first_moments_lose_a_code_and_others_nothing_whatever_is_done_at_a_time(name, piece, monkeypatch):
    monkeypatch.setattr(coded, "_PIECE", piece)
    torch.manual_seed(0)
    given = SHAPES[name]()
    before = coded.encode(given, "signed-sqrt")
    old = before.decode()
    # The largest of a block stay as they are, and so does its scale. A gradient of more than an eighth is noticed.
    is_largest = before.codes.abs() == 127
    parts = torch.where(is_largest, 1.0, torch.where(torch.rand(old.shape) < 0.5, 0.01, 0.126))
    values = 0.999 * old + 0.001 * parts * old
    idle = parts < 0.125
    expected = coded.encode(values, "signed-sqrt").codes
    coded.settle(values, before, 0.999)
    found = coded.encode(values, "signed-sqrt").codes
    assert found[~idle].equal(expected[~idle])
    assert found[idle].equal((before.codes - before.codes.sign())[idle])


def test_many_second_moments_that_were_rounded_stochastically_are_coded_as_they_were():
    torch.manual_seed(0)
    once = coded.encode(torch.rand(4096, 256) ** 4, "fourth-root", seed=1, draws=3)
    for draws in (3, 4, 5):
        assert coded.encode(once.decode(), "fourth-root", seed=1, draws=draws).codes.equal(once.codes)


@pytest.mark.parametrize("added", [0.2, -0.2, 3.0, -3.0])
def test_a_moment_to_which_anything_is_added_is_not_idle(added):
    before = coded.encode(torch.randn(4, 64), "signed-sqrt")
    old = before.decode()
    # Weight decay, say, which no gradient shows.
    values = 0.9 * old + 0.1 * added * old
    kept = values.clone()
    coded.settle(values, before, 0.9)
    assert values.equal(kept)
