"""Parameter groups of an optimizer: matched by their sets of names, and what of a script's a restore overrides."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from gradient._core import Alias, Named, StoredTensor
from gradient.state import tensors
from gradient.state.unflatten import to_torch

if TYPE_CHECKING:
    from gradient.state.plan import RestorePlan

SCRIPT_KEYS = frozenset({"foreach", "fused", "capturable", "differentiable", "param_names"})
"""Keys of a group that are the script's and no state: how a step is computed, and torch's own copy of the names."""

_SCHEDULE_KEYS = frozenset({"initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum"})
"""Keys that schedulers add to a group."""

_MOVED_KEYS = frozenset({"lr", "momentum", "betas"})
"""Keys that schedulers change as training goes on."""

KEEPING = (
    'engine.resume(ref, hyperparameters="script") keeps the script\'s, as does gradient fork --reset-optimizer, '
    "which empties the optimizer too"
)
"""How to keep the script's hyper-parameters."""

SCHEDULED_KEYS = _SCHEDULE_KEYS | _MOVED_KEYS
"""All that is a scheduler's in a group."""


def copied(group: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    """Copy those of these keys that a group has."""
    return {
        key: value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)
        for key, value in group.items()
        if key in keys
    }


def put_back(group: dict[str, Any], values: Mapping[str, Any], keys: Collection[str]) -> None:
    """Give a group what `copied` gave for these keys, and no other of them; a tensor stays the same one."""
    for key in [key for key in group if key in keys and key not in values]:
        del group[key]
    for key, value in values.items():
        live = group.get(key)
        if isinstance(value, Tensor) and isinstance(live, Tensor):
            tensors.copy_bits(live, value)
        else:
            group[key] = copy.deepcopy(value)


def stored_keys(group: Mapping[str, Any]) -> list[str]:
    """Give the keys of a group that a commit holds, sorted as the format sorts: who set one first is no state."""
    return sorted(group.keys() - SCRIPT_KEYS, key=lambda key: (len(str(key)), str(key)))


@dataclass(frozen=True)
class GroupPair:
    """A group of the commit and the live group of the same parameters."""

    stored: Mapping[str, Any]
    stored_index: int
    group: dict[str, Any]
    index: int


def match_groups(
    where: str,
    stored: Sequence[Mapping[str, Any]],
    groups: Sequence[dict[str, Any]],
    named: Sequence[Sequence[str]],
    plan: RestorePlan,
) -> list[GroupPair]:
    """Pair the commit's groups with the live ones that hold the same names; note those without a partner.

    The order of groups, and of parameters in a group, does not matter.
    """
    free = list(range(len(groups)))
    pairs: list[GroupPair] = []
    alone: list[Sequence[str]] = []
    for stored_index, values in enumerate(stored):
        wanted = set(values["params"])
        index = next((index for index in free if set(named[index]) == wanted), None)
        if index is None:
            alone.append(values["params"])
            continue
        free.remove(index)
        pairs.append(GroupPair(values, stored_index, groups[index], index))
    here = [named[index] for index in free]
    if [names for names in here if names] and [names for names in alone if names]:
        plan.changed.append(f"{where}: groups {_shown(alone)} in the commit, {_shown(here)} here")
    ours = {name for names in here for name in names}
    theirs = {name for names in alone for name in names}
    plan.missing += [f"{where}/{name}" for name in sorted(ours - theirs)]
    plan.unexpected += [f"{where}/{name}" for name in sorted(theirs - ours)]
    plan.missing += [f"{where}: an empty group" for names in here if not names]
    plan.unexpected += [f"{where}: an empty group" for names in alone if not names]
    return pairs


def compare_keys(where: str, pairs: Sequence[GroupPair], defaults: Mapping[str, Any], plan: RestorePlan) -> None:
    """Note hyper-parameters that only one side knows, which is how an optimizer of another class shows.

    A key that only the commit has is state that somebody added to the group (a scheduler, a script), and is set. One
    that only the optimizer has came with a newer torch, and keeps the script's value; that is said. Both at once are
    two different optimizers.
    """
    for pair in pairs:
        lacking = defaults.keys() - SCRIPT_KEYS - pair.stored.keys()
        foreign = pair.stored.keys() - pair.group.keys() - _SCHEDULE_KEYS - SCRIPT_KEYS
        if lacking and foreign:
            plan.missing += [f"{where}/groups/{pair.index}/{key}" for key in sorted(lacking)]
            plan.unexpected += [f"{where}/groups/{pair.index}/{key}" for key in sorted(foreign)]
        elif lacking:
            _say(plan, f"{where}: the commit has no {', '.join(sorted(lacking))}; the script's stays")


def overrides(pairs: Sequence[GroupPair], plan: RestorePlan) -> None:
    """Say in one line which hyper-parameters of the script the commit's replace, and how to keep the script's.

    What a scheduler moves (`lr`, `momentum`, `betas`) is not said where both groups started from the same
    `initial_lr`: it differs because training has gone on, not because somebody chose another value.
    """
    if plan.hyperparameters != "commit":
        return
    changes: list[str] = []
    for pair in pairs:
        stored, group = pair.stored, pair.group
        scheduled = "initial_lr" in stored and _same(stored["initial_lr"], group.get("initial_lr"))
        for key in group:
            if key in SCRIPT_KEYS or key == "params" or key not in stored or _same(stored[key], group[key]):
                continue
            if scheduled and key in _MOVED_KEYS:
                continue
            changes.append(f"{key} {_text(group[key])} -> {_text(stored[key])}")
    if changes:
        _say(
            plan, f"the commit's hyper-parameters replace the script's: {', '.join(dict.fromkeys(changes))}; {KEEPING}"
        )


def _same(node: Any, value: Any) -> bool:
    if isinstance(node, StoredTensor):
        return isinstance(value, Tensor) and not node.numpy and tensors.same_bits(to_torch(node), value.detach())
    if isinstance(node, Alias | Named):
        # Said for the group that holds the tensor itself; the other kinds are rare and only cost a sentence.
        return True
    return repr(node) == repr(value)


def _text(value: Any) -> str:
    if isinstance(value, StoredTensor):
        value = to_torch(value)
    if isinstance(value, Tensor) and value.numel() == 1:
        return f"tensor({value.item()!r})"
    return repr(value)


def _say(plan: RestorePlan, message: str) -> None:
    if message not in plan.messages:
        plan.messages.append(message)


def _shown(groups: Sequence[Sequence[str]]) -> str:
    return " + ".join(f"[{', '.join(names[:4])}{', ...' if len(names) > 4 else ''}]" for names in groups)
