"""A test that is skipped says what is missing, and is a failure where `.ci/run` has asked for all tools."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
CONFTEST = TESTS / "conftest.py"
REASONS = re.findall(r'^    "(.*: |this torch )",$', CONFTEST.read_text(), flags=re.MULTILINE)

SAMPLE = """
import pytest

def test_passes():
    pass

def test_lacks_a_tool():
    pytest.skip("strace is missing")

@pytest.mark.skipif(True, reason="/dev/full is missing")
def test_lacks_a_device():
    pass

def test_lacks_a_module():
    pytest.importorskip("no_such_module")

def test_lacks_a_right():
    pytest.skip("the right is missing: only root mounts")

@pytest.mark.xfail(reason="known")
def test_fails_as_it_should():
    assert False
"""


@pytest.mark.parametrize(
    ("required", "counts"),
    [("1", "2 failed, 1 passed, 1 skipped, 1 xfailed, 1 error"), ("0", "1 passed, 4 skipped, 1 xfailed")],
)
def test_a_missing_tool_fails_a_test_where_all_are_required(required: str, counts: str, tmp_path: Path) -> None:
    shutil.copy(CONFTEST, tmp_path)
    (tmp_path / "test_sample.py").write_text(SAMPLE)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-c", os.devnull]
    told = subprocess.run(
        [*command, str(tmp_path)],
        env={**os.environ, "REQUIRE_TEST_TOOLS": required, "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    assert counts in told
    assert ("strace is missing" in told) == (required == "1")


def test_every_reason_to_skip_says_what_is_missing() -> None:
    assert len(REASONS) >= 4
    said = []
    for path in TESTS.rglob("*.py"):
        if path != Path(__file__).resolve():
            said += re.findall(r'(?:pytest\.skip\(|skipif\(.*reason=)f?"([^"]*)"', path.read_text())
    assert len(said) >= 12
    odd = [reason for reason in said if not reason.startswith(tuple(REASONS)) and " is missing" not in reason]
    assert odd == []
