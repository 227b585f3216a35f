"""`manifest.json`: a summary of the newest commits for dashboards. It is written and never read back.

The keys of gradient-desc (`repo_name`; `checkpoints` with `step branch file type`) and more. A checkpoint has no file
of its own any more: `file` is the ref that opens it.
"""

from __future__ import annotations

import json
import logging
import math
import os
import secrets
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from gradient.errors import GradientError
from gradient.repo import REPO_DIR

if TYPE_CHECKING:
    from gradient._core import CommitInfo
    from gradient.repo import Repo

logger = logging.getLogger("gradient")

FILE_NAME = "manifest.json"
NUM_COMMITS_MAX = 1_000
MESSAGE_LEN_MAX = 4096
INTERVAL_S = 10.0
"""At most one write in so many seconds while training runs."""


class Manifest:
    """Keeps a repository's manifest up to date: at attach, at most every 10 s, at flush and at exit."""

    def __init__(self, repo: Repo) -> None:
        self._repo = repo
        self._written_at = -math.inf
        self._stale = False
        self._rows: dict[str, str] = {}

    def note_commit(self) -> None:
        """Say that a commit was made; writes if the last time is long enough ago."""
        self._stale = True
        if time.monotonic() - self._written_at >= INTERVAL_S:
            self.write()

    def flush(self) -> None:
        """Write if a commit was made since the last time."""
        if self._stale:
            self.write()

    def write(self) -> None:
        """Write the manifest whole, or leave the old one. A failure is logged: no commit depends on this file."""
        self._written_at = time.monotonic()
        try:
            text = self.text()
            _replace(os.path.join(self._repo.path, FILE_NAME), text, os.path.join(self._repo.path, REPO_DIR, "tmp"))
        except (OSError, GradientError, ValueError, OverflowError) as error:
            logger.warning("could not write %s: %s", os.path.join(self._repo.path, FILE_NAME), error)
        else:
            self._stale = False

    def text(self) -> str:
        """What the manifest says: one line a commit, oldest first, as gradient-desc appended them."""
        branches = self._repo.branches()
        start, _ = self._repo.log_ends(None, all_refs=True)
        # What can not be read is left out: it is another branch's, or somebody has just resumed from before it.
        commits = self._repo.core.readable_log(start, limit=NUM_COMMITS_MAX)[0] if start else []
        settings = self._repo.core.config
        head = {
            "schema": "gradient.manifest/1",
            "repo_name": os.path.basename(self._repo.path),
            "description": str(settings.get("description") or ""),
            "created_at": settings.get("created_at"),
            "updated_at": _iso(time.time_ns()),
            "branches": branches,
        }
        # A commit never changes, so its line is made once.
        self._rows = {commit.id: self._rows.get(commit.id) or _json(_row(commit)) for commit in reversed(commits)}
        lines = [f"  {_json(name)}: {_json(value)},\n" for name, value in head.items()]
        rows = ",\n".join(f"    {row}" for row in self._rows.values())
        return "".join(["{\n", *lines, '  "checkpoints": [', f"\n{rows}\n  " if rows else "", "]\n}\n"])


def _row(commit: CommitInfo) -> dict[str, Any]:
    return {
        "step": commit.step,
        "branch": commit.branch,
        "file": f"{commit.branch}@{commit.step}",
        "type": commit.kind,
        "id": commit.id,
        "root": commit.root,
        "message": commit.message[:MESSAGE_LEN_MAX],
        "metrics": {name: _number(value) for name, value in commit.metrics.items()},
        "time": _iso(commit.time_ns),
    }


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _number(value: float) -> int | float | None:
    # JSON has neither NaN nor infinities; the commit itself keeps them.
    return value if isinstance(value, int) or math.isfinite(value) else None


def _iso(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns / 1e9, UTC).isoformat(timespec="milliseconds")


def _replace(path: str, text: str, folder: str) -> None:
    # A temporary file that a dying process leaves there is one that housekeeping knows.
    temporary = os.path.join(folder, f"{secrets.token_hex(16)}.tmp")
    try:
        with open(temporary, "x", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        try:
            os.unlink(temporary)
        except OSError:
            pass
        raise
