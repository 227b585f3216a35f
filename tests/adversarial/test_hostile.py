"""Repositories from a stranger: refused or read with a typed error, in little time and memory, and nothing outside them
is touched (row 22 of `reliability.md`).

A third of the cases made by hand, and 25 by lot; with `GRADIENT_HOSTILE=10000` all of them, and so many by lot.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence

import pytest

from . import trace
from .corpus import HEALTHY, Case, corpus, generated, third
from .corpus.misuse import BURNT_SECONDS, MISUSES, SEEN
from .usage import GOOD

pytestmark = pytest.mark.slow

TESTS = pathlib.Path(__file__).parents[1]
ASKED = os.environ.get("GRADIENT_HOSTILE", "")
BY_HAND = corpus() if ASKED else third()
BY_LOT = range(int(ASKED or "25"))
SECONDS_MAX = 10.0
MORE_KIB_MAX = 256 << 10
CONTRACT = {"0", "1", "2", "3", "4", "5", "6"}
"""Exit codes of docs/command-line.md but our own bug's."""


@dataclasses.dataclass(frozen=True)
class Result:
    """What came of a case: what the runner says, and system calls that reached out of the repository."""

    said: dict[str, object]
    num_calls: int
    strays: Sequence[str]

    @property
    def peak_kib(self) -> int:
        """The most memory that it had."""
        return int(str(self.said["peak_kib"]))

    @property
    def steps(self) -> list[dict[str, object]]:
        """What came of each step."""
        return list(self.said["steps"])  # type: ignore[call-overload]


Use = Callable[[Case], Result]


@pytest.fixture(scope="module")
def use(made: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Use]:
    """Uses the repository of a case in a process of its own, watched by strace where there is one."""
    from gradient import Repo

    work = tmp_path_factory.mktemp("hostile")
    good = pathlib.Path(shutil.copytree(made, work / "good"))
    with Repo.open(good / "gpt") as repo:
        repo.create_branch("exp", "main@20")
        repo.create_tag("v1", "main@10")
        repo.core.maintain()
    watched = trace.Trace(work / "trace") if trace.command(work / "trace") else None
    command = [*trace.command(work / "trace"), sys.executable, "-m", "adversarial.runner", str(good), str(work)]
    settings = {"PYTHONDONTWRITEBYTECODE": "1", "MALLOC_ARENA_MAX": "2", "RAYON_NUM_THREADS": "2"}
    with subprocess.Popen(
        command, cwd=TESTS, env={**os.environ, **settings}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as runner:
        assert runner.stdin is not None
        assert runner.stdout is not None
        asked, answers = runner.stdin, runner.stdout

        def ask(case: Case) -> Result:
            asked.write(case.name + "\n")
            asked.flush()
            answer = answers.readline()
            assert answer, "the runner is gone"
            said: dict[str, object] = json.loads(answer)
            calls = watched.take() if watched else []
            return Result(said, len(calls), trace.strays(calls, pathlib.Path(str(said["folder"]))))

        yield ask
        runner.stdin.close()


@pytest.fixture(scope="module")
def healthy(use: Use) -> Result:
    """What comes of the repository as it was made."""
    use(HEALTHY)  # What is read for the first time is counted here.
    return use(HEALTHY)


def wrong(case: Case, result: Result, healthy: Result) -> list[str]:
    """All that must not come of a hostile repository."""
    said = result.said
    found = [] if said["status"] == 0 else [f"it ended with status {said['status']}: {said['output']}"]
    found += [] if said["canary"] else ["what lies beside it was changed"]
    found += [] if said["beside"] else ["something was made beside it"]
    found += [f"codes for the terminal: {said['output']!r}"] if said["raw_codes"] else []
    for step in result.steps:
        name, outcome, seconds = step["step"], str(step["outcome"]), float(str(step["seconds"]))
        found += [f"{name}: {step['wrong']}"] if step["wrong"] else []
        found += [f"{name}: exit code {outcome}"] if outcome.isdigit() and outcome not in CONTRACT else []
        found += [f"{name}: {seconds:.1f} s"] if seconds > SECONDS_MAX else []
    more = result.peak_kib - healthy.peak_kib
    found += [f"{more >> 10} MiB more than a good one"] if more > MORE_KIB_MAX + (case.more_mib << 10) else []
    return found + [f"it reached out: {line}" for line in result.strays]


def test_the_repository_that_is_spoilt_was_a_good_one(healthy: Result) -> None:
    assert {step["step"]: step["outcome"] for step in healthy.steps} == GOOD, healthy.said
    assert wrong(HEALTHY, healthy, healthy) == []


@pytest.mark.parametrize("case", BY_HAND, ids=lambda case: case.name)
def test_a_stranger_gets_a_typed_error_and_nothing_else(case: Case, use: Use, healthy: Result) -> None:
    result = use(case)
    assert result.said["made"], result.said["making"]
    assert wrong(case, result, healthy) == [], json.dumps(result.said, indent=1)


@pytest.mark.parametrize("number", BY_LOT)
def test_a_stranger_who_draws_lots_gets_a_typed_error_and_nothing_else(number: int, use: Use, healthy: Result) -> None:
    result = use(generated(number))
    assert result.said["made"], result.said["making"]
    assert wrong(generated(number), result, healthy) == [], json.dumps(result.said, indent=1)


def test_strace_saw_what_was_done(healthy: Result) -> None:
    if not trace.command(pathlib.Path()):
        pytest.skip("strace is missing, so nobody saw which files, programs and networks were opened")
    assert healthy.num_calls > 200, "far more was certainly opened and written"


@pytest.mark.parametrize("returned", [True, False])
def test_a_call_that_others_came_between_is_seen(returned: bool) -> None:
    lines = [
        '7  openat(AT_FDCWD</w/gpt>, "/etc/passwd", O_RDONLY|O_CLOEXEC <unfinished ...>',
        '8 openat(5</w/gpt>, "ops", O_RDONLY|O_CLOEXEC <unfinished ...>',
        "8 <... openat resumed>)             = 6</w/gpt/ops>",
        *(["7  <... openat resumed>)             = 7</etc/passwd>"] if returned else []),
    ]
    strays = trace.strays(trace.joined(lines), pathlib.Path("/w"))
    assert [line.split()[0] for line in strays] == ["7"], strays


def test_a_call_that_failed_after_others_came_between_did_nothing() -> None:
    lines = [
        '7 openat(5</w>, "x", O_RDWR <unfinished ...>',
        "8 +++ exited with 0 +++",
        "7 <... openat resumed>) = -1 ELOOP",
    ]
    assert trace.strays(trace.joined(lines)[:1], pathlib.Path("/w")) == []


@pytest.mark.parametrize("case", MISUSES, ids=lambda case: case.name)
def test_what_must_never_be_done_is_seen(
    case: Case, use: Use, healthy: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = SEEN[case.name.removeprefix("misuse: ")]
    if seen == "reached out" and not trace.command(pathlib.Path()):
        pytest.skip("strace is missing, so nobody sees this")
    monkeypatch.setattr(sys.modules[__name__], "SECONDS_MAX", BURNT_SECONDS / 2)
    found = wrong(case, use(case), healthy)
    assert any(seen in line for line in found), found
