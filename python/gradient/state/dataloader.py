"""Data loaders: their position, as their `state_dict` gives it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader

from gradient._types import Stateful
from gradient.errors import InvalidInputError
from gradient.state.loader import ResumableLoader
from gradient.state.part import Capture, Mapping, Part
from gradient.state.plan import Phase

if TYPE_CHECKING:
    from gradient.state.names import ModelNames
    from gradient.state.plan import RestorePlan


class DataPart(Part):
    """One loader, `data/<name>`.

    Args:
        name: The component's name.
        loader: Anything with `state_dict` and `load_state_dict`.

    Raises:
        InvalidInputError: It has no such methods; the hint says how a plain `DataLoader` gets them.
    """

    section = "data"

    def __init__(self, name: str, loader: object) -> None:
        super().__init__(name)
        if not isinstance(loader, Stateful):
            plain = isinstance(loader, DataLoader)
            raise InvalidInputError(
                f"{self.where}: a {type(loader).__name__} has no position that could be committed: it has no "
                "state_dict and load_state_dict",
                code="dataloader-unsupported",
                hint="wrap it: loader = gradient.resumable(loader), and loop over that one"
                if plain
                else "give it state_dict and load_state_dict, or leave dataloader= out",
            )
        self.loader: object = loader

    def capture(self, capture: Capture) -> Mapping:
        """See `Part.capture`."""
        loader: Any = self.loader
        return {"value": capture.flattener(self.section, self.name).value(loader.state_dict(), ("value",))}

    def compare(self, mapping: Mapping, plan: RestorePlan, names: ModelNames) -> None:
        """See `Part.compare`."""
        stored = mapping["value"]
        if isinstance(self.loader, ResumableLoader):
            plan.changed += [f"{self.where}: {difference}" for difference in self.loader.differences(stored)]
        value = plan.values(self.section, self.name).value(stored, ("value",))
        plan.then(Phase.DATA, lambda: self._load(value))

    def generators(self) -> list[Any]:
        """Give the generators that only this loader may draw from, as far as that is known."""
        return self.loader.generators() if isinstance(self.loader, ResumableLoader) else []

    def _load(self, value: Any) -> None:
        loader: Any = self.loader
        loader.load_state_dict(value)
        if isinstance(self.loader, DataLoader):
            # torchdata's StatefulDataLoader makes its iterator when it is asked for a state, and draws from torch's
            # generator for it: better now than in the script's loop, when that generator has been set.
            loader.state_dict()
