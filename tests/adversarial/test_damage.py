"""Files that were cut or flipped: the damage is named, healthy commits come back, nothing wrong is ever returned."""

from __future__ import annotations

import pathlib
import random
import shutil

import pytest
import torch

from gradient import GradientConfig, GradientEngine, Repo
from gradient.errors import CorruptionError, GradientError

from .conftest import gradient, objects

CHUNK, BLOCK = 1024, 64
IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
ORDER = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)


def _compress(chain: tuple[int, ...], words: list[int], length: int, flags: int) -> tuple[int, ...]:
    state = [*chain, *IV[:4], 0, 0, length, flags]

    def mix(a: int, b: int, c: int, d: int, x: int, y: int) -> None:
        for message, first, second in ((x, 16, 12), (y, 8, 7)):
            state[a] = (state[a] + state[b] + message) & 0xFFFFFFFF
            state[d] = _turn(state[d] ^ state[a], first)
            state[c] = (state[c] + state[d]) & 0xFFFFFFFF
            state[b] = _turn(state[b] ^ state[c], second)

    for _ in range(7):
        for i in range(4):
            mix(i, 4 + i, 8 + i, 12 + i, words[2 * i], words[2 * i + 1])
        for i in range(4):
            mix(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4, words[8 + 2 * i], words[9 + 2 * i])
        words = [words[i] for i in ORDER]
    return tuple(state[i] ^ state[i + 8] for i in range(8))


def _turn(word: int, by: int) -> int:
    return (word >> by | word << (32 - by)) & 0xFFFFFFFF


def blake3(data: bytes) -> bytes:
    """BLAKE3 of at most one chunk of 1 KiB, from its specification: enough to forge a small file."""
    assert len(data) <= CHUNK
    chain: tuple[int, ...] = IV
    blocks = [data[i : i + BLOCK] for i in range(0, len(data), BLOCK)] or [b""]
    for at, block in enumerate(blocks):
        padded = block.ljust(BLOCK, b"\0")
        words = [int.from_bytes(padded[i : i + 4], "little") for i in range(0, BLOCK, 4)]
        flags = (1 if at == 0 else 0) | (2 | 8 if at == len(blocks) - 1 else 0)
        chain = _compress(chain, words, len(block), flags)
    return b"".join(word.to_bytes(4, "little") for word in chain)


def files(workspace: pathlib.Path, folder: str) -> list[pathlib.Path]:
    found = sorted((workspace / "gpt" / ".gradient-repo" / folder).iterdir())
    assert found
    return found


def state_of(workspace: pathlib.Path, ref: str) -> dict[str, torch.Tensor]:
    model, optimizer = objects()
    with GradientEngine.attach(model, optimizer, workspace=workspace, repo="gpt") as engine:
        engine.resume(ref)
    moments = {f"{i}.{key}": value for i, state in enumerate(optimizer.state.values()) for key, value in state.items()}
    return {**model.state_dict(), **moments}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def spoil(file: pathlib.Path, how: str, rng: random.Random) -> None:
    data = bytearray(file.read_bytes())
    if how == "flip":
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif how == "cut":
        del data[rng.randrange(len(data)) :]
    elif how == "empty":
        data.clear()
    else:
        data += b"junk"
    file.write_bytes(data)


@pytest.mark.parametrize("how", ["flip", "cut", "empty", "longer"])
@pytest.mark.parametrize("seed", range(5))
def test_a_spoilt_pack_is_never_read_as_something_else(workspace: pathlib.Path, how: str, seed: int) -> None:
    right = {ref: state_of(workspace, ref) for ref in ("main@10", "main@20", "main@30")}
    rng = random.Random(seed)
    for cache in files(workspace, "cache"):
        cache.unlink()
    pack = rng.choice(files(workspace, "packs"))
    spoil(pack, how, rng)
    broken = 0
    for ref, state in right.items():
        try:
            assert equal(state_of(workspace, ref), state), ref
        except CorruptionError as error:
            broken += 1
            assert error.hint
            assert error.object_id or error.path, "the damage has a name"
    # One flipped bit may lie in padding, which nobody reads on a restore; what lies before a cut is read, and all of a
    # pack that something was added to.
    assert broken or how != "empty"
    assert not broken or how != "longer"
    checked = gradient(workspace / "gpt", "fsck", "--full")
    assert checked.returncode == 5
    assert pack.name in checked.stdout + checked.stderr


@pytest.mark.parametrize("how", ["flip", "cut", "empty", "longer"])
def test_a_spoilt_newest_operation_is_read_past_with_a_notice_and_never_written_past(
    workspace: pathlib.Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    spoil(files(workspace, "ops")[-1], how, random.Random(1))
    with Repo.open(workspace / "gpt") as repo:
        assert repo.resolve("main").step == 20
    model, optimizer = objects()
    with pytest.raises(CorruptionError) as caught:
        GradientEngine.attach(model, optimizer, workspace=workspace, repo="gpt", resume="latest").commit(40)
    assert "ops/" in str(caught.value.hint)
    assert any("can not be read" in record.getMessage() for record in caplog.records), "training is told"
    for command in ("log", "status"):
        shown = gradient(workspace / "gpt", command)
        assert shown.returncode == 0
        assert shown.stderr.count("can not be read") == 1, command
    assert gradient(workspace / "gpt", "tag", "v1", "main").returncode == 5


def contents(workspace: pathlib.Path, folder: str) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in files(workspace, folder)}


@pytest.mark.parametrize("how", ["flip", "cut", "empty", "longer"])
def test_a_spoilt_operation_of_the_past_costs_its_story_and_no_commit(workspace: pathlib.Path, how: str) -> None:
    right = {ref: state_of(workspace, ref) for ref in ("main@10", "main@20", "main@30")}
    older = files(workspace, "ops")[1]
    spoil(older, how, random.Random(4))
    before = contents(workspace, "ops")
    assert all(equal(state_of(workspace, ref), state) for ref, state in right.items())
    shown = gradient(workspace / "gpt", "log", "--oneline")
    assert (shown.returncode, shown.stdout.count("\n")) == (0, 3)
    assert "note:" not in shown.stderr, "nothing that is shown depends on it"
    listed = gradient(workspace / "gpt", "ops")
    assert (listed.returncode, listed.stdout.count("\n")) == (5, 1), "what the one behind it changed is not known"
    assert f"ops/{older.name} is damaged" in listed.stderr
    assert "from a copy" in listed.stderr
    model, optimizer = objects()
    with GradientEngine.attach(model, optimizer, workspace=workspace, repo="gpt", resume="latest") as engine:
        assert engine.commit(40).branch == "main"
    after = contents(workspace, "ops")
    assert after.items() > before.items(), "nothing was written over it"
    assert state_of(workspace, "main@40").keys() == right["main@30"].keys()


@pytest.mark.parametrize("how", ["flip", "cut", "empty", "longer", "gone"])
def test_a_spoilt_table_is_named_in_place_of_the_head_and_its_hint_leads_out(workspace: pathlib.Path, how: str) -> None:
    with Repo.open(workspace / "gpt") as repo:
        for n in range(20):
            repo.core.create_tag(f"t{n}", repo.resolve("main").id)
    right = state_of(workspace, "main@30")
    operations = files(workspace, "ops")
    at = max(at for at, file in enumerate(operations) if b"whole" in file.read_bytes())
    assert at < len(operations) - 2, "the test needs operations that refer to another one"
    spoilt = operations[at]
    if how == "gone":
        spoilt.unlink()
    else:
        spoil(spoilt, how, random.Random(5))
    before = contents(workspace, "ops")
    shown = gradient(workspace / "gpt", "log", "--oneline")
    assert shown.returncode == 0
    assert shown.stderr.count(f"ops/{spoilt.name} is damaged") == 1
    refused = gradient(workspace / "gpt", "tag", "v1", "main")
    assert refused.returncode == 5
    assert f"gradient repair --apply moves ops/{spoilt.name} to ops/{operations[-1].name} aside" in refused.stderr
    model, optimizer = objects()
    with pytest.raises(CorruptionError) as caught:
        GradientEngine.attach(model, optimizer, workspace=workspace, repo="gpt", resume="main@30").commit(40)
    assert caught.value.path == f"ops/{spoilt.name}"
    assert equal(state_of(workspace, "main@30"), right)
    assert contents(workspace, "ops") == before, "nothing was written over it, nor into its place"

    planned = gradient(workspace / "gpt", "repair")
    assert planned.returncode == 0 and f"would move ops/{operations[-1].name}" in planned.stdout
    assert contents(workspace, "ops") == before, "a plan changes nothing"
    assert gradient(workspace / "gpt", "repair", "--apply").returncode == 0
    assert gradient(workspace / "gpt", "fsck", "--full").returncode == 0
    assert gradient(workspace / "gpt", "tag", "v1", "main").returncode == 0
    assert equal(state_of(workspace, "v1"), right)


@pytest.fixture(scope="session")
def many_operations(made: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The repository of this session after so many operations that the old ones were folded."""
    workspace = pathlib.Path(shutil.copytree(made, tmp_path_factory.mktemp("many") / "workspace"))
    with Repo.open(workspace / "gpt") as repo:
        tip = repo.resolve("main").id
        for _ in range(270):
            repo.core.create_branch("short-lived", tip)
            repo.core.delete_branch("short-lived")
        repo.core.maintain()
    return workspace


@pytest.mark.parametrize("how", ["flip", "cut", "empty", "longer"])
def test_a_spoilt_file_of_folded_operations_costs_their_stories_and_no_commit(
    many_operations: pathlib.Path, how: str, tmp_path: pathlib.Path
) -> None:
    workspace = pathlib.Path(shutil.copytree(many_operations, tmp_path / "workspace"))
    right = {ref: state_of(workspace, ref) for ref in ("main@10", "main@20", "main@30")}
    folded = files(workspace, "ops")[-1]
    assert folded.name.startswith("folded-")
    spoil(folded, how, random.Random(6))
    before = contents(workspace, "ops")
    assert all(equal(state_of(workspace, ref), state) for ref, state in right.items())
    assert gradient(workspace / "gpt", "log").returncode == 0
    refused = gradient(workspace / "gpt", "ops")
    assert refused.returncode == 5
    assert f"ops/{folded.name} is damaged" in refused.stderr
    assert "from a copy" in refused.stderr
    model, optimizer = objects()
    with GradientEngine.attach(model, optimizer, workspace=workspace, repo="gpt", resume="latest") as engine:
        engine.commit(40)
    with Repo.open(workspace / "gpt") as repo:
        assert repo.resolve("main").step == 40
    assert contents(workspace, "ops").items() > before.items(), "nothing was written over it, and nothing deleted"


def on(branch: str) -> GradientConfig:
    return GradientConfig(branch=branch)


@pytest.mark.parametrize("how", ["flip", "cut", "empty", "longer"])
def test_a_spoilt_lease_stops_nobody_and_still_spares_what_its_writer_may_need(
    workspace: pathlib.Path, how: str
) -> None:
    writer = GradientEngine.attach(*objects(), workspace=workspace, repo="gpt", config=on("one"))
    writer.commit(10)
    (lease,) = files(workspace, "leases")
    spoil(lease, how, random.Random(7))
    spoilt = lease.read_bytes()
    half_made = lease.parent.parent / "tmp" / ("0" * 32 + ".tmp")
    half_made.write_bytes(b"half a pack")
    tagged = gradient(workspace / "gpt", "tag", "v1", "main")
    assert tagged.returncode == 0
    assert "note:" not in tagged.stderr
    with GradientEngine.attach(*objects(), workspace=workspace, repo="gpt", config=on("two")) as other:
        other.commit(10)
        assert half_made.exists(), "a writer that nothing is known of may be writing it"
    assert contents(workspace, "leases") == {lease.name: spoilt}, "it is its writer's"
    writer.commit(20)
    assert lease.read_bytes() != spoilt
    writer.close()
    assert not lease.exists()
    with GradientEngine.attach(*objects(), workspace=workspace, repo="gpt", config=on("three")) as other:
        other.commit(10)
    assert not half_made.exists()
    with Repo.open(workspace / "gpt") as repo:
        assert repo.resolve("one").step == 20


@pytest.mark.parametrize("how", ["flip", "cut", "empty", "longer"])
def test_a_spoilt_format_file_is_refused(workspace: pathlib.Path, how: str) -> None:
    spoil(workspace / "gpt" / ".gradient-repo" / "format", how, random.Random(2))
    with pytest.raises(CorruptionError) as caught:
        Repo.open(workspace / "gpt")
    assert caught.value.path == "format"
    assert gradient(workspace / "gpt", "status").returncode == 5


@pytest.mark.parametrize("how", ["flip", "cut", "empty", "longer"])
def test_spoilt_caches_cost_nothing_but_their_rebuilding(workspace: pathlib.Path, how: str) -> None:
    right = state_of(workspace, "main@20")
    for file in files(workspace, "cache"):
        spoil(file, how, random.Random(3))
    assert equal(state_of(workspace, "main@20"), right)
    assert gradient(workspace / "gpt", "log", "--oneline").stdout.count("\n") == 3


def test_a_spoilt_config_is_named_and_keeps_nobody_from_the_commits(workspace: pathlib.Path) -> None:
    config = workspace / "gpt" / ".gradient-repo" / "config.json"
    config.write_text('{"name": "gpt", "colour": "red"}')
    with Repo.open(workspace / "gpt") as repo:
        assert repo.resolve("main").step == 30
        assert any("config.json" in notice and "colour" in notice for notice in repo.core.notices)
    shown = gradient(workspace / "gpt", "log", "--oneline")
    assert shown.returncode == 0
    assert shown.stderr.count("config.json") == 1
    assert gradient(workspace / "gpt", "fsck").returncode == 5
    config.unlink()
    with Repo.open(workspace / "gpt") as repo:
        assert repo.core.notices == []


def test_damage_in_a_restore_blocks_commits_until_one_succeeds(workspace: pathlib.Path) -> None:
    model, optimizer = objects()
    right = state_of(workspace, "main@20")
    # The first chunk of the newest pack, which no older commit needs: 2 KiB of float32, coded or as they are.
    newest = max(files(workspace, "packs"), key=lambda file: file.stat().st_mtime_ns)
    data = bytearray(newest.read_bytes())
    data[32 + 48 + 200] ^= 1
    newest.chmod(0o644)
    newest.write_bytes(data)
    with GradientEngine.attach(model, optimizer, workspace=workspace, repo="gpt") as engine:
        with pytest.raises(CorruptionError) as caught:
            engine.resume("main@30")
        # Step counters and biases are of at most 255 bytes: they lie in the tree, and are written before any chunk.
        assert caught.value.partial is True
        with pytest.raises(GradientError) as refused:
            engine.commit(40)
        assert refused.value.code == "restore-incomplete"
        assert engine.resume("main@20") == 20
        assert equal(model.state_dict(), {name: right[name] for name in model.state_dict()})
        assert engine.commit(40).step == 40


def test_the_forger_of_these_tests_knows_blake3() -> None:
    known = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    assert blake3(b"").hex() == known
