"""How much memory a restore may take is what the kernel would give: caches of files are no memory in use."""

from __future__ import annotations

import pathlib

import pytest

from gradient.memory import available_bytes

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
