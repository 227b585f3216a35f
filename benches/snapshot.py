"""Commit and restore of one state against `torch.save` and `torch.load`: speed, bytes, bytes of metadata."""

from __future__ import annotations

import pathlib
import struct
from typing import Any

import torch

import lab
from gradient import GradientEngine
from harness import alternate, folder, sync, table, trajectory


def attach(model: lab.GPT, optimizer: torch.optim.AdamW, workspace: pathlib.Path) -> GradientEngine:
    return GradientEngine.attach(model, optimizer, workspace=workspace, repo="gpt")


def tree_bytes(path: pathlib.Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def metadata_bytes(pack: pathlib.Path) -> tuple[int, int]:
    """(bytes of the pack that are no chunk payload, payload bytes), read as `docs/format/pack.md` says."""
    data = pack.read_bytes()
    index, num_objects = struct.unpack_from("<QI", data, len(data) - 128 + 8)
    payload = 0
    for row in range(num_objects):
        at = index + 64 * row
        if data[at + 58] == 1:
            payload += struct.unpack_from("<I", data, at + 44)[0]
    return len(data) - payload, payload


def commits(before: dict[str, Any], now: dict[str, Any]) -> None:
    model, optimizer = lab.live(now)
    raw = lab.raw_bytes(model, optimizer)
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    added: list[int] = []
    metadata: list[tuple[int, int]] = []
    engines: list[GradientEngine] = []
    kept: list[tuple[pathlib.Path, int, set[pathlib.Path]]] = []
    with folder() as root:
        count = iter(range(1_000_000))

        def measure_last() -> None:
            if engines:
                workspace, size, packs = kept.pop()
                added.append(tree_bytes(workspace) - size)
                (pack,) = set(workspace.rglob("*.pack")) - packs
                metadata.append(metadata_bytes(pack))
                engines.pop().close()

        def ours(steady: bool) -> Any:
            measure_last()
            workspace = root / f"workspace-{next(count)}"
            lab.put(model, optimizer, before if steady else now)
            engine = attach(model, optimizer, workspace)
            engines.append(engine)
            if steady:
                engine.commit(200)
                lab.put(model, optimizer, now)
            kept.append((workspace, tree_bytes(workspace), set(workspace.rglob("*.pack"))))
            return lambda: engine.commit(220)

        def peer() -> Any:
            path = root / f"state-{next(count)}.pt"

            def save() -> None:
                torch.save(state, path)
                sync(path)

            return save

        seconds = alternate(
            {
                "torch.save + fsync": peer,
                "commit, first of a process": lambda: ours(steady=False),
                "commit, steady state": lambda: ours(steady=True),
            }
        )
        table("durable commit, verified (AdamW, fp32, s220)", seconds, "torch.save + fsync", raw)
        measure_last()
    size, payload = metadata[-1]
    print(f"  raw {raw:,} bytes; stored {added[-1]:,}; ratio {raw / added[-1]:.3f}")
    print(f"  pack bytes that are no chunk payload: {size:,} ({size / 1024:.1f} KiB); payload {payload:,}")


def restores(now: dict[str, Any]) -> None:
    model, optimizer = lab.live(now)
    raw = lab.raw_bytes(model, optimizer)
    with folder() as root:
        engine = attach(model, optimizer, root / "workspace")
        engine.commit(220)
        path = root / "state.pt"
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)

        def load(mmap: bool) -> None:
            state = torch.load(path, weights_only=True, mmap=mmap)
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])

        seconds = alternate(
            {
                "torch.load + load_state_dict": lambda: lambda: load(False),
                "torch.load(mmap=True) + load_state_dict": lambda: lambda: load(True),
                "resume, verified": lambda: lambda: engine.resume("main@220"),
            }
        )
        table("restore into the live model and optimizer, files cached", seconds, "torch.load + load_state_dict", raw)
        engine.close()


def main() -> None:
    states = trajectory()
    before, now = lab.load(states / "s200.pt"), lab.load(states / "s220.pt")
    commits(before, now)
    restores(now)


if __name__ == "__main__":
    from harness import describe

    describe()
    main()
