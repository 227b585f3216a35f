"""The environment of a run: versions, devices and flags.

It is recorded with each commit and compared at resume; it is never set, and is no part of the root hash.
"""

from __future__ import annotations

import functools
import os
import platform
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from gradient._core import __version__

if TYPE_CHECKING:
    from gradient.state.names import ModelNames

SHOWN_MAX = 20


def describe(names: ModelNames | None = None) -> dict[str, object]:
    """Describe the environment as a flat mapping of plain values, sorted by key.

    Costs well under a millisecond after the first call; versions and devices are looked up once.

    Args:
        names: The attached models; what needs no gradient, training modes and devices are described for each.
    """
    found = {**_fixed(), **_flags()}
    for name, walked in names.models.items() if names is not None else ():
        parameters = [walked.tensors[key] for key in walked.parameters]
        frozen = [key for key in walked.parameters if not walked.tensors[key].requires_grad]
        modes = _modes(walked.modules)
        devices = Counter(str(tensor.device) for tensor in walked.tensors.values())
        found[f"model.{name}.frozen"] = "all" if frozen and len(frozen) == len(parameters) else ", ".join(frozen)
        found[f"model.{name}.training"] = modes
        found[f"model.{name}.devices"] = ", ".join(sorted(devices))
    return dict(sorted(found.items()))


def compare(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    """Name the differences of two environments, one short line each: `torch: 2.14.0 -> 2.15.0`.

    Args:
        old: What a commit recorded.
        new: What `describe` gives now; what only one of them knows is not compared.

    Returns:
        Lines for people; at most `SHOWN_MAX`, the last of which then says how many more there are.
    """
    lines = [
        f"{key}: {_short(old[key])} -> {_short(new[key])}"
        for key in sorted(old.keys() & new.keys())
        if repr(old[key]) != repr(new[key])
    ]
    if len(lines) > SHOWN_MAX:
        lines = [*lines[: SHOWN_MAX - 1], f"and {len(lines) - SHOWN_MAX + 1} more"]
    return lines


def _short(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    text = text or "none"
    return text if len(text) <= 80 else f"{text[:77]}..."


@functools.cache
def _fixed() -> dict[str, object]:
    cuda = torch.cuda.is_available()
    return {
        "gradient": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": str(np.__version__),
        "platform": _platform(),
        "machine": platform.machine(),
        "cuda": str(torch.version.cuda) if cuda else "",
        "cudnn": str(_quiet(torch.backends.cudnn.version)) if cuda else "",
        "devices": ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        if cuda
        else "",
        "source_commit": source_commit() or "",
    }


def _platform() -> str:
    """`platform.platform()`, which asks a program for the processor: nothing is started by a commit."""
    if not sys.platform.startswith("linux"):
        return platform.platform()
    return "-".join((platform.system(), platform.release(), platform.machine(), "with", "".join(platform.libc_ver())))


def _flags() -> dict[str, object]:
    cudnn = torch.backends.cudnn
    return {
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "deterministic_warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "cudnn.benchmark": _quiet(lambda: cudnn.benchmark),
        "cudnn.deterministic": _quiet(lambda: cudnn.deterministic),
        "cudnn.tf32": _quiet(torch._C._get_cudnn_allow_tf32),
        "matmul.tf32": _quiet(torch._C._get_cublas_allow_tf32),
        "matmul.precision": _quiet(torch.get_float32_matmul_precision),
        "default_dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        "autocast.cpu": str(torch.get_autocast_dtype("cpu")).removeprefix("torch."),
        "autocast.cuda": str(torch.get_autocast_dtype("cuda")).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "PYTHONHASHSEED": os.environ.get("PYTHONHASHSEED", ""),
        "CUBLAS_WORKSPACE_CONFIG": os.environ.get("CUBLAS_WORKSPACE_CONFIG", ""),
    }


def _quiet(read: Callable[[], Any]) -> Any:
    """Read a flag; torch raises for one that was set through the newer of its two ways."""
    try:
        return read()
    except RuntimeError:
        return "mixed"


def _modes(modules: Mapping[str, nn.Module]) -> str:
    evaluating = [name or "model" for name, module in modules.items() if not module.training]
    if not evaluating:
        return "all"
    return "none" if len(evaluating) == len(modules) else f"all but {', '.join(evaluating)}"


def source_commit(start: Path | None = None) -> str | None:
    """Find the git commit that the script's folder is checked out at; None if there is none.

    Reads `.git` itself: no process is started.

    Args:
        start: The folder to look from; the script's own by default.
    """
    if start is None:
        script = getattr(sys.modules.get("__main__"), "__file__", None)
        start = Path(script).resolve().parent if script else Path.cwd()
    try:
        for folder in (start, *start.parents):
            git = folder / ".git"
            if git.is_file():
                git = folder / git.read_text().removeprefix("gitdir:").strip()
            if git.is_dir():
                return _head(git)
    except (OSError, UnicodeDecodeError):
        pass
    return None


def _head(git: Path) -> str | None:
    head = (git / "HEAD").read_text().strip()
    if not head.startswith("ref:"):
        return head
    ref = head.removeprefix("ref:").strip()
    common = git / "commondir"
    shared = (git / common.read_text().strip()) if common.is_file() else git
    for folder in (git, shared):
        if (folder / ref).is_file():
            return (folder / ref).read_text().strip()
    packed = shared / "packed-refs"
    if packed.is_file():
        for line in packed.read_text().splitlines():
            commit, _, name = line.partition(" ")
            if name == ref:
                return commit
    return None
