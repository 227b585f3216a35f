"""A run that is killed by SIGKILL at random moments ends as one that never was: reliability.md, row 27.

Root hashes are compared at every commit, and at every step an SHA-256 of weights, buffers, moments, the next value of
each generator and the next batch that is made without Gradient. `test_canaries.py` shows that the comparison can fail.
"""

from __future__ import annotations

import random
import secrets
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from killing import STEPS, KilledRun, Reference, never_killed

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def reference() -> Reference:
    return never_killed()


@pytest.fixture
def chance() -> random.Random:
    seed = secrets.randbits(32)
    print(f"moments of the kills: seed {seed}")
    return random.Random(seed)


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_a_run_killed_in_a_step_and_twice_more_ends_as_one_never_killed(
    step: int, reference: Reference, tmp_path: Path, chance: random.Random
) -> None:
    run = KilledRun(tmp_path, chance)
    again = chance.randint(step, min(step + 4, STEPS))
    for victim in (step, again, chance.randint(again, STEPS)):
        run.kill_in(max(victim, run.next_step()), reference)
    run.finish()
    assert reference.differences(run.heard) == []
    assert run.kills.total() == 3
    print(f"kills {dict(run.kills)}, resumes {dict(run.resumes)}")


def test_one_run_killed_in_every_one_of_its_steps_ends_as_one_never_killed(
    reference: Reference, tmp_path: Path, chance: random.Random
) -> None:
    run = KilledRun(tmp_path, chance)
    for step in range(1, STEPS + 1):
        run.kill_in(step, reference)
    run.finish()
    assert reference.differences(run.heard) == []
    assert {said["begin"] for said in run.heard if "begin" in said} == set(range(1, STEPS + 1))
    assert run.kills.total() == STEPS
    print(f"kills {dict(run.kills)}, resumes {dict(run.resumes)}")


def test_a_run_killed_again_and_again_while_it_attaches_goes_on(
    reference: Reference, tmp_path: Path, chance: random.Random
) -> None:
    for number in range(8):
        cwd = tmp_path / str(number)
        cwd.mkdir()
        run = KilledRun(cwd, chance)
        # The first finds nothing, the others what was left behind.
        for _ in range(3):
            run.kill_in_attach(reference)
        run.kill_in(max(4, run.next_step()), reference)
        run.kill_in_attach(reference)
        run.finish()
        assert reference.differences(run.heard) == []
        print(f"kills {dict(run.kills)}, resumes {dict(run.resumes)}")


def test_the_command_resumes_a_killed_run_in_new_interpreters(
    reference: Reference, tmp_path: Path, chance: random.Random
) -> None:
    run = KilledRun(tmp_path, chance)
    run.kill_in(chance.randint(4, 12), reference)
    run.kill_in(chance.randint(14, 30), reference, command=True)
    run.finish(command=True)
    assert run.resumes["command"] == 2
    assert reference.differences(run.heard) == []
