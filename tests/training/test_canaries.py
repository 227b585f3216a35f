"""Canaries: the comparison of `test_killed_runs.py` goes red for each captured item that commits lack.

In the child, and only there, an item is taken out of what is captured (`leave_out.py`); the run is killed and resumed
as ever. Root hashes do not count here, since a root without the item differs anyway: the digests made without
Gradient must. The table says which of them see it first.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from killing import EVERY, KilledRun, Reference, never_killed

pytestmark = pytest.mark.slow

KILLED_IN = 29
RESUMED_AT = KILLED_IN // EVERY * EVERY

# Captured item: which digests differ first, and how many steps after the resumed one; None: when the plateau ends.
CANARIES: dict[str, tuple[set[str], int | None]] = {
    "weights": ({"weights"}, 0),
    "buffers": ({"buffers"}, 0),
    "exp_avg": ({"moments"}, 0),
    "exp_avg_sq": ({"moments"}, 0),
    "step": ({"moments"}, 0),
    "lr": ({"weights"}, 1),
    "scheduler": ({"weights"}, None),
    "python": ({"python", "batch"}, 0),
    "numpy": ({"numpy", "batch"}, 0),
    "torch": ({"torch", "batch"}, 0),
    "own": ({"own"}, 0),
    "data": ({"batch"}, 0),
}


@pytest.fixture(scope="module")
def reference() -> Reference:
    return never_killed()


def resumed_without(item: str, reference: Reference, cwd: Path) -> KilledRun:
    """Kill a run in the middle and resume it, with an item left out of each of its commits."""
    run = KilledRun(cwd, random.Random(1), variables={"KILL_CHILD_LEAVE_OUT": item})
    run.kill_in(KILLED_IN, reference)
    assert reference.differences(said for said in run.heard if "digests" in said) == [], "wrong before it was resumed"
    run.heard.clear()
    run.finish()
    assert [said["start"] for said in run.heard if "start" in said] == [RESUMED_AT]
    return run


def test_nothing_left_out_is_green(reference: Reference, tmp_path: Path) -> None:
    run = resumed_without("nothing", reference, tmp_path)
    assert reference.differences(run.heard) == []
    assert run.resumes.total() == 1


@pytest.mark.parametrize("item", CANARIES)
def test_a_commit_that_lacks_one_item_is_red(item: str, reference: Reference, tmp_path: Path) -> None:
    run = resumed_without(item, reference, tmp_path)
    differences = reference.differences(said for said in run.heard if "digests" in said)
    print("\n".join(differences))
    assert differences, "nobody noticed"
    digests, later = CANARIES[item]
    first = differences[0].rpartition(" ")[2]
    assert digests <= {line.split()[0] for line in differences if line.endswith(f" {first}")}
    assert later is None or int(first) == RESUMED_AT + later


def test_the_rate_and_the_plateau_have_moved_by_the_commit_that_is_resumed(reference: Reference) -> None:
    assert reference.rates[RESUMED_AT] < reference.rates[1]
    assert reference.rates[RESUMED_AT] > reference.rates[40]
