"""Restoring a model's tensors in place when they are made of others: sparse, quantized, nested, conjugated ...

Where the live tensor's parts take the commit's, they are written like any tensor: whoever shares that memory sees it.
Where they can not (another number of elements that are not zero, another scale), the live tensor gets new parts.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gradient._core import Alias, Named, StoredTensor
from gradient.errors import CorruptionError
from gradient.state import composites, tensors
from gradient.state.paths import Path, shown
from gradient.state.unflatten import Unflattener, find, to_torch

if TYPE_CHECKING:
    from gradient.state.plan import RestorePlan


class InPlace:
    """Writes the tensors of one component into live ones.

    Args:
        plan: The plan of the restore.
        section: The component's section.
        name: The component's name.
        mapping: The component's mapping.
    """

    def __init__(self, plan: RestorePlan, section: str, name: str, mapping: dict[Any, Any]) -> None:
        self._plan = plan
        self._section = section
        self._name = name
        self._device = torch.device("cpu")
        self._values = Unflattener(section, name, self._make, plan.once_read, mapping)
        self._mapping = mapping

    def resolve(self, path: Path) -> tuple[Path, Any]:
        """Give the node at a path, behind an alias if one is there; and where it stands.

        Raises:
            CorruptionError: There is none.
        """
        for _ in range(2):
            node = find(self._mapping, path)
            if node is None:
                raise CorruptionError(f"an alias of {path!r}, where no tensor is", code="bad-alias")
            if not isinstance(node, Alias):
                return path, node
            path = tuple(node.path)
        raise CorruptionError(f"an alias of the alias at {path!r}", code="bad-alias")

    def write(self, path: Path, live: Tensor, where: str) -> None:
        """Plan to write the tensor at a path into a live one; note a difference if it does not fit."""
        stands, node = self.resolve(path)
        bits, path, node = self._lies(stands, node)
        if tensors.unsupported(live, known=composites.is_jagged(live)) is not None:
            self._plan.write(node, live, where)
            return
        if bits != composites.bits_of(live):
            told = [" and ".join(one) or "plain" for one in (bits, composites.bits_of(live))]
            self._plan.changed.append(f"{where}: {told[0]} in the commit, {told[1]} here")
            return
        lies = composites.flip(live, bits)
        kind = composites.kind_of(lies)
        if not isinstance(node, Named):
            if kind is None:
                # An alias of this place means what stands there, its bits included.
                self._values.note(stands, live)
            self._plan.write(node, lies, where)
        elif kind is None or node.name not in kind.names:
            self._plan.changed.append(f"{where}: {node.name} in the commit, {tensors.described(lies)} here")
        else:
            self._composite(kind, path, node, lies, where)

    def same(self, path: Path, live: Tensor) -> bool:
        """Tell whether a live tensor is what the commit has at a path, bit for bit; reads it only if it may be."""
        path, node = self.resolve(path)
        return self._same(path, node, live)

    def _same(self, path: Path, node: Any, live: Tensor) -> bool:
        bits, path, node = self._lies(path, node)
        if bits != composites.bits_of(live):
            return False
        lies = composites.flip(live.detach(), bits)
        kind = composites.kind_of(lies)
        if kind is None:
            fits = isinstance(node, StoredTensor) and not node.numpy and tensors.fits(node, lies)
            return fits and tensors.same_bits(to_torch(node), lies)
        if not isinstance(node, Named) or node.name not in kind.names:
            return False
        parts, extra = composites.parts_of(node)
        name, own, here = kind.take(lies)
        # Their text tells 0.0 from -0.0 and finds a NaN equal to itself.
        if (name, repr(here), own.keys()) != (node.name, repr(extra), parts.keys()):
            return False
        found = {key: self._part(path, key, part) for key, part in parts.items()}
        # All of it is compared before the first byte is read.
        if any(composites.facts(self._lies(*found[key])[2]) != composites.facts_of(part) for key, part in own.items()):
            return False
        return all(self._same(*found[key], part) for key, part in own.items())

    def _make(self, stored: StoredTensor, path: Path) -> Any:
        # Parts go where the tensor is that gets them.
        where = shown(self._section, self._name, path)
        return self._plan.make(stored, where) if stored.numpy else self._plan.make_on(stored, self._device, where)

    def _lies(self, path: Path, node: Any) -> tuple[tuple[str, ...], Path, Any]:
        """Follow a node to what lies in memory; and say which bits are set on the way."""
        flipped: set[str] = set()
        seen = {path}
        while isinstance(node, Named) and node.name in composites.BITS:
            flipped ^= {node.name}
            node = node.value
            if isinstance(node, Alias):
                path, node = self.resolve(tuple(node.path))
                if path in seen:
                    raise CorruptionError(f"an alias of {path!r} inside it", code="bad-alias")
                seen.add(path)
        return tuple(name for name in composites.BITS if name in flipped), path, node

    def _part(self, path: Path, key: str, part: Any) -> tuple[Path, Any]:
        return self.resolve((*path, key)) if key else (path, part)

    def _composite(self, kind: composites.Composite, path: Path, node: Any, live: Tensor, where: str) -> None:
        parts, extra = composites.parts_of(node)
        found = {key: self._part(path, key, part) for key, part in parts.items()}
        lies = {key: self._lies(*one) for key, one in found.items()}
        facts = {key: composites.facts(node) for key, (_, _, node) in lies.items()}
        if None in facts.values():
            raise CorruptionError(f"{where} has parts that are no tensors", code="bad-value")
        _, name, own, here = composites.take(live, where, check=False)
        if _is_inference(live, own):
            self._plan.changed.append(
                f"{where}: an inference tensor can not be written; make it outside inference_mode"
            )
            return
        misfit = kind.misfit(live, facts, extra)
        if misfit is not None:
            self._plan.changed.append(f"{where}: {misfit} in the commit, {tensors.described(live)} here")
            return
        fits = (
            kind.shares
            and name == node.name
            and own.keys() == found.keys()
            and all(self._takes(lies[key][0], lies[key][2], part) for key, part in own.items())
        )
        if not fits and not kind.replaceable(live):
            self._plan.changed.append(f"{where}: its parts have other shapes, dtypes or bits in the commit")
            return
        if not fits:
            self._device = live.device
            made = self._values.value(node, path)
            self._plan.once_read(partial(_replace, kind, live, made))
            return
        for key, part in own.items():
            bits, _, stored = lies[key]
            self._values.note((*path, key), part)
            self._plan.write(stored, composites.flip(part, bits), f"{where}/{key}")
        self._values.note(path, live)
        # Not every part counts its versions with the whole.
        self._plan.once_read(partial(torch.autograd.graph.increment_version, [live]))
        if repr(extra) == repr(here):
            self._plan.once_read(partial(composites.finish, kind, live, own, where))
        else:
            made, finish = composites.compose(name, own, extra, where)
            self._plan.once_read(finish)
            self._plan.once_read(partial(_replace, kind, live, made))

    def _takes(self, bits: tuple[str, ...], stored: Any, part: Tensor) -> bool:
        if not isinstance(stored, StoredTensor) or bits != composites.bits_of(part):
            return False
        return self._plan.takes(stored, composites.flip(part, bits))


def _is_inference(live: Tensor, parts: composites.Parts) -> bool:
    # Inside inference mode what looks at the parts may be one, and they can be written.
    within = torch.is_inference_mode_enabled()
    return live.is_inference() or (not within and any(part.is_inference() for part in parts.values()))


def _replace(kind: composites.Composite, live: Tensor, made: Tensor) -> None:
    with torch.no_grad():
        kind.replace(live, made)
    torch.autograd.graph.increment_version([live])
