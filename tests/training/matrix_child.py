"""The training script of `test_resume_matrix.py`, run as a child: a recipe that commits in one kind of place."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import torch
from fork_server import reporter
from recipe import PLACES, Recipe

TICKS = 42
"""Seven epochs; the first two ticks are not killed, for then there may be nothing to go on from."""


def warm_up() -> None:
    """Import all that a child needs, torch's lazy parts too; nothing of Gradient is opened."""
    torch.set_num_threads(1)
    for _ in Recipe(scaler=True, ema=True).ticks(4):
        pass


def main(arguments: Sequence[str]) -> int:
    """Train to the last tick, from the newest commit if there is one.

    `--hold TICK` waits for death at that tick's end; `--plain` leaves Gradient out, but for the loader.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--reports", type=int, required=True)
    parser.add_argument("--place", choices=PLACES, required=True)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--scaler", action="store_true")
    parser.add_argument("--ema", action="store_true")
    parser.add_argument("--hold", type=int)
    parser.add_argument("--plain", action="store_true")
    options = parser.parse_args(arguments)
    report = reporter(options.reports)
    recipe = Recipe(workers=options.workers, scaler=options.scaler, ema=options.ema, close=options.reports)
    if options.plain:
        for tick in recipe.ticks(TICKS):
            report(tick=tick, digest=recipe.digest())
        return 0
    with recipe.attach(workspace="ws", repo="model", resume="latest") as engine:
        report(start=engine.current_step)
        for tick in recipe.ticks(TICKS):
            report(tick=tick, digest=recipe.digest())
            if PLACES[options.place](tick):
                handle = engine.commit(tick)
                report(committed=tick, root=handle.root)
            if tick == options.hold:
                signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
