"""How wrong updates are with moments in eight bits, and what breaks codes: AdamW beside exact fp32, same gradients.

The update is u = m' / (sqrt(v') + eps), with bias-corrected moments. Every optimizer gets the same gradients, step by
step, and lives on what its own codes kept. Weights are put to zero before each step and the learning rate is one, so
that a step leaves -u in them: what is measured is the optimizer itself, not a second writing of its rule.

- step: |u - exact| / |exact| over all values, the median over steps
- sum: the same of the sum of the last 100 updates: errors that do not cancel
- max |u|: the largest update of any value, where the exact one is printed beside the stream
- zero: values whose second moment is zero where the exact one is not, the most at any look (every 20 steps)
- unseen: the largest update of a value that never had a gradient, or has had none for long
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import math
import statistics
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

import gradient
from gradient.optim import Codec, ConfigurablePolicy, FourthRootCodec, FP32Codec, SignedSqrtCodec
from gradient_streams import REAL, STREAMS, Stream
from harness import describe
from user_codecs import LinearSigned, LinearUnsigned, Softsign, SquareRoot

LAST = 100
LOOK_EVERY = 20
OURS = "ours"
RESTING = ("unseen", "stopped")
"""Streams with values whose weights must not move."""

Make = Callable[[list[nn.Parameter], float], Optimizer]


class Tally:
    """One optimizer on a stream, and what was seen of it."""

    def __init__(self, make: Make, stream: Stream, beta2: float) -> None:
        self._stream = stream
        self._weights = [nn.Parameter(torch.zeros(shape)) for shape in stream.shapes]
        self._optimizer = make(self._weights, beta2)
        self._sum = torch.zeros(stream.num_values)
        self._errors: list[float] = []
        self.max_update = 0.0
        self.max_unseen = 0.0
        self.num_zeros = 0

    def step(self, number: int, gradients: list[Tensor]) -> Tensor:
        """Take a step; gives the update of all values in a row."""
        with torch.no_grad():
            for weight, its_gradient in zip(self._weights, gradients, strict=True):
                weight.zero_()
                weight.grad = its_gradient.clone()
        self._optimizer.step()
        update = torch.cat([weight.detach().flatten() for weight in self._weights]).neg_()
        self.max_update = max(self.max_update, update.abs().amax().nan_to_num(math.inf).item())
        if self._stream.unseen is not None and number >= self._stream.unseen_from:
            self.max_unseen = max(self.max_unseen, update[self._stream.unseen].abs().amax().nan_to_num(math.inf).item())
        if number >= self._stream.num_steps - LAST:
            self._sum += update
        return update

    def compare(self, number: int, update: Tensor, exact: Tensor) -> None:
        if number >= self._stream.from_step:
            self._errors.append(self._error(update, exact))

    def look(self, exact: Tally) -> None:
        """Count second moments that are zero where they should not be."""
        pairs = zip(self.second_moments(), exact.second_moments(), strict=True)
        self.num_zeros = max(self.num_zeros, sum(int(((own == 0) & (other > 0)).sum()) for own, other in pairs))

    def second_moments(self) -> list[Tensor]:
        return [second_moment(self._optimizer.state[weight]) for weight in self._weights]

    def errors(self, exact: Tally) -> tuple[float, float]:
        """Of a step, and of the sum of the last updates."""
        return statistics.median(self._errors), self._error(self._sum, exact._sum)

    def _error(self, found: Tensor, exact: Tensor) -> float:
        if self._stream.ignored is not None:
            found, exact = found[~self._stream.ignored], exact[~self._stream.ignored]
        # In double precision: an update of 1e4 for every value must not hide in the rounding of the norm.
        error = float((found - exact).double().norm() / exact.double().norm())
        return error if math.isfinite(error) else math.inf


def second_moment(state: Any) -> Tensor:
    """The decoded second moment of a weight, of any of the optimizers."""
    if "qmap2" in state:  # bitsandbytes
        size = -(-state["state2"].numel() // state["absmax2"].numel())
        scales = state["absmax2"].repeat_interleave(size)[: state["state2"].numel()]
        values: Tensor = state["qmap2"][state["state2"].flatten().long()] * scales
        return values.view(state["state2"].shape)
    moment = state["state2"] if "state2" in state else state["exp_avg_sq"]
    decoded: Tensor = moment.dequantize() if hasattr(moment, "codes") else moment
    return decoded


def exact(weights: list[nn.Parameter], beta2: float) -> Optimizer:
    return AdamW(weights, lr=1.0, betas=(0.9, beta2), weight_decay=0.0, foreach=False)


def wrapped(codecs: dict[str, Codec] | None = None) -> Make:
    """Ours, with its own codecs or with others."""
    policy = ConfigurablePolicy(codecs) if codecs else None
    return lambda weights, beta2: gradient.wrap(exact(weights, beta2), policy=policy)


def peers() -> dict[str, Make]:
    """The eight-bit optimizers that are installed; says which are not."""
    found: dict[str, Make] = {}
    for package, where in (("bitsandbytes", "bitsandbytes.optim"), ("torchao", "torchao.optim")):
        try:
            adamw = importlib.import_module(where).AdamW8bit
        except ImportError as error:
            print(f"{package} AdamW8bit left out: it cannot be imported ({error})", file=sys.stderr)
            continue
        found[f"{package} {importlib.metadata.version(package)} AdamW8bit"] = peer(adamw)
    return found


def peer(adamw: Any) -> Make:
    return lambda weights, beta2: adamw(weights, lr=1.0, betas=(0.9, beta2), weight_decay=0.0)


def candidates() -> dict[str, Make]:
    return {
        OURS: wrapped(),
        "ours, second moment fp32": wrapped({"exp_avg": SignedSqrtCodec(), "exp_avg_sq": FP32Codec()}),
        "ours, first moment fp32": wrapped({"exp_avg": FP32Codec(), "exp_avg_sq": FourthRootCodec()}),
        "codes of FlashOptim, blocks of 32": wrapped({"exp_avg": Softsign(), "exp_avg_sq": SquareRoot()}),
        "linear, blocks of 64 (must fail)": wrapped({"exp_avg": LinearSigned(), "exp_avg_sq": LinearUnsigned()}),
    }


def measure(stream: Stream, beta2: float, makes: dict[str, Make]) -> tuple[Tally, dict[str, Tally]]:
    """Feed a stream to all; gives the exact one, and the others that could take it."""
    reference = Tally(exact, stream, beta2)
    tallies = {name: Tally(make, stream, beta2) for name, make in makes.items()}
    for number, gradients in enumerate(stream.passes()):
        right = reference.step(number, gradients)
        for name, tally in list(tallies.items()):
            try:
                tally.compare(number, tally.step(number, gradients), right)
            except Exception as error:
                if name not in PEERS:
                    raise
                print(f"{name} left out: {type(error).__name__}: {str(error).splitlines()[0]}", file=sys.stderr)
                del tallies[name]
        if number % LOOK_EVERY == 0 or number == stream.num_steps - 1:
            for tally in tallies.values():
                tally.look(reference)
    return reference, tallies


def show(name: str, stream: Stream, beta2: float, reference: Tally, tallies: dict[str, Tally]) -> bool:
    """Print the table of a stream. False where ours missed a goal."""
    print(f"\n{name}: {stream.title}; {stream.num_values:,} values, {stream.num_steps:,} steps, beta2 {beta2}")
    print(f"  {'':44s} {'step':>10s} {'sum':>10s} {'max |u|':>9s} {'zero':>8s}" + unseen_column(stream, "unseen"))
    print(f"  {'exact fp32':44s} {'':10s} {'':10s} {reference.max_update:9.3g}")
    for title, tally in tallies.items():
        step, total = (f"{100 * error:8.2f} %" for error in tally.errors(reference))
        unseen = unseen_column(stream, f"{tally.max_unseen:.2g}")
        print(f"  {title:44s} {step} {total} {tally.max_update:9.3g} {tally.num_zeros:8,}{unseen}")
    if OURS not in tallies:
        return True
    missed = goals(name, beta2, reference, tallies[OURS])
    met = "every goal is met" if name in (*REAL, "fall", *RESTING) else "no zeros, the only goal here"
    print(f"  ours: {'missed: ' + '; '.join(missed) if missed else met}")
    return not missed


def unseen_column(stream: Stream, value: str) -> str:
    return "" if stream.unseen is None else f" {value:>9s}"


def goals(name: str, beta2: float, reference: Tally, ours: Tally) -> list[str]:
    """The goals that ours misses."""
    step, total = (100 * error for error in ours.errors(reference))
    missed = []
    if name in REAL:
        limit = 3 if beta2 <= 0.95 else 4
        missed += [f"step over {limit} %"] * (step > limit) + ["sum over 4 %"] * (total > 4)
        missed += ["max |u| over 1.5 times the exact one"] * (ours.max_update > 1.5 * reference.max_update)
    if name == "fall":
        missed += ["step over 12 %"] * (step > 12)
    if name in RESTING:
        missed += ["values without a gradient moved"] * (ours.max_unseen > 0)
    return missed + ["zeros"] * (ours.num_zeros > 0)


PEERS: dict[str, Make] = {}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--streams", nargs="+", choices=list(STREAMS), default=list(STREAMS))
    parser.add_argument("--beta2", nargs="+", type=float, help="only these, of those a stream is for")
    parser.add_argument("--no-peers", action="store_true", help="ours and users' codecs alone")
    args = parser.parse_args()
    describe()
    if not args.no_peers:
        PEERS.update(peers())
    passed = True
    for name in args.streams:
        stream = STREAMS[name]()
        for beta2 in stream.betas:
            if args.beta2 is None or beta2 in args.beta2:
                found = measure(stream, beta2, candidates() | PEERS)
                passed &= show(name, stream, beta2, *found)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
