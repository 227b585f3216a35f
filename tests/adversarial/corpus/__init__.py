"""Repositories from a stranger: a valid one and what was done to it, by rule (section 4 of `reliability.md`).

Each case is a name and a function that spoils a copy of a small repository of three commits, two branches and a tag:
by hand in a module for each kind of file, and by lot in `grammar`.
"""

from __future__ import annotations

import functools
import math
import zlib

from . import caches, commits, operations, packs, places, small_files, trees
from .case import Case
from .grammar import PREFIX, generated
from .misuse import MISUSES

HEALTHY = Case("the repository as it was made", lambda _: None)
GROUPS = (
    *(places.in_place_of_files, places.in_place_of_folders, places.longer_than_disks, places.partial),
    *(small_files.versions, small_files.lying, small_files.settings),
    *(operations.names, operations.tables, operations.many, operations.others, operations.folds),
    *(packs.footers, packs.holes, packs.blocks, packs.entries),
    *(caches.indexes, caches.commit_rows_that_lie),
    *(trees.tensors, trees.classes, trees.names, trees.large_values),
    *(commits.ancestors, commits.fields),
)


@functools.cache
def corpus() -> list[Case]:
    """Every case that was made by hand."""
    cases = [case for group in GROUPS for case in group()]
    assert len({case.name for case in cases}) == len(cases)
    return cases


def third() -> list[Case]:
    """A third of every subject's cases, always the same: those whose names have the smallest checksums."""
    chosen: list[Case] = []
    for group in GROUPS:
        cases = sorted(group(), key=lambda case: zlib.crc32(case.name.encode()))
        chosen += cases[: math.ceil(len(cases) / 3)]
    return chosen


def find(name: str) -> Case:
    """The case of that name, by hand or by lot."""
    if name.startswith(PREFIX):
        return generated(int(name.removeprefix(PREFIX)))
    return next(case for case in (HEALTHY, *MISUSES, *corpus()) if case.name == name)
