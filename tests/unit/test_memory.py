"""How much memory a restore may take is what the kernel would give; what does not suffice is named as that."""

from __future__ import annotations

import errno
import pathlib
import subprocess
import sys

import pytest
import torch

from gradient.errors import CorruptionError, StorageError
from gradient.memory import available_bytes
from gradient.state import RestorePlan, tensors
from gradient.state.train_state import compare

GIB = 1 << 30
MACHINE = 400 * GIB


class Tree:
    """A folder that looks like `/` to who asks for memory."""

    def __init__(self, root: pathlib.Path, *groups: str) -> None:
        self.root = root
        self.write("proc/meminfo", f"MemTotal: 1 kB\nMemFree: 1 kB\nMemAvailable: {MACHINE >> 10} kB\n")
        self.write("proc/self/cgroup", "".join(f"{group}\n" for group in groups))

    def write(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def two(self, group: str, limit: int | str, used: int, **stat: int) -> None:
        self.write(f"{group}/memory.max", f"{limit}\n")
        self.write(f"{group}/memory.current", f"{used}\n")
        self.write(f"{group}/memory.stat", "".join(f"{key} {count}\n" for key, count in stat.items()))

    def one(self, group: str, limit: int, used: int, **stat: int) -> None:
        self.write(f"{group}/memory.limit_in_bytes", f"{limit}\n")
        self.write(f"{group}/memory.usage_in_bytes", f"{used}\n")
        self.write(f"{group}/memory.stat", "".join(f"{key} {count}\n" for key, count in stat.items()))

    def available(self) -> int:
        return available_bytes(root=self.root)


def test_without_a_cgroup_the_memory_of_the_machine_is_available(tmp_path: pathlib.Path) -> None:
    assert Tree(tmp_path).available() == MACHINE
    (tmp_path / "proc/self/cgroup").unlink()
    assert available_bytes(root=tmp_path) == MACHINE


def test_a_cache_of_files_is_available_in_a_container_that_it_fills(tmp_path: pathlib.Path) -> None:
    tree = Tree(tmp_path, "0::/")
    tree.two("sys/fs/cgroup", 64 * GIB, 63 * GIB, anon=20 * GIB, inactive_file=30 * GIB, active_file=12 * GIB)
    assert tree.available() == 43 * GIB
    tree.two("sys/fs/cgroup", 64 * GIB, 63 * GIB, anon=20 * GIB, inactive_file=30 * GIB, slab_reclaimable=GIB)
    assert tree.available() == 32 * GIB


def test_pages_that_must_be_written_to_a_disk_first_are_not_available(tmp_path: pathlib.Path) -> None:
    tree = Tree(tmp_path, "0::/")
    tree.two("sys/fs/cgroup", 64 * GIB, 63 * GIB, inactive_file=30 * GIB, file_dirty=8 * GIB, file_writeback=2 * GIB)
    assert tree.available() == 21 * GIB
    tree.two("sys/fs/cgroup", 64 * GIB, 63 * GIB, inactive_file=GIB, file_dirty=8 * GIB)
    assert tree.available() == GIB


def test_what_is_in_use_is_not_available_nor_is_more_than_the_limit(tmp_path: pathlib.Path) -> None:
    tree = Tree(tmp_path, "0::/")
    tree.two("sys/fs/cgroup", 64 * GIB, 60 * GIB, anon=60 * GIB)
    assert tree.available() == 4 * GIB
    tree.two("sys/fs/cgroup", 64 * GIB, 70 * GIB, anon=70 * GIB)
    assert tree.available() == 0
    # Counts that were not read in one moment.
    tree.two("sys/fs/cgroup", 64 * GIB, 10 * GIB, inactive_file=30 * GIB)
    assert tree.available() == 64 * GIB
    tree.two("sys/fs/cgroup", "max", 60 * GIB, anon=60 * GIB)
    assert tree.available() == MACHINE


def test_the_limit_of_the_own_group_and_of_every_one_above_it_holds(tmp_path: pathlib.Path) -> None:
    tree = Tree(tmp_path, "1:name=systemd:/elsewhere", "0::/jobs.slice/job-7/task")
    tree.two("sys/fs/cgroup/jobs.slice/job-7/task", 8 * GIB, 3 * GIB)
    assert tree.available() == 5 * GIB
    tree.two("sys/fs/cgroup/jobs.slice/job-7", 4 * GIB, 3 * GIB)
    assert tree.available() == GIB
    tree.two("sys/fs/cgroup/jobs.slice", 64 * GIB, 64 * GIB, inactive_file=GIB >> 1)
    assert tree.available() == GIB >> 1
    tree.two("sys/fs/cgroup/jobs.slice/job-8", GIB, GIB)
    tree.two("sys/fs/cgroup/elsewhere", GIB, GIB)
    assert tree.available() == GIB >> 1


@pytest.mark.parametrize("name", ["0::/docker/4c0ffee", "0::/../../outside", "0::/", "nonsense", "0:"])
def test_a_container_that_sees_its_own_group_as_the_topmost_is_held_to_it(tmp_path: pathlib.Path, name: str) -> None:
    tree = Tree(tmp_path, name)
    tree.two("sys/fs/cgroup", 64 * GIB, 60 * GIB)
    tree.two("sys/outside", GIB, GIB)
    assert tree.available() == 4 * GIB


@pytest.mark.parametrize("controllers", ["memory", "cpu,memory"])
def test_the_first_version_of_cgroups_is_understood_too(tmp_path: pathlib.Path, controllers: str) -> None:
    tree = Tree(tmp_path, f"4:{controllers}:/docker/4c0ffee", "3:cpuset:/elsewhere")
    tree.one("sys/fs/cgroup/memory", 0x7FFF_FFFF_FFFF_F000, 100 * GIB)
    assert tree.available() == MACHINE
    group = "sys/fs/cgroup/memory/docker/4c0ffee"
    tree.one(group, 64 * GIB, 63 * GIB, inactive_file=1, total_inactive_file=30 * GIB, total_active_file=12 * GIB)
    assert tree.available() == 43 * GIB
    tree.one(group, 64 * GIB, 63 * GIB, total_inactive_file=30 * GIB, total_dirty=20 * GIB, total_writeback=5 * GIB)
    assert tree.available() == 6 * GIB
    tree.one("sys/fs/cgroup/memory/elsewhere", GIB, GIB)
    assert tree.available() == 6 * GIB


def test_a_group_whose_counts_can_not_be_read_is_held_to_what_can(tmp_path: pathlib.Path) -> None:
    tree = Tree(tmp_path, "0::/")
    tree.two("sys/fs/cgroup", 64 * GIB, 60 * GIB)
    tree.write("sys/fs/cgroup/memory.stat", "inactive_file many\n")
    assert tree.available() == 4 * GIB
    (tmp_path / "sys/fs/cgroup/memory.current").unlink()
    assert tree.available() == 64 * GIB


class Failing:
    """A part that fails as it reads what a commit holds for it."""

    section, name = "extra", "table"

    def __init__(self, error: Exception) -> None:
        self._error = error

    def compare(self, mapping: object, plan: object, names: object) -> None:
        raise self._error


SHORTAGES = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] data. DefaultCPUAllocator: not enough memory: you tried"),
    RuntimeError("CUDA error: out of memory"),
]


@pytest.mark.parametrize("error", SHORTAGES, ids=range(len(SHORTAGES)))
def test_memory_that_is_short_while_a_commit_is_read_is_no_damage(error: Exception) -> None:
    with pytest.raises(StorageError) as caught:
        compare(Failing(error), {}, RestorePlan(), None)  # type: ignore[arg-type]
    assert (caught.value.code, caught.value.errno) == ("out-of-memory", errno.ENOMEM)
    assert "extra/table" in str(caught.value)
    assert caught.value.__cause__ is error


def test_a_device_that_fails_is_no_damage_of_a_commit_either() -> None:
    with pytest.raises(RuntimeError, match="device-side assert"):
        compare(Failing(RuntimeError("CUDA error: device-side assert triggered")), {}, RestorePlan(), None)  # type: ignore[arg-type]


def test_a_tensor_that_torch_can_not_have_is_damage(tmp_path: pathlib.Path) -> None:
    class Stored:
        dtype, shape, order, nbytes, numpy = "float32", (1 << 40, 1 << 40, 0), None, 0, False

    with pytest.raises(CorruptionError) as caught:
        tensors.empty(Stored())  # type: ignore[arg-type]
    assert caught.value.code == "bad-value"


CHILD = """
import resource, sys
import torch
from gradient import GradientConfig, GradientEngine
from gradient.errors import GradientError

model = torch.nn.Linear(8, 8)
config = GradientConfig(workspace_path=sys.argv[1], repo_name="r", max_restore_bytes=1 << 40)
with GradientEngine.attach(model, torch.optim.SGD(model.parameters()), config=config) as engine:
    if sys.argv[2] == "commit":
        engine.register_state("table", getter=lambda: torch.zeros(100_000_000), setter=lambda _: None)
        engine.commit(1)
        engine.commit(2)
    else:
        engine.register_state("table", getter=lambda: None, setter=lambda _: None)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        used = next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmSize"))
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + (200 << 20), hard))
        for restore in (lambda: engine.resume("main@2"), lambda: engine.resume_latest(skip_damaged=True)):
            try:
                print(int(restore()))
            except GradientError as error:
                same = all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
                print(type(error).__name__, error.code, same)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        print(int(engine.resume_latest()))
"""


@pytest.mark.slow
def test_a_restore_without_memory_is_refused_as_that_and_goes_back_to_no_older_commit(tmp_path: pathlib.Path) -> None:
    def told(what: str) -> list[str]:
        ended = subprocess.run(
            [sys.executable, "-c", CHILD, str(tmp_path), what], capture_output=True, text=True, check=True, timeout=300
        )
        return ended.stdout.split("\n")[:-1]

    assert told("commit") == []
    assert told("restore") == ["StorageError out-of-memory True"] * 2 + ["2"]
