"""A run that stops anywhere, in an epoch or an accumulation, goes on as one that never stopped: reliability.md, row 27.

Every tick of two epochs is resumed from here, in this process; `test_resume_matrix.py` kills.
"""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).resolve().parent))

from recipe import TICKS_IN_EPOCH, Recipe, run_whole

from gradient import GradientConfig, GradientEngine, InvalidInputError, Repo, StateMismatchError, resumable

pytestmark = pytest.mark.usefixtures("elsewhere")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "data.md"
LAST = 2 * TICKS_IN_EPOCH + 2


def committed(ws: Path, **options: Any) -> tuple[dict[int, str], dict[int, str]]:
    """Train with a commit at each tick; gives digests and root hashes."""
    recipe = Recipe(**options)
    digests, roots = {}, {}
    with recipe.attach(workspace=ws, repo="model") as engine:
        for tick in recipe.ticks(LAST):
            digests[tick] = recipe.digest()
            roots[tick] = engine.commit(tick).root
    return digests, roots


def resumed(ws: Path, tick: int, **options: Any) -> tuple[dict[int, str], dict[int, str]]:
    """Go on from a tick in other objects, with commits on a branch of their own."""
    recipe = Recipe(seed=99, **options)
    digests, roots = {}, {}
    with recipe.attach(config=GradientConfig(ws, "model", branch=f"from{tick}"), resume=f"main@{tick}") as engine:
        roots[tick] = engine.commit(tick).root
        for later in recipe.ticks(LAST):
            digests[later] = recipe.digest()
            roots[later] = engine.commit(later).root
    return digests, roots


@pytest.mark.parametrize("scaler", [False, True])
@pytest.mark.parametrize("ema", [False, True])
def test_a_run_resumed_at_any_tick_goes_on_as_one_that_never_stopped(ws: Path, scaler: bool, ema: bool) -> None:
    expected = run_whole(LAST, scaler=scaler, ema=ema)
    digests, roots = committed(ws, scaler=scaler, ema=ema)
    assert digests == expected, "training noticed that it was committed"
    assert list(expected) == list(range(1, LAST + 1))
    assert len(set(expected.values())) >= LAST - 2
    for tick in expected:
        later, same = resumed(ws, tick, scaler=scaler, ema=ema)
        assert later == {other: digest for other, digest in expected.items() if other > tick}
        assert same == {other: root for other, root in roots.items() if other >= tick}


def test_workers_change_nothing_and_may_come_and_go(ws: Path) -> None:
    digests, roots = committed(ws, workers=2, scaler=True, ema=True)
    assert digests == run_whole(LAST, scaler=True, ema=True)
    for tick, workers in ((3, 2), (5, 0), (6, 2), (9, 1)):
        later, same = resumed(ws, tick, workers=workers, scaler=True, ema=True)
        assert later == {other: digest for other, digest in digests.items() if other > tick}
        assert same == {other: root for other, root in roots.items() if other >= tick}


def test_a_commit_holds_gradients_in_the_middle_of_an_accumulation_only(ws: Path) -> None:
    committed(ws)
    with Repo.open(ws / "model") as repo:
        held = {tick: "grads" in repo.state(f"main@{tick}") for tick in range(1, LAST + 1)}
    # Batches 1, 3, 5, ...; the end of the first epoch is one more place between the fifth and the sixth.
    assert [tick for tick, there in held.items() if there] == [1, 3, 5, 6, 8, 10, 13]


def test_a_restore_in_a_running_loop_gives_the_restored_batch_next(ws: Path) -> None:
    expected = run_whole(LAST)
    recipe = Recipe()
    back = False
    with recipe.attach(workspace=ws, repo="model") as engine:
        for tick in recipe.ticks(LAST):
            assert recipe.digest() == expected[tick]
            if tick == 2:
                engine.commit(2)
            if tick == 8 and not back:
                back = True
                engine.resume("main@2")
    assert back


def test_the_page_s_example_goes_on_where_it_stopped(elsewhere: Path) -> None:
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[0].replace("1000", "100")
    steps = code.replace("step % 20", "step % 2")
    names: dict[str, Any] = {}
    exec(compile(steps.replace("loader.epoch < 3", "loader.epoch < 1"), str(PAGE), "exec"), names)
    assert (names["step"], names["loader"].epoch) == (4, 1)
    names = {}
    exec(compile(steps, str(PAGE), "exec"), names)
    # The commit at the last batch of the first epoch came before the end of that epoch.
    assert (names["step"], names["loader"].epoch) == (12, 3)
    assert names["engine"].commit(12).step == 12


# What is said


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_with_a_loader_nothing_is_missing_and_without_one_it_is_said(
    run: Any, new_run: Any, ws: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="gradient")
    loader = resumable(DataLoader(list(range(8))))
    GradientEngine.attach(*run.parts, workspace=ws, repo="with", dataloader=loader).commit(1)
    assert "data position: not captured" not in messages(caplog)
    GradientEngine.attach(*new_run().parts, workspace=ws, repo="without").commit(1)
    assert messages(caplog).count("data position: not captured") == 1


def test_several_loaders_are_named(run: Any, new_run: Any, ws: Path) -> None:
    def loaders() -> dict[str, Any]:
        return {name: resumable(DataLoader(list(range(8)), shuffle=True)) for name in ("train", "labelled")}

    here, there = loaders(), loaders()
    for name, taken in (("train", 3), ("labelled", 5)):
        iterator = iter(here[name])
        for _ in range(taken):
            next(iterator)
    GradientEngine.attach(*run.parts, workspace=ws, repo="gpt", dataloader=here).commit(1)
    GradientEngine.attach(*new_run().parts, workspace=ws, repo="gpt", dataloader=there, resume="main@1")
    assert {name: loader.batches for name, loader in there.items()} == {"train": 3, "labelled": 5}
    with Repo.open(ws / "gpt") as repo:
        assert sorted(repo.state("main")["data"]) == ["labelled", "train"]


def test_a_bare_loader_is_refused_with_the_way_out(run: Any, ws: Path) -> None:
    with pytest.raises(InvalidInputError, match="has no position") as caught:
        GradientEngine.attach(*run.parts, workspace=ws, repo="gpt", dataloader=DataLoader([1]))
    assert "gradient.resumable(loader)" in caught.value.hint


def test_another_batch_size_is_a_mismatch_that_touches_nothing(run: Any, new_run: Any, ws: Path) -> None:
    def loader(batch_size: int) -> Any:
        return resumable(DataLoader(list(range(8)), batch_size))

    GradientEngine.attach(*run.parts, workspace=ws, repo="gpt", dataloader=loader(2)).commit(1)
    other = new_run(5)
    before = other.fingerprint()
    with pytest.raises(StateMismatchError, match="data/main: batch_size 2 in the commit, 4 here"):
        GradientEngine.attach(*other.parts, workspace=ws, repo="gpt", dataloader=loader(4), resume="main@1")
    assert other.fingerprint() == before


def test_a_position_that_nobody_claimed_refuses_the_next_commit(run: Any, new_run: Any, ws: Path) -> None:
    loader = resumable(DataLoader(list(range(8))))
    GradientEngine.attach(*run.parts, workspace=ws, repo="gpt", dataloader=loader).commit(1)
    engine = GradientEngine.attach(*new_run().parts, workspace=ws, repo="gpt", resume="main@1")
    with pytest.raises(StateMismatchError, match="data/main") as caught:
        engine.commit(2)
    assert "dataloader={'main': gradient.resumable(loader)}" in caught.value.hint
    engine.drop_state("data/main")
    engine.commit(2)


def test_a_plain_loader_s_iterator_moves_the_generator_and_a_resumable_one_s_does_not() -> None:
    # Megatron-Bridge#5257: why the position is not left to the script.
    before = torch.get_rng_state()
    for num_workers in (0, 1):
        next(iter(resumable(DataLoader(list(range(8)), shuffle=True, num_workers=num_workers))))
        assert torch.equal(torch.get_rng_state(), before)
    iter(DataLoader(list(range(8))))
    assert not torch.equal(torch.get_rng_state(), before)
