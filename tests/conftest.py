"""What no test may be skipped for where it matters: a tool that is missing.

With `REQUIRE_TEST_TOOLS=1`, which `.ci/run` sets, a test that is skipped for another reason than those below fails.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import pytest

REQUIRED = os.environ.get("REQUIRE_TEST_TOOLS", "") not in ("", "0")

REASONS = (
    "this torch ",
    "the right is missing: ",
    "not asked for: ",
    "the moment was missed: ",
)
"""How the reason of a skip begins that nobody can mend by installing something."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Generator[None, Any, Any]:
    report = yield
    return judged(report)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    report = yield
    return judged(report)


def judged(report: Any) -> Any:
    """Give the report of a test, a failed one if it was skipped for a reason that is none."""
    if not REQUIRED or not report.skipped or hasattr(report, "wasxfail"):
        return report
    place, line, reason = report.longrepr
    reason = reason.removeprefix("Skipped: ")
    if not reason.startswith(REASONS):
        report.outcome = "failed"
        report.longrepr = f"{place}:{line}: skipped, and REQUIRE_TEST_TOOLS is set: {reason}"
    return report
