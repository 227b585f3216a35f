"""What every part of the training state is: a component that can be captured, compared and put back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from gradient.state.flatten import Flattener
from gradient.state.paths import shown

if TYPE_CHECKING:
    from gradient.state.names import ModelNames
    from gradient.state.plan import RestorePlan

Mapping = dict[Any, Any]
"""A component's mapping, as the core takes it or gives it."""


@dataclass
class Capture:
    """One capture on its way: what the parts share while they are read.

    Attributes:
        names: The attached models and their parameters' names.
        notes: Sentences for the user, each said once in the life of a `TrainState`.
        flatteners: One for each component so far; together they know the bytes.
    """

    names: ModelNames
    notes: list[str] = field(default_factory=list)
    flatteners: list[Flattener] = field(default_factory=list)

    def flattener(self, section: str, name: str) -> Flattener:
        """Give what flattens the values of one component."""
        made = Flattener(section, name)
        self.flatteners.append(made)
        return made


class Part(ABC):
    """One component of the training state, `<section>/<name>`."""

    section: ClassVar[str]

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def where(self) -> str:
        """The component as errors name it."""
        return shown(self.section, self.name, ())

    @abstractmethod
    def capture(self, capture: Capture) -> Mapping:
        """Give the component's mapping for a commit; the tensors in it still are the live ones.

        Raises:
            InvalidInputError: Something in it can not be stored; the message names it.
        """

    @abstractmethod
    def compare(self, mapping: Mapping, plan: RestorePlan, names: ModelNames) -> None:
        """Compare with a commit's mapping and plan what a restore does; touches nothing live."""

    def same(self, other: object) -> bool:
        """Tell whether another part stands for the same thing of the script's; False if that can not be told."""
        return self is other
