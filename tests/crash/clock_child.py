"""A writer whose clock is wrong, and jumps while it works; run under the shim of `test_clock.py`."""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from fork_server import reporter
from writer_child import state

from gradient import Repo, cli


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--reports", type=int, required=True)
    parser.add_argument("--shift", type=Path, required=True)
    parser.add_argument("shifts", type=int, nargs="+")
    options = parser.parse_args()
    report = reporter(options.reports)
    with Repo.open("repo") as repo:
        for shift in options.shifts:
            before = time.time()
            options.shift.write_text(f"{shift}\n")
            report(jumped=time.time() - before)
            base = repo.branches()["main"]
            info = repo.core.commit_info(base)
            first = True
            for step in (info.step + 1, info.step + 2):
                result = repo.core.commit("main", state(step), base=base, first=first, step=step, message=str(step))
                assert result.branch == "main" and result.displaced is None and not result.notices
                base, first = result.id, False
                report(commit=base, number=step, time_ns=repo.core.commit_info(base).time_ns)
            repo.core.create_tag(f"at{shift}", base)
            assert repo.undo().number == repo.redo().number
            repo.core.maintain()
            for words in (["log"], ["show", "main"], ["ops"], ["status"], ["fsck", "--full"]):
                out = io.StringIO()
                with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
                    code = cli.main(["-C", repo.path, *words])
                assert code == 0, (words, out.getvalue())


if __name__ == "__main__":
    main()
