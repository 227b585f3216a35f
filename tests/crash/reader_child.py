"""A process that reads beside others that write: history and states, or checks in full, until it is killed.

It says how often it came through, and what it found wrong, which must be nothing.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from fork_server import reporter
from writer_child import contents

from gradient import Repo, _core
from gradient.errors import NotFoundError


def read(report: Callable[..., None]) -> None:
    with Repo.open("repo") as repo:
        while True:
            repo.refresh()
            assert repo.core.notices == []
            log = repo.log(all_refs=True)
            for info in [*log[:3], *random.sample(log, min(5, len(log)))]:
                tensors = repo.state(info.id)["model"]["main"]["tensors"]
                assert {name: tensors[name].bytes() for name in tensors} == contents(int(info.message)), info.id
            for name in random.sample(sorted(repo.branches()), 1):
                try:
                    repo.verify(name)
                except NotFoundError:
                    assert name not in repo.branches(), name
            report(read=len(log))
            if random.random() < 0.2:
                return


def check(report: Callable[..., None]) -> None:
    found = _core.fsck("repo", level="full")
    errors = [repr(finding) for finding in found.findings if finding.severity == "error"]
    assert not errors and found.clean and not found.lost, (errors, found.lost)
    report(checked=found.counts["commits"], packs=found.counts["packs"], operations=found.counts["operations"])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--reports", type=int, required=True)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    report = reporter(options.reports)
    try:
        while True:
            (check if options.check else read)(report)
    except BaseException:
        report(failed=traceback.format_exc())
        os._exit(1)


if __name__ == "__main__":
    main()
