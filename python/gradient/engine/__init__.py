"""The engine: attach to a training run, commit its whole state, bring any commit back."""

from __future__ import annotations

from gradient.engine.engine import GradientEngine
from gradient.engine.handle import CommitHandle, RestoredStep
from gradient.engine.weights import load

__all__ = ["CommitHandle", "GradientEngine", "RestoredStep", "load"]
