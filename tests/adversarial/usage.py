"""Everything that is done to a repository from a stranger: what reads it, then what writes to it.

`GOOD` is what comes of a healthy one, so that nothing here stops early unseen.
"""

from __future__ import annotations

import contextlib
import importlib
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from gradient import GradientConfig, GradientEngine, Repo
from gradient.cli import COMMANDS, main
from gradient.errors import GradientError, InternalError
from gradient.state.environment import describe
from gradient.stored import StoredTensor

from .conftest import objects
from .conftest import train as one_step

READ_BYTES_MAX = 1 << 30
"""A single tensor that declares more than this is not read."""
DECLARED_BYTES = 1 << 39
"""More than this machine can have: reading it without a limit of one's own has to be refused too."""
VALUES_MAX = 2000
LOOKS = (
    ("log", "--oneline"),
    ("log", "--graph", "--all"),
    ("log", "--json"),
    ("show",),
    ("show", "--json", "exp"),
    ("status",),
    ("branch",),
    ("tag",),
    ("ops", "-n", "20"),
    ("diff", "exp", "main"),
    ("fsck",),
    ("fsck", "--full", "--json"),
    ("repair",),
)
CHANGES = (("branch", "new", "main"), ("undo",), ("repair", "--apply"), ("fsck", "--quick"), ("log", "--oneline"))
GOOD = {**{" ".join(words): "0" for words in (*LOOKS, *CHANGES)}, "read": "read", "train": "resumed"}


def steps(repo: pathlib.Path) -> Iterator[tuple[str, Callable[[], str]]]:
    """Name and work of each step."""
    for words in LOOKS:
        yield " ".join(words), lambda words=words: command(repo, words)  # type: ignore[misc]
    yield "read", lambda: read_all(repo)
    yield "train", lambda: train(repo)
    for words in CHANGES:
        yield " ".join(words), lambda words=words: command(repo, words)  # type: ignore[misc]


def warm() -> None:
    """Import what the steps import when they are used and look at the environment, once for every forked process."""
    for one in COMMANDS.values():
        importlib.import_module(f"gradient.cli.{one.module}")
    one_step(*objects())
    describe()


def command(repo: pathlib.Path, words: tuple[str, ...]) -> str:
    """Run a command as the shell would; tell its exit code."""
    try:
        return str(main(["-C", str(repo), *words]))
    except SystemExit as left:
        return str(left.code)


def read_all(repo: pathlib.Path) -> str:
    """Read the state of some branches, value by value."""
    with Repo.open(repo) as opened:
        for branch in list(opened.branches())[:4]:
            with refusals():
                opened.verify(branch)
            with refusals():
                for section in opened.state(branch).values():
                    for name in section:
                        with refusals():
                            read_values(section[name])
    return "read"


def read_values(value: Any) -> None:
    """Read the tensors in a value; one that declares more than there is must be refused."""
    waiting, seen = [value], 0
    while waiting and seen < VALUES_MAX:
        item = waiting.pop()
        if isinstance(item, StoredTensor):
            seen += 1
            with refusals():
                item.numpy(max_restore_bytes=READ_BYTES_MAX)
            if item.nbytes > DECLARED_BYTES:
                try:
                    item.bytes()
                except GradientError as error:
                    assert error.code in ("restore-too-large", "missing-object"), error.code
                else:
                    raise AssertionError(f"{item.nbytes} bytes were read")
        elif isinstance(item, dict):
            waiting += item.values()
        elif isinstance(item, list | tuple):
            waiting += item


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Let a typed refusal pass, but for the one that says that the bug is ours."""
    try:
        yield
    except InternalError:
        raise
    except GradientError:
        pass


def train(repo: pathlib.Path) -> str:
    """Go on from the tip, claim what was registered, commit."""
    model, optimizer = objects()
    config = GradientConfig(workspace_path=repo.parent, repo_name=repo.name)
    with GradientEngine.attach(model, optimizer, config=config) as engine:
        try:
            engine.resume("main")
            engine.register_state("main", getter=lambda: 1, setter=lambda _: None)
        except InternalError:
            raise
        except GradientError as error:
            said = error.code
        else:
            said = "resumed"
        engine.commit(engine.current_step + 1 if engine.current_step < 1 << 62 else 7)
    return said
