"""What a training run is made of, how each part is captured, compared and put back. Knows no repository.

Each part is a file here and a line in this one. A capture gives mappings for the core, without copying tensors that
already lie as they are stored. A restore is a plan, which compares everything and touches nothing, and `restore`,
which carries it out.
"""

from gradient.state.loader import ResumableLoader, resumable
from gradient.state.plan import RestorePlan, restore
from gradient.state.train_state import Captured, TrainState
from gradient.state.unflatten import to_torch

__all__ = ["Captured", "RestorePlan", "ResumableLoader", "TrainState", "restore", "resumable", "to_torch"]
