"""Imports go down, never up: which crate may depend on which, and who may open the compiled module."""

import ast
import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "python" / "gradient"

# The crates of the project that a crate may depend on.
CRATES = {
    "gradient-codec": set(),
    "gradient-object": set(),
    "gradient-storage": set(),
    "gradient-odb": {"gradient-codec", "gradient-object", "gradient-storage"},
    "gradient-repo": {"gradient-codec", "gradient-object", "gradient-odb", "gradient-storage"},
    "gradient-optim": {"gradient-codec"},
    "gradient-py": {"gradient-object", "gradient-odb", "gradient-optim", "gradient-repo", "gradient-storage"},
    "gradient-testkit": {"gradient-codec", "gradient-object", "gradient-odb", "gradient-repo", "gradient-storage"},
}


@pytest.fixture(scope="module")
def packages() -> dict[str, dict]:
    command = ["cargo", "metadata", "--format-version", "1", "--no-deps", "--offline"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True)
    return {package["name"]: package for package in json.loads(done.stdout)["packages"]}


def test_every_crate_of_the_workspace_has_its_place(packages: dict[str, dict]) -> None:
    assert set(packages) == set(CRATES)


@pytest.mark.parametrize("crate", CRATES)
def test_a_crate_depends_only_on_those_below(packages: dict[str, dict], crate: str) -> None:
    ours = {dependency["name"] for dependency in packages[crate]["dependencies"] if dependency.get("path")}
    assert ours <= CRATES[crate]


def test_no_release_has_what_only_crash_tests_need(packages: dict[str, dict]) -> None:
    for name, package in packages.items():
        if name == "gradient-testkit":
            continue
        for dependency in package["dependencies"]:
            assert dependency["name"] != "gradient-testkit", name
            assert "simulated" not in dependency["features"], (name, dependency["name"])
        assert "simulated" not in package["features"].get("default", []), name


def test_only_the_door_to_python_knows_pyo3(packages: dict[str, dict]) -> None:
    knowing = {name for name, package in packages.items() if any(d["name"] == "pyo3" for d in package["dependencies"])}
    assert knowing == {"gradient-py"}


def test_only_the_storage_crate_makes_system_calls(packages: dict[str, dict]) -> None:
    knowing = {
        name
        for name, package in packages.items()
        if any(d["name"] in ("rustix", "libc") and d["kind"] is None for d in package["dependencies"])
    }
    # gradient-repo asks for the host's name and the boot id, which leases carry; gradient-py asks the loader for the
    # threads that torch keeps.
    assert knowing <= {"gradient-storage", "gradient-repo", "gradient-py"}


# The files of each crate that may hold unsafe code: Python's memory, torch's threads, and what the processor can do.
UNSAFE = {"gradient-py": ["buffer.rs", "openmp.rs"], "gradient-codec": ["processor.rs"]}


def test_unsafe_is_forbidden_in_every_other_crate() -> None:
    for library in sorted(ROOT.glob("rust/*/src/lib.rs")):
        level = "deny" if library.parts[-3] in UNSAFE else "forbid"
        assert f"#![{level}(unsafe_code)]" in library.read_text(encoding="utf-8"), library


@pytest.mark.parametrize(("crate", "files"), UNSAFE.items())
def test_unsafe_of_a_crate_is_where_it_is_looked_for(crate: str, files: list[str]) -> None:
    sources = {
        source.name: [
            line
            for line in source.read_text(encoding="utf-8").splitlines()
            if not line.lstrip().startswith("//") and re.search(r"\bunsafe\b|(allow|expect)\(unsafe_code", line)
        ]
        for source in sorted((ROOT / "rust" / crate / "src").rglob("*.rs"))
    }
    assert [name for name, lines in sources.items() if lines] == files


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("module", ["errors.py", "_types.py"])
def test_what_lies_below_the_compiled_module_does_not_import_it(module: str) -> None:
    assert not {name for name in imports(PACKAGE / module) if name.startswith("gradient._core")}


def test_nothing_of_ours_imports_pickle() -> None:
    for path in sorted(PACKAGE.rglob("*.py")):
        bad = imports(path) & {"pickle", "dill", "cloudpickle", "shelve", "marshal", "_pickle"}
        assert not bad, (path, bad)


def test_only_training_modules_import_torch() -> None:
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.relative_to(PACKAGE).parts[0] not in ("engine", "state", "optim", "coded.py", "_coded_ops.py"):
            assert not {name for name in imports(path) if name.split(".")[0] == "torch"}, path
