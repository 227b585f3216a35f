"""`GradientEngine`: what a training script calls."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Self

from gradient import _core
from gradient._types import Grads, Hyperparameters, Metrics, PathLike, Stateful
from gradient.config import GradientConfig, check_interval
from gradient.engine import attaching, committing, restoring
from gradient.engine.guards import checked_step
from gradient.engine.handle import CommitHandle, RestoredStep
from gradient.engine.open_engine import OpenEngine
from gradient.errors import AlreadyExistsError, NotFoundError
from gradient.handover import Handover

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer


class GradientEngine(OpenEngine):
    """Version control for one training run; made by `attach`.

    Usable from several threads; one call works at a time. Not usable in a forked child. Use it as a context manager,
    call `close`, or leave the end to the interpreter's: every commit is durable when `commit` returns.
    """

    @classmethod
    def attach(
        cls,
        model: nn.Module | Mapping[str, nn.Module],
        optimizer: Optimizer | Mapping[str, Optimizer] | None = None,
        scheduler: Any = None,
        *,
        workspace: PathLike | None = None,
        repo: str | None = None,
        config: GradientConfig | None = None,
        resume: str | None = None,
        scaler: Any = None,
        dataloader: Any = None,
        grads: Grads = "auto",
    ) -> Self:
        """Attach to the objects of a training run.

        The environment (`GRADIENT_*`) beats these arguments, they beat `config`, and `config` beats what is found from
        the current folder upwards. Workspace and repository are made if they are named and not there. The branch is
        fixed from here on and moves with the first commit.

        Args:
            model: The model, or models by name; a single one is called `main`.
            optimizer: The optimizer, or optimizers by name.
            scheduler: The learning-rate scheduler, or schedulers by name.
            workspace: The workspace's folder.
            repo: The repository's name in it; may be left out where there is only one.
            config: Settings of the run; it alone may name workspace and repository.
            resume: A ref to restore. `"latest"` starts fresh on a branch without commits.
            scaler: The gradient scaler, or scalers by name.
            dataloader: The data loader, or loaders by name: `gradient.resumable(loader)`, or anything else with
                `state_dict` and `load_state_dict`. Without one the data position is not captured, which is said once.
            grads: Which gradients a commit holds: `"auto"` those that changed since the last step of their optimizer,
                as in the middle of an accumulation; `"always"` all; `"never"` none. A restore sets all others to None.

        Raises:
            NotFoundError: No repository was named and none was found, or the ref means no commit.
            InvalidInputError: Several repositories could be meant; HEAD is on no branch and none was named; the
                process group has several ranks; or an argument is no good, as a bare `DataLoader`.
            StateMismatchError: The commit does not fit these objects; nothing was touched.
        """
        return attaching.attach(
            cls,
            attaching.Objects(model, optimizer, scheduler, scaler, dataloader, grads),
            workspace=workspace,
            repo=repo,
            config=config,
            resume=resume,
        )

    # Committing

    def commit(self, step: int, message: str = "", *, metrics: Metrics | None = None) -> CommitHandle:
        """Commit the whole training state; it is durable when this returns, and may change afterwards.

        Args:
            step: The step it belongs to; never below the one last committed or restored.
            message: What to say about it.
            metrics: Numbers to keep with it, by name.

        Returns:
            A handle: `str(handle)` is `branch@step`. The same step with the same state is the existing commit.

        Raises:
            InvalidInputError: The step goes backwards; a value can not be stored (its path is named); a restore broke
                off half-way; or the engine is closed or of another process.
            StateMismatchError: The restored commit held state that nobody has claimed.
            ConflictError: Another writer moved the branch. The commit is durable on the branch that the error names,
                and the next ones go on there.
        """
        with self._in_use() as session:
            return committing.commit(session, step, message, metrics)

    def autocommit(self, every: int | None) -> None:
        """Let `maybe_commit` commit every so many steps; None stops it. `GRADIENT_AUTOCOMMIT` wins over this."""
        check_interval("every", every)
        forced = self._settings.handover.autocommit
        if forced is not None and forced != every:
            self._session.say([f"GRADIENT_AUTOCOMMIT={forced} wins over autocommit(every={every})"])
            return
        self._autocommit_every = every
        self._autocommit_stopped = every is None

    def maybe_commit(self, step: int, message: str = "", *, metrics: Metrics | None = None) -> CommitHandle | None:
        """Commit if the step is a multiple of the interval of `autocommit`; None if it is not.

        Without an interval nothing is ever committed, which is said once, unless `autocommit(None)` asked for it.
        """
        if self._autocommit_every is None:
            if not self._autocommit_stopped:
                self._session.say(
                    ["maybe_commit commits nothing: it has no interval; engine.autocommit(every=...) sets one"]
                )
            return None
        if checked_step(step) % self._autocommit_every:
            return None
        return self.commit(step, message, metrics=metrics)

    # Restoring

    def resume(
        self,
        ref: str,
        *,
        hyperparameters: Hyperparameters = "commit",
        only: Collection[str] | None = None,
        strict: bool | None = None,
    ) -> RestoredStep:
        """Restore a commit bit for bit; the next commit is its child.

        Args:
            ref: `branch@step`, a branch, a tag, `latest`, `HEAD` or an id prefix.
            hyperparameters: `"script"` keeps the optimizers' hyper-parameters as the script has them now.
            only: Sections to restore, as `("model",)`; the others are left alone.
            strict: False skips what only the commit or only the script has. None is the config's `strict_resume`.

        Returns:
            The step; `.skipped` names what was left out. `current_step` is set to it.

        Raises:
            NotFoundError: The ref means no commit; the nearest are suggested.
            StateMismatchError: Commit and script differ; all differences are listed and nothing was touched.
            CorruptionError: The commit is damaged. With `partial=True` live tensors were already written, and every
                commit is refused until a restore succeeds.
        """
        with self._in_use() as session:
            step = restoring.restore_ref(session, ref, hyperparameters=hyperparameters, only=only, strict=strict)
            self._current_step = int(step)
            return step

    def resume_latest(
        self,
        *,
        skip_damaged: bool = False,
        hyperparameters: Hyperparameters = "commit",
        only: Collection[str] | None = None,
        strict: bool | None = None,
    ) -> RestoredStep:
        """Restore the tip of the engine's branch: the newest commit of its line, not the highest step.

        Args:
            skip_damaged: If the tip is damaged, take the newest commit of the branch that verifies, and say so.
                Without it the error names that commit. Finding it reads commits whole.
            hyperparameters: As in `resume`.
            only: As in `resume`.
            strict: As in `resume`.

        Raises:
            NotFoundError: The branch has no commits.
            StateMismatchError: As in `resume`.
            CorruptionError: As in `resume`, or no commit of the branch verifies.
        """
        with self._in_use() as session:
            step = restoring.restore_latest(
                session, skip_damaged=skip_damaged, hyperparameters=hyperparameters, only=only, strict=strict
            )
            self._current_step = int(step)
            return step

    def fork(
        self,
        from_ref: str,
        new_branch: str,
        *,
        reset_optimizer: bool = False,
        reset_scheduler: bool = False,
        reset_rng_seed: int | None = None,
        message: str = "",
    ) -> CommitHandle:
        """Restore a commit, commit it as the first of a new branch, and go on there.

        Args:
            from_ref: The commit to start from.
            new_branch: The branch to make.
            reset_optimizer: Empty the optimizers' state and give them the hyper-parameters they had at attach.
            reset_scheduler: Set the schedulers back to what they were at attach.
            reset_rng_seed: Seed Python, NumPy and torch with this instead of the commit's generators.
            message: What to say about the new branch's first commit.

        Raises:
            AlreadyExistsError: There is such a branch or tag; nothing was touched.
            NotFoundError: `from_ref` means no commit.
            StateMismatchError: Commit and script differ, or the commit holds state that nobody has claimed; nothing
                was touched.
        """
        with self._in_use() as session:
            _core.check_name(new_branch)
            session.repo.refresh()
            if new_branch in session.repo.branches() or new_branch in session.repo.tags():
                raise AlreadyExistsError(
                    f"there is a branch or tag {new_branch!r} already", hint="gradient branch --list; take another name"
                )
            resets = Handover(
                reset_optimizer=reset_optimizer, reset_scheduler=reset_scheduler, reset_seed=reset_rng_seed
            )
            restoring.restore_ref(session, from_ref, skip=session.reset_components(resets), complete=True)
            self._current_step = int(session.line.step or 0)
            session.reset(resets)
            return committing.commit(session, self._current_step, message, None, branch=new_branch)

    # What else belongs to the state

    def register_state(self, name: str, *, getter: Callable[[], Any], setter: Callable[[Any], object]) -> None:
        """Make the value of a getter part of every commit; a restore gives it to the setter.

        If the commit restored last holds it already, and nothing was committed since, the setter is called at once and
        the generators are set again. What was dropped is not given to the setter. If the setter fails then, the name is
        free again.

        A name that is taken goes over to the new pair, as it stands: what had it before is in no commit from then on.
        That is said, unless it is the same pair again; to keep both, give each a name of its own.

        Args:
            name: Its name in the commit.
            getter: Gives the value: numbers, texts, containers, arrays and tensors; `docs/state.md` has all of them.
            setter: Takes such a value.
        """
        with self._in_use() as session:
            restoring.register(session, "extra", name, lambda: session.state.add_external(name, getter, setter))

    def register(self, name: str, obj: Stateful) -> None:
        """Make an object with `state_dict` and `load_state_dict` part of every commit; else as `register_state`."""
        with self._in_use() as session:
            restoring.register(session, "extra", name, lambda: session.state.add_object(name, obj))

    def register_generator(self, name: str, generator: Any) -> None:
        """Make a generator of torch, NumPy or Python part of every commit; else as `register_state`."""
        with self._in_use() as session:
            restoring.register(session, "rng", name, lambda: session.state.add_generator(name, generator))

    def drop_state(self, name: str) -> None:
        """Do without state that a commit holds and this script has no place for, so that commits are taken again.

        Raises:
            NotFoundError: No restored commit holds state of that name which nobody has claimed.
        """
        with self._in_use() as session:
            bare = name.partition("/")[2] or name
            if bare not in session.offered and name not in session.offered:
                listed = ", ".join(sorted(session.offered)) or "nothing"
                raise NotFoundError(f"no unclaimed state is called {name!r}; there is {listed}", code="no-such-state")
            session.drop(name)
