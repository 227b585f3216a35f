"""A trainer of `test_two_trainers.py`, run as a child: commits a tiny state until so many commits were acknowledged.

Each acknowledged commit goes into a log of its own, one synced line, before training goes on: what stands there must
never be lost. A line has what is needed to know the commit again, made without Gradient.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent))

from fork_server import reporter


def warm_up() -> None:
    """Import all that a child needs."""
    torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
    import gradient

    assert gradient.GradientEngine is not None


def main(arguments: Sequence[str]) -> int:
    """Go on from the branch's last commit, whoever made it, until the log has `--commits` lines."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--reports", type=int, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--branch", required=True)
    parser.add_argument("--commits", type=int, required=True)
    options = parser.parse_args(arguments)
    report = reporter(options.reports)
    torch.set_num_threads(1)
    torch.seed()
    random.seed()

    from gradient import ConflictError, GradientConfig, GradientEngine

    path = Path(f"{options.name}.log")
    acknowledged = len(path.read_bytes().splitlines()) if path.exists() else 0
    model = nn.Linear(8, 8, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    config = GradientConfig(workspace_path="ws", repo_name="shared", branch=options.branch)
    with (
        path.open("ab", buffering=0) as log,
        GradientEngine.attach(model, optimizer, config=config, resume="latest") as engine,
    ):
        engine.register_state("who", getter=lambda: [options.name, acknowledged], setter=lambda _: None)
        step = engine.current_step
        report(start=step)
        while acknowledged < options.commits:
            step += 1
            with torch.no_grad():
                model.weight.add_(torch.randn(8, 8))
            conflict = False
            commit_id = None
            try:
                handle = engine.commit(step)
                name, commit_id = str(handle), handle.id
            except ConflictError as error:
                # Durable all the same, on the branch that the error names.
                conflict = True
                name = f"{error.branch}@{step}"
            line = {
                "handle": name,
                "id": commit_id,
                "who": [options.name, acknowledged],
                "weights": hashlib.sha256(model.weight.detach().numpy().tobytes()).hexdigest(),
                "conflict": conflict,
            }
            log.write(json.dumps(line).encode() + b"\n")
            os.fsync(log.fileno())
            acknowledged += 1
            report(acknowledged=acknowledged)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
