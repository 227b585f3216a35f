"""The page of promises names tests and files that exist."""

from __future__ import annotations

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]
PAGE = (ROOT / "docs/promises.md").read_text()


def test_every_file_that_the_page_names_exists():
    named = set(re.findall(r"`((?:tests|rust)/[\w./-]+)`", PAGE))
    assert len(named) > 5
    assert {path for path in named if not (ROOT / path).exists()} == set()


def test_every_bug_of_the_page_has_its_tests():
    table = PAGE[PAGE.index("| bug |") :]
    named = re.findall(r"`(test_\w+)`", table)
    assert len(named) > 10
    defined = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        defined.update(re.findall(r"^def (test_\w+)", path.read_text(), flags=re.MULTILINE))
    assert set(named) - defined == set()
