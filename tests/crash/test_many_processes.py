"""Writers, readers and checks side by side on a real file system: reliability.md, row 13 and rule F4.

`GRADIENT_CROWD_SECONDS` sets how long (25); an hour is 3600. The repository begins with so many small packs and
operations that they are merged and folded meanwhile.
"""

from __future__ import annotations

import os
import random
import select
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from fork_server import Child
from writer_child import contents, fill

from gradient import Repo, _core

pytestmark = pytest.mark.slow

SECONDS = float(os.environ.get("GRADIENT_CROWD_SECONDS", "25"))
WRITERS, READERS = 4, 2
"""Processes; each writer has three threads. One more checks."""
HERE = Path(__file__).resolve().parent


def test_readers_and_checks_beside_writers_find_nothing_missing_and_nothing_wrong(tmp_path: Path) -> None:
    fill(tmp_path / "repo", 980)

    def start(script: str, *arguments: str) -> Child:
        return Child.start_command([sys.executable, str(HERE / script), "--reports", "{fd}", *arguments], cwd=tmp_path)

    crowd = [start("writer_child.py", "--seed", str(random.getrandbits(60))) for _ in range(WRITERS)]
    crowd += [start("reader_child.py") for _ in range(READERS)]
    crowd.append(start("reader_child.py", "--check"))
    counts: Counter[str] = Counter()
    acknowledged: dict[str, int] = {}
    ends = time.monotonic() + SECONDS
    while (left := ends - time.monotonic()) > 0:
        for child in crowd:
            if child.reports not in select.select([child.reports for child in crowd], [], [], left)[0]:
                continue
            said = child.listen()
            assert said, child.last_words()
            for line in said:
                assert "failed" not in line, line["failed"]
                counts.update(line.keys() & {"commit", "read", "checked", "operation", "ref", "deleted"})
                if "commit" in line:
                    acknowledged[line["commit"]] = line["number"]
    for child in crowd:
        child.kill()
    for child in crowd:
        for line in child.hear():
            assert "failed" not in line, line["failed"]
            if "commit" in line:
                acknowledged[line["commit"]] = line["number"]
        assert child.status == -9
    packs = list((tmp_path / "repo" / ".gradient-repo" / "packs").iterdir())
    with Repo.open(tmp_path / "repo") as repo:
        for commit_id, number in acknowledged.items():
            tensors = repo.state(commit_id)["model"]["main"]["tensors"]
            assert {name: tensors[name].bytes() for name in tensors} == contents(number), commit_id
        deltas = sum(info.kind == "delta" for info in repo.log(all_refs=True))
    report = _core.fsck(str(tmp_path / "repo"), level="full")
    assert report.clean and not report.lost, report.findings
    print(f"{dict(counts)}, {deltas} deltas; {report.counts}")
    assert len(packs) < 900, "nothing was merged meanwhile"
    assert min(counts["commit"], counts["read"], counts["checked"], deltas) >= 2
