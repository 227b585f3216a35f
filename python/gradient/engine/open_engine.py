"""An engine's life: where it is, who may use it, and its end."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from gradient.engine import committing
from gradient.engine.guards import check_process

if TYPE_CHECKING:
    from gradient.engine.session import Session
    from gradient.engine.settings import Settings


class OpenEngine:
    """What every engine can do, whatever it is attached to."""

    def __init__(self, session: Session, settings: Settings, *, current_step: int = 0) -> None:
        self._session = session
        self._settings = settings
        self._lock = threading.RLock()
        self._autocommit_every = settings.autocommit
        self._autocommit_stopped = False
        self._current_step = current_step
        # Runs when the engine is gone or the interpreter ends, whichever comes first; it must not know the engine.
        self._finish = weakref.finalize(self, committing.finish, session)

    def flush(self) -> None:
        """Wait for commits under way (there are none yet) and bring `manifest.json` up to date."""
        with self._in_use() as session:
            session.manifest.flush()

    @contextlib.contextmanager
    def _in_use(self) -> Iterator[Session]:
        check_process(self._session.pid)
        with self._lock:
            self._session.check_usable()
            yield self._session

    # The end

    def close(self) -> None:
        """Bring `manifest.json` up to date and let go of the repository; calling it twice is fine."""
        if os.getpid() != self._session.pid:
            return
        with self._lock:
            self._finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._session.closed else f"step {self._session.line.step}"
        return f"GradientEngine({self.repo_path!r}, {self.branch!r}, {state})"

    # Where it is

    @property
    def current_step(self) -> int:
        """The step that was restored, 0 for a fresh run; commits do not change it."""
        return self._current_step

    @property
    def workspace_path(self) -> str:
        """The workspace's folder."""
        return self._settings.location.workspace_path

    @property
    def repo_name(self) -> str:
        """The repository's name."""
        return self._settings.location.repo_name

    @property
    def repo_path(self) -> str:
        """The repository's folder."""
        return self._settings.location.repo_path

    @property
    def branch(self) -> str:
        """The branch that commits go to."""
        return self._session.line.branch
