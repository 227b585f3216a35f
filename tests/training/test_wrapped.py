"""Engines beside wrapped optimizers: the same bits after a resume, codes in the commit, and the way out and back."""

from __future__ import annotations

import io
import random
import secrets
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from gradient import CorruptionError, GradientConfig, Repo, StateMismatchError, wrap
from gradient.optim import FourthRootCodec, WarmupPolicy

sys.path.insert(0, str(Path(__file__).resolve().parent))

from fork_server import HERE, Child, ForkServer
from wrapped_child import EVERY, RECIPES, STEPS, Recipe, Run

pytestmark = pytest.mark.usefixtures("elsewhere")

ALL = pytest.mark.parametrize("name", RECIPES)
SOME = pytest.mark.parametrize("name", ["adamw-by-lot", "sgd", "nadam"])

LONG = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in ("adamw-by-lot", "nadam") else pytest.mark.slow) for name in RECIPES],
)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def whole() -> Any:
    """Gives what a run on one thread that never stopped ends as."""
    made: dict[str, Run] = {}
    digests: dict[str, tuple[str, str]] = {}

    def find(name: str) -> tuple[str, str]:
        if name not in made:
            made[name] = Run(name).train(STEPS)
            digests[name] = made[name].weights(), made[name].digest()
        return digests[name]

    return find


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    # Torch's threads wait for each other without using the processor.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_WAIT_POLICY", "passive")
        server = ForkServer("wrapped_child")
    yield server
    server.close()


def moments(run: Run) -> dict[tuple[int, str], Any]:
    """The state as it is kept, by parameter and key."""
    store = run.optimizer.store
    return {
        (number, key): value
        for number, param in enumerate(run.model.parameters())
        for key, value in store.entries.get(param, {}).items()
    }


def coded(run: Run) -> dict[tuple[int, str], str]:
    """How moments are kept that are in eight bits."""
    return {place: value.kind for place, value in moments(run).items() if getattr(value, "scales", None) is not None}


def codes(run: Run) -> dict[tuple[int, str], bytes]:
    """The codes of moments that are in eight bits."""
    return {place: bytes(value.codes.numpy()) for place, value in moments(run).items() if place in coded(run)}


def stored_tensors(state: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The tensors of a commit's state, with their places."""
    if hasattr(state, "nbytes"):
        yield path, state
    elif isinstance(state, dict):
        for key, value in state.items():
            yield from stored_tensors(value, f"{path}/{key}")
    elif hasattr(state, "value"):
        yield from stored_tensors(state.value, path)


# The same bits


@LONG
@pytest.mark.parametrize("number", [pytest.param(2, marks=pytest.mark.slow), 8])
def test_any_number_of_threads_gives_the_same_bits(
    name: str, number: int, whole: Any, server: ForkServer, tmp_path: Path
) -> None:
    arguments = ["--reports", "{fd}", "--recipe", name, "--plain", "--threads", str(number)]
    said = server.start("wrapped_child", arguments, cwd=tmp_path).finish()[-1]
    assert said["threads"] == number
    assert (said["weights"], said["digest"]) == whole(name)


@LONG
def test_a_run_that_is_killed_and_resumed_ends_as_one_that_never_was(
    name: str, whole: Any, server: ForkServer, tmp_path: Path
) -> None:
    seed = secrets.randbits(32)
    print(f"moment of the kill: seed {seed}")
    chance = random.Random(seed)
    victim = chance.randint(EVERY + 1, STEPS - 1)
    arguments = ["--reports", "{fd}", "--recipe", name]
    child = server.start("wrapped_child", [*arguments, "--hold", str(victim)], cwd=tmp_path)
    for said in child.hear():
        if said.get("begin") == victim:
            time.sleep(chance.uniform(0, 0.005))
            child.kill()
    assert child.status == -9, child.last_words()
    first = {said["committed"]: said["root"] for said in child.heard if "committed" in said}
    child = server.start("wrapped_child", arguments, cwd=tmp_path)
    heard = child.finish()
    assert heard[0]["start"] in (victim // EVERY * EVERY, (victim - 1) // EVERY * EVERY)
    assert (heard[-1]["weights"], heard[-1]["digest"]) == whole(name)
    second = {said["committed"]: said["root"] for said in heard if "committed" in said}
    assert len(first | second) == STEPS // EVERY
    with Repo.open(tmp_path / "ws" / "model") as repo:
        assert {info.step: info.root for info in repo.log()} == first | second


@pytest.mark.slow
def test_a_run_resumes_in_a_new_interpreter(whole: Any, tmp_path: Path) -> None:
    command = [sys.executable, str(HERE / "wrapped_child.py"), "--reports", "{fd}", "--recipe", "adamw-by-lot"]
    child = Child.start_command([*command, "--hold", "95"], cwd=tmp_path)
    for said in child.hear():
        if said.get("begin") == 95:
            child.kill()
    heard = Child.start_command(command, cwd=tmp_path).finish()
    assert heard[0]["start"] == 80
    assert (heard[-1]["weights"], heard[-1]["digest"]) == whole("adamw-by-lot")


@LONG
def test_a_state_dict_that_is_saved_loaded_and_saved_has_the_same_bytes_and_goes_on_with_the_same_bits(
    name: str, whole: Any
) -> None:
    def saved(run: Run) -> bytes:
        file = io.BytesIO()
        torch.save(run.optimizer.state_dict(format="native"), file)
        return file.getvalue()

    run = Run(name).train(STEPS // 2)
    once, drawn = saved(run), torch.get_rng_state()
    other = Run(name, seed=5)
    other.model.load_state_dict(run.model.state_dict())
    other.optimizer.load_state_dict(torch.load(io.BytesIO(once), weights_only=True))
    other.at = run.at
    torch.set_rng_state(drawn)
    assert saved(other) == once
    other.train(STEPS)
    assert (other.weights(), other.digest()) == whole(name)


@ALL
def test_it_makes_no_difference_whether_an_optimizer_is_wrapped_before_or_after_attach(name: str, ws: Path) -> None:
    before, after = Run(name), Run(name, wrapped=False)
    roots = []
    for run, folder in ((before, ws / "before"), (after, ws / "after")):
        torch.manual_seed(1)
        engine = run.attach(folder)
        if run is after:
            wrap(run.optimizer)
        run.train(3)
        roots.append(engine.commit(3).root)
        run.train(6)
    assert roots[0] == roots[1]
    assert before.digest() == after.digest()
    other = Run(name, wrapped=False, seed=4)
    engine = other.attach(ws / "before")
    wrap(other.optimizer)
    engine.resume("main@3")
    other.at = 3
    assert other.train(6).digest() == before.digest()


@SOME
def test_a_run_that_goes_back_gives_the_same_bits_again(name: str, ws: Path) -> None:
    run = Run(name)
    engine = run.attach(ws)
    run.train(5)
    engine.commit(5)
    expected = run.train(9).digest()
    for _ in range(2):
        run.at = engine.resume("main@5")
        assert run.train(9).digest() == expected


OTHERS = {
    "amsgrad": lambda params: torch.optim.AdamW(params, lr=1e-2, amsgrad=True),
    "tensor-lr": lambda params: torch.optim.AdamW(params, lr=torch.tensor(1e-2)),
    "centered": lambda params: torch.optim.RMSprop(params, lr=1e-2, centered=True, momentum=0.9),
    "no-momentum": lambda params: torch.optim.SGD(params, lr=1e-2),
    "adadelta": torch.optim.Adadelta,
    "adafactor": torch.optim.Adafactor,
    "adagrad": torch.optim.Adagrad,
    "adamax": torch.optim.Adamax,
    "asgd": torch.optim.ASGD,
    "radam": torch.optim.RAdam,
    "rprop": torch.optim.Rprop,
}
"""What is stepped by its own code, or has state of another kind."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("other", OTHERS)
def test_every_other_optimizer_of_torch_resumes_with_the_same_bits(
    other: str, dtype: torch.dtype, ws: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RECIPES, other, Recipe(OTHERS[other], dtype))
    run = Run(other).train(3)
    root = run.attach(ws).commit(3).root
    resumed = Run(other, seed=3)
    engine = resumed.attach(ws, resume="latest")
    assert engine.commit(4).root == root
    assert resumed.digest() == run.digest()
    drawn = torch.get_rng_state()
    run.train(6)
    torch.set_rng_state(drawn)
    assert resumed.train(6).digest() == run.digest()


# What a commit holds


@ALL
def test_a_commit_of_the_same_state_has_the_same_root_however_it_came_about(name: str, ws: Path) -> None:
    run = Run(name).train(5)
    engine = run.attach(ws / "one")
    first = engine.commit(5)
    again = engine.commit(5)
    assert (again.id, again.existing) == (first.id, True)
    later = engine.commit(6)
    assert later.root == first.root
    # No object of the state is new.
    assert later.added_bytes < 4096 < first.added_bytes
    assert Run(name).train(5).attach(ws / "two").commit(5).root == first.root
    resumed = Run(name, seed=3)
    back = resumed.attach(ws / "one", resume="main@5")
    assert back.commit(7).root == first.root
    resumed.train(8)
    assert back.commit(8).root != first.root


@ALL
def test_a_commit_holds_codes_as_they_lie_in_memory_and_no_moments_in_full(name: str, ws: Path) -> None:
    run = Run(name).train(5)
    handle = run.attach(ws).commit(5)
    shapes = {tuple(param.shape) for param in run.model.parameters() if param.numel() >= 4096 and param.dim() > 1}
    with Repo.open(ws / "model") as repo:
        state = repo.state("main@5")
    found = dict(stored_tensors(state["optim"]["main"]["state"]))
    found_codes = [tensor for tensor in found.values() if tuple(tensor.shape) in shapes]
    keys = {key for _, key in coded(run)}
    assert keys == {"adamw": {"exp_avg", "exp_avg_sq"}, "sgd": {"momentum_buffer"}, "lion": {"exp_avg"}}.get(
        name.split("-")[0], {"exp_avg", "exp_avg_sq"}
    )
    assert len(found_codes) == len(keys) * len(shapes)
    assert {tensor.dtype for tensor in found_codes} <= {"int8", "uint8"}
    elements = sum(param.numel() for param in run.model.parameters())
    width = run.model.rows.element_size()
    # 1.0625 bytes for each moment; a row that ends in a block has a scale more.
    assert sum(tensor.nbytes for tensor in found.values()) < 1.1 * len(keys) * elements
    assert handle.added_bytes < (width + 1.1 * len(keys)) * elements + 10_000
    # Codes are stored as they lie in memory.
    held = set(codes(run).values())
    assert len(held) == len(found_codes)
    assert {tensor.bytes() for tensor in found_codes if len(tensor.shape) == 2} <= held


# Out, and back


@ALL
def test_a_commit_of_a_wrapped_optimizer_resumes_into_one_that_is_not_and_that_is_said(
    name: str, ws: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(name).train(5)
    run.attach(ws).commit(5)
    plain = Run(name, wrapped=False, seed=3)
    plain.attach(ws, resume="latest")
    said = [record.message for record in caplog.records if "has the state of a wrapped optimizer" in record.message]
    assert len(said) == 1 and "lost" in said[0]
    assert plain.weights() == run.weights()
    for mine, theirs in zip(plain.model.parameters(), run.model.parameters(), strict=True):
        state, kept = plain.optimizer.state[mine], run.optimizer.state[theirs]
        assert type(state) is dict and state.keys() == kept.keys()
        assert all(value.equal(kept[key]) and value.dtype == kept[key].dtype for key, value in state.items())
    drawn = torch.get_rng_state()
    run.train(8)
    torch.set_rng_state(drawn)
    plain.train(8)
    for mine, theirs in zip(plain.model.parameters(), run.model.parameters(), strict=True):
        # Directions are signs for Lion: where two are near zero they part.
        assert (mine - theirs).abs().float().mean() < 1e-3


@ALL
def test_a_commit_of_one_that_is_not_wrapped_resumes_into_a_wrapped_one_and_that_is_said(
    name: str, ws: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = Run(name, wrapped=False).train(5)
    plain.attach(ws).commit(5)
    run = Run(name, seed=3)
    run.attach(ws, resume="latest")
    said = [record.message for record in caplog.records if "in more bits than the policy" in record.message]
    assert len(said) == 1 and "lost" in said[0]
    assert run.weights() == plain.weights()
    assert coded(run).keys() == coded(Run(name).train(1)).keys()
    for mine, theirs in zip(run.model.parameters(), plain.model.parameters(), strict=True):
        state, kept = run.optimizer.state[mine], plain.optimizer.state[theirs]
        assert state.keys() == kept.keys()
        for key, value in state.items():
            bound = 0.03 * float(kept[key].abs().max())
            assert (value - kept[key]).abs().max() <= bound
    assert run.train(8).optimizer.store.get_memory_usage() == Run(name).train(1).optimizer.store.get_memory_usage()


@pytest.mark.parametrize("name", ["adamw-by-lot", "adamw-bfloat16", "nadam"])
@pytest.mark.parametrize("at", [20, 29, 30])
def test_a_warmup_counts_the_steps_that_were_done_before_it_was_wrapped(name: str, at: int, ws: Path) -> None:
    Run(name, wrapped=False).train(at).attach(ws).commit(at)
    run = Run(name, policy=WarmupPolicy(30), seed=3)
    run.attach(ws, resume="latest")
    for last in (at, 29, 30):
        if last >= at:
            assert bool(coded(run.train(last))) == (last >= 30)


@SOME
def test_a_commit_that_does_not_fit_leaves_a_wrapped_optimizer_as_it_is(name: str, ws: Path) -> None:
    Run(name).train(3).attach(ws).commit(3)
    run = Run(name, seed=3)
    run.model.small.data = torch.zeros(41)
    kept = run.train(2).digest()
    with pytest.raises(StateMismatchError, match="nothing was touched"):
        run.attach(ws, resume="latest")
    assert run.digest() == kept


@SOME
def test_codes_that_are_damaged_on_disk_are_not_taken(name: str, ws: Path) -> None:
    run = Run(name)
    # Chunks lie in the pack as they are.
    engine = run.attach(ws, config=GradientConfig(ws, "model", compression="off"))
    run.train(3)
    engine.commit(3)
    held = codes(run)
    wanted = held[0, next(key for _, key in coded(run))]
    (pack,) = [pack for pack in (ws / "model" / ".gradient-repo" / "packs").iterdir() if wanted in pack.read_bytes()]
    content = bytearray(pack.read_bytes())
    content[content.find(wanted) + 2000] ^= 1
    pack.chmod(0o644)
    pack.write_bytes(content)
    with pytest.raises(CorruptionError):
        engine.resume("main@3")
    assert codes(run) == held
    other = Run(name, seed=3)
    with pytest.raises(CorruptionError):
        other.attach(ws, resume="latest")
    assert moments(other) == {}


@SOME
def test_nothing_is_said_to_be_lost_where_nothing_is(name: str, ws: Path, caplog: pytest.LogCaptureFixture) -> None:
    Run(name).train(2).attach(ws).commit(2)
    Run(name).attach(ws, resume="latest")
    Run(name, policy=WarmupPolicy(100)).train(2).attach(ws / "full").commit(2)
    Run(name, wrapped=False).attach(ws / "full", resume="latest")
    Run(name, policy=WarmupPolicy(100)).attach(ws / "full", resume="latest")
    assert not [record.message for record in caplog.records if "lost" in record.message]


# Beside others


@SOME
@pytest.mark.parametrize("at", [20, 29, 30, 31])
def test_a_warmup_goes_on_where_it_was(name: str, at: int, ws: Path) -> None:
    def policy() -> WarmupPolicy:
        return WarmupPolicy(30, variance_codec=FourthRootCodec())

    run = Run(name, policy=policy()).train(at)
    assert bool(coded(run)) == (at >= 30)
    run.attach(ws).commit(at)
    resumed = Run(name, policy=policy(), seed=3)
    resumed.attach(ws, resume="latest")
    kept = torch.get_rng_state()
    assert coded(resumed) == coded(run)
    digests = []
    for one in (run, resumed):
        torch.set_rng_state(kept)
        assert bool(coded(one.train(max(at, 29)))) == (at >= 30)
        assert coded(one.train(max(at, 30)))
        digests.append(one.train(40).digest())
    assert digests[0] == digests[1]


@pytest.mark.filterwarnings("ignore:Detected call of .lr_scheduler.step")
@pytest.mark.parametrize("name", ["adamw-by-lot", "adamw-bfloat16", "sgd", "nadam"])
@pytest.mark.parametrize("late", [False, True])
def test_schedulers_and_gradient_scalers_go_on_beside_it(name: str, late: bool, ws: Path) -> None:
    def made(seed: int) -> Run:
        run = Run(name, wrapped=not late, seed=seed)
        run.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(run.optimizer, 40)
        # The first steps are skipped, and some later ones.
        run.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=4, growth_factor=2.0**4)
        if late:
            wrap(run.optimizer)
        return run

    expected = made(0).train(40)
    steps = {int(value.value) for (_, key), value in moments(expected).items() if hasattr(value, "value")}
    assert all(0 < step < 38 for step in steps)
    assert expected.optimizer.param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-9)
    run = made(0)
    engine = run.attach(ws)
    run.train(17)
    engine.commit(17)
    resumed = made(3)
    resumed.attach(ws, resume="latest")
    assert resumed.scaler.get_scale() == run.scaler.get_scale() != 2.0**127
    assert resumed.train(40).digest() == expected.digest()


@SOME
@pytest.mark.parametrize("late", [False, True])
def test_gradients_are_stored_where_they_are_new_since_the_last_step(name: str, late: bool, ws: Path) -> None:
    run = Run(name, wrapped=not late)
    engine = run.attach(ws)
    if late:
        wrap(run.optimizer)
    run.model().backward()
    run.optimizer.step()
    engine.commit(1)
    run.model().backward()
    engine.commit(2)
    with Repo.open(ws / "model") as repo:
        assert ["grads" in repo.state(f"main@{step}") for step in (1, 2)] == [False, True]
    other = Run(name, seed=3)
    other.attach(ws, resume="latest")
    for one in (run, other):
        one.optimizer.step()
    assert run.digest() == other.digest()


@ALL
def test_a_parameter_that_is_unfrozen_after_a_resume_begins_as_it_would_have(name: str, ws: Path) -> None:
    def frozen(seed: int = 0) -> Run:
        run = Run(name, seed=seed)
        run.model.filters.requires_grad_(False)
        return run

    def unfrozen(run: Run) -> str:
        run.model.filters.requires_grad_(True)
        return run.train(20).digest()

    run = frozen().train(10)
    run.attach(ws).commit(10)
    drawn = torch.get_rng_state()
    expected = unfrozen(run)
    resumed = frozen(3)
    resumed.attach(ws, resume="latest")
    assert torch.get_rng_state().equal(drawn)
    assert not resumed.optimizer.state.get(resumed.model.filters)
    assert unfrozen(resumed) == expected
    # In a script that does not freeze any more.
    other = Run(name, seed=4)
    other.attach(ws, resume="latest")
    assert other.train(20).digest() == expected


@SOME
def test_a_fork_that_resets_the_optimizer_begins_with_no_state(name: str, ws: Path) -> None:
    run = Run(name)
    engine = run.attach(ws)
    run.train(5)
    engine.commit(5)
    engine.fork(from_ref="main@5", new_branch="again", reset_optimizer=True)
    assert moments(run) == {} and run.optimizer.store.get_memory_usage() == 0
    drawn = torch.get_rng_state()
    fresh = Run(name)
    fresh.model.load_state_dict(run.model.state_dict())
    fresh.at = 5
    torch.set_rng_state(drawn)
    expected = fresh.train(10).digest()
    torch.set_rng_state(drawn)
    assert run.train(10).digest() == expected
