"""The handle of a study: sweep it, babysit a trial of it, ask for its trials."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from caviar.bootstrap import checkpoint_folder, make_executor, make_sweep_executor, spool_folder
from caviar.checks import counted_to, whole
from caviar.data import NAMES, Preparation, load_prepared
from caviar.errors import DataError, DataNotFound, SettingsError, TrialNotFound
from caviar.nn.kernel import choose_kernel
from caviar.records import Intervention, Params, Reports, StudySpec, StudySummary, SweepProgress, SweepResult, Trial
from caviar.repeats import Retest, retest_study
from caviar.storage import Storage
from caviar.study_settings import MOST_TIMES, MOST_TRIALS, check_workers
from caviar.training.dataset import Dataset
from caviar.training.source import refuse_loading, unchanged
from caviar.wording import command

if TYPE_CHECKING:
    import pandas as pd

    from caviar.advising import Advice
    from caviar.model import Model
    from caviar.panda.compare import Comparison
    from caviar.panda.replay import Replay
    from caviar.panda.session import PandaSession
    from caviar.panda.shelf import Policy
    from caviar.panda.start import Nursery
    from caviar.search.refine import Refinement
    from caviar.sweep import PlanRepeats
    from caviar.training.state import State


class Study:
    """A study in a trial database.

    Make one with :func:`caviar.create_study` or :func:`caviar.load_study`. It holds no trials: each question goes to
    the database.
    """

    def __init__(self, spec: StudySpec, storage: Storage, prepared: tuple[Dataset, Preparation] | None = None) -> None:
        self.spec = spec
        self.storage = storage
        self._prepared = prepared

    def __repr__(self) -> str:
        return f"Study({self.spec.name!r}, data={self.spec.data.source!r}, seed={self.spec.seed})"

    @property
    def name(self) -> str:
        """The study's name."""
        return self.spec.name

    @property
    def data(self) -> Dataset:
        """The data, loaded when first used and checked against the fingerprint.

        Raises:
            DataNotFound: it is no longer there.
            DataError: it changed since the study was created, or the study names none.
        """
        return self._load()[0]

    @property
    def _data_of_workers(self) -> Dataset | None:
        """The data; None where code of the user's trains on its own."""
        return None if self.spec.trainable is not None and not self.spec.data.source else self.data

    @property
    def preparation(self) -> Preparation:
        """How the data was prepared, to prepare other examples alike; raises as :meth:`model` does."""
        self._refuse_own()
        return self._load()[1]

    @property
    def best_trial(self) -> Trial | None:
        """The COMPLETE trial with the best value (ties: smaller `val_loss`, then smaller number), or None."""
        return self.storage.best_trial(self.name)

    def summary(self) -> StudySummary:
        """Return the study at a glance."""
        return self.storage.summary(self.name)

    def trials(self, *, where: str | None = None, sort: str | None = None, limit: int | None = None) -> list[Trial]:
        """Return trials, filtered and sorted in the database; see :meth:`caviar.storage.Storage.trials`."""
        return self.storage.trials(self.name, where=where, sort=sort, limit=limit)

    def to_frame(self, *, where: str | None = None, sort: str | None = None, limit: int | None = None) -> pd.DataFrame:
        """Return trials as a pandas frame, params and metrics as columns; see :meth:`trials` for the arguments."""
        return self.storage.frame(self.name, where=where, sort=sort, limit=limit)

    def pages(self, *, where: str | None = None, size: int = 10_000) -> Iterator[list[Trial]]:
        """Return trials in order of number, `size` at a time: a large study need not fit in memory."""
        return self.storage.pages(self.name, where=where, size=size)

    def frame_pages(self, *, where: str | None = None, size: int = 10_000) -> Iterator[pd.DataFrame]:
        """Return the same as :meth:`pages`, as frames."""
        return self.storage.frame_pages(self.name, where=where, size=size)

    def reports(self, trial: Trial | int) -> Reports:
        """Return the curve of one trial, given by itself or its number."""
        return self.storage.reports(self.name, _number(trial))

    def sweep(
        self,
        n_trials: int,
        *,
        n_workers: int | None = None,
        address: str | None = None,
        on_progress: Callable[[SweepProgress], None] = lambda progress: None,
        is_interrupted: Callable[[], bool] = lambda: False,
    ) -> SweepResult:
        """Train until the study holds `n_trials` trials; see :func:`caviar.sweep.sweep`.

        Args:
            n_trials: in all, so that calling again does nothing, and a larger number goes on.
            n_workers: models trained at a time; None is every core, 0 trains in this process without Ray.
            address: of a running Ray cluster; None is CAVIAR_ADDRESS, else a Ray that is started for this.
            on_progress: called a few times a second.
            is_interrupted: asked as often whether to stop.
        """
        n_trials = counted_to("trials", n_trials, MOST_TRIALS)
        return self._sweep(n_trials, check_workers(n_workers), address, on_progress, is_interrupted)

    def _sweep(
        self,
        n_trials: int | None,
        n_workers: int | None,
        address: str | None,
        on_progress: Callable[[SweepProgress], None],
        is_interrupted: Callable[[], bool],
        plan_repeats: PlanRepeats | None = None,
    ) -> SweepResult:
        from caviar.sweep import sweep  # with it comes Optuna, which panda mode does without

        self.spec = self.storage.get_study(self.name)  # whose space another process may have changed meanwhile
        refuse_loading(self.name)
        spec = self.spec
        if spec.trainable is not None:
            spec = replace(spec, trainable=unchanged(spec.trainable, self.name))
        if n_trials is not None and self._is_done(n_trials):  # no Ray need be started for that
            address, n_workers = None, 0
        with ThreadPoolExecutor(1) as beside:  # while this process joins a cluster
            preparing = beside.submit(self._prepare)
            executor = make_sweep_executor(address, n_workers)
        try:
            data = preparing.result()
            return sweep(
                self.storage,
                spec,
                data,
                executor,
                n_trials or 0,
                on_progress=on_progress,
                is_interrupted=is_interrupted,
                spool_folder=spool_folder(),
                hand_over=self._hand_over,
                plan_repeats=plan_repeats,
            )
        finally:
            executor.close()

    def retest(
        self,
        n_best: int = 5,
        n_times: int = 5,
        *,
        n_workers: int | None = None,
        address: str | None = None,
        on_progress: Callable[[SweepProgress], None] = lambda progress: None,
        is_interrupted: Callable[[], bool] = lambda: False,
    ) -> list[Retest]:
        """Train the best trials again from other random bits: are their params good, or was it luck?

        Each is trained under new numbers, as trials like any other, until it has been so `n_times`: called again,
        nothing happens, and a larger number goes on. Other trials that were left unfinished stay so. Babysat trials and
        their branches are left out.

        Args:
            n_best: so many trials, those with the best values; of several with the same params the first.
            n_times: how often the params of each are trained once more.
            n_workers, address, on_progress, is_interrupted: as for :meth:`sweep`.

        Returns:
            What became of each: those that never failed first, by the mean of the new values, best first. Interrupted,
            what there is.

        Raises:
            TrialNotFound: no trial is COMPLETE.
            StudyBusy: another coordinator sweeps this study.
        """
        n_best, n_times = counted_to("best", n_best, MOST_TRIALS), counted_to("times", n_times, MOST_TIMES)
        n_workers = check_workers(n_workers)

        def train(plan: PlanRepeats) -> None:
            self._sweep(None, n_workers, address, on_progress, is_interrupted, plan)

        return retest_study(self.storage, self.spec, n_best, n_times, train)

    def refine(self, n_best: int | None = None, *, keep: bool = True) -> Refinement:
        """Narrow the space to where the best trials lie: coarse to fine.

        Looked at are trials that are COMPLETE, diverged, or were pruned for being behind, and were drawn from the space
        or from an earlier version that contains it; of several with the same params the first, and no babysat ones.
        See :func:`caviar.search.refine.refine`.

        Args:
            n_best: how many count as the best; where absent, the square root of those that are COMPLETE.
            keep: make what is narrower the next version of the study's space, from which trials to come are drawn.

        Raises:
            SettingsError: there are too few trials, or nothing to narrow.
            StudyBusy: a coordinator is sweeping the study.
        """
        from caviar.refining import refine_study

        found = refine_study(self.storage, self.storage.get_study(self.name), whole("best", n_best))
        if keep and found.is_narrower:
            found = replace(found, version=self.storage.add_space(self.name, found.space.to_dict()))
            self.spec = self.storage.get_study(self.name)
        return found

    def advise(self) -> Advice:
        """Return what the trials tell: which params matter, and what to do next; babysat trials are left out.

        Raises:
            SettingsError: the study has no space of its own.
        """
        from caviar.advising import advise

        try:
            n_validation = len(self.data.validation) if self.spec.trainable is None else None
        except DataError:  # without it, nothing is said of what chance may have done
            n_validation = None
        return advise(self.storage, self.storage.get_study(self.name), n_validation)

    def _prepare(self) -> Dataset | None:
        """Load the data and have the kernel ready, whose code the workers of this machine then find on the disk."""
        data = self._data_of_workers
        if data is None or self.spec.trainable is not None:
            return data
        choose_kernel(self.spec.kernel).prepare(self.spec.dtype)
        return data

    def panda(
        self,
        trial: Trial | int | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        epochs: int | None = None,
        more_epochs: int | None = None,
        until_stopped: bool = False,
        checkpoints: Policy | None = None,
        rules: Mapping[str, Any] | None = None,
        address: str | None = None,
        author: str | None = None,
        on_event: Callable[[str], None] = lambda line: None,
        is_interrupted: Callable[[], bool] = lambda: False,
    ) -> PandaSession:
        """Babysit one model: `with study.panda(trial) as panda: for report in panda: ...`.

        A finished trial is never changed: a new one goes on from where it ended. One that a sweep trains is handed over
        at the end of a slice. One that was babysat goes on from its last checkpoint.

        Args:
            trial: or its number; None starts a fresh model.
            params: for a fresh model, those that are not to be the space's or the default; else settings to change.
            epochs: to train in all.
            more_epochs: to train from now on.
            until_stopped: train until `stop`.
            checkpoints: which are made and kept.
            rules: that babysit, as a rules file has them; where absent, they only warn.
            address: of a Ray cluster to train on; where absent, this process trains.
            author: who steers here, for the log.
            on_event: called with each thing that people should know, as one line.
            is_interrupted: asked now and then whether to leave, with a checkpoint.

        Raises:
            PandaBusy: another process babysits it.
            RequestRejected: what is asked is not valid.
            SettingsError, TrainableError: the study is trained by a function, or by a class that has changed.
        """
        from caviar.panda.start import Horizon

        epochs, more_epochs = whole("epochs", epochs), whole("more epochs", more_epochs)
        horizon = Horizon(epochs=epochs, more_epochs=more_epochs, until_stopped=until_stopped)
        nursery = self._open_nursery(
            address, author=author, policy=checkpoints, rules=rules, on_event=on_event, is_interrupted=is_interrupted
        )
        try:
            if trial is None:
                return nursery.fresh(params or {}, horizon)
            return nursery.take(_number(trial), params or {}, horizon)
        except BaseException:
            nursery.executor.close()
            raise

    def model(
        self,
        trial: Trial | int | None = None,
        *,
        epoch: int | str | None = None,
        on_event: Callable[[str], None] | None = None,
        is_interrupted: Callable[[], bool] = lambda: False,
    ) -> Model:
        """Return the network that a trial ended with, or had on the way: `study.model().predict("new.csv")`.

        A sweep keeps no networks, since a trial of one is trained again to the same bits in the time that it took; one
        that was babysat comes from its last checkpoint.

        Args:
            trial: a COMPLETE one, or its number; None is the best.
            epoch: at whose end the network is wanted; `best` is where the study's metric was best, None the last.
            on_event: called with each thing that people should know, as one line; None warns of what is amiss.
            is_interrupted: asked now and then whether to give up.

        Raises:
            TrialNotFound: there is no such trial, or none that is COMPLETE.
            SettingsError: it has not ended well, or has no such epoch.
            DataNotFound, DataError: the data is no longer there, or changed since the study was created.
            CheckpointError: its last state cannot be had.
            KeyboardInterrupt: interrupted.
        """
        from caviar.model import model_of
        from caviar.panda.ended import state_after
        from caviar.training.state import TrainState

        self._refuse_own()
        chosen = self._chosen(trial)
        with self._nursery(None, on_event=on_event or _warn, is_interrupted=is_interrupted) as nursery:
            then, params, state = state_after(nursery, chosen, epoch)
        data, preparation = self._load()
        assert isinstance(state, TrainState)
        return model_of(replace(then, params=params), state, preparation, data.fingerprint)

    def own_model(
        self,
        trial: Trial | int | None = None,
        *,
        epoch: int | str | None = None,
        on_event: Callable[[str], None] | None = None,
        is_interrupted: Callable[[], bool] = lambda: False,
    ) -> Any:
        """Return the model of the user's own that a trial ended with, or had on the way: an object of their class.

        Args:
            trial, epoch, on_event, is_interrupted: as for :meth:`model`.

        Raises:
            TrialNotFound, CheckpointError, KeyboardInterrupt: as :meth:`model`.
            SettingsError: as :meth:`model`, or the study is not trained by a class, whose models alone have states.
            TrainableError: the file has changed, or is no longer there.
        """
        from caviar.panda.ended import own_model_in, state_after

        if self.spec.trainable is None:
            raise SettingsError(f"study {self.name!r} is trained by the built-in network: use model()")
        chosen = self._chosen(trial)
        with self._nursery(None, on_event=on_event or _warn, is_interrupted=is_interrupted) as nursery:
            return own_model_in(nursery, *state_after(nursery, chosen, epoch))

    def _chosen(self, trial: Trial | int | None) -> Trial:
        """Return a trial, or the best one."""
        found = self.best_trial if trial is None else self.storage.get_trial(self.name, _number(trial))
        if found is None:
            raise TrialNotFound(f"study {self.name!r} has no COMPLETE trial, so it has no best one; sweep it first")
        return found

    def try_params(self, trial: Trial | int, state: State, params: Params) -> None:
        """Check that a model of the user's own goes on from a state with other params; of the network, all are known.

        Raises:
            RequestRejected: it does not; the message is its own.
            SettingsError, TrainableError: as :meth:`panda`.
        """
        if self.spec.trainable is not None:
            with self._nursery(None) as nursery:
                nursery.trainer(_number(trial)).try_params(state, params)

    def replay(self, trial: Trial | int, *, address: str | None = None) -> Replay:
        """Train a babysat trial again with its interventions, and tell whether it is the same to the bit.

        Raises:
            TrialNotFound: it was never babysat.
            CheckpointError: there is nothing to start from, or to compare with.
        """
        from caviar.panda.replay import replay

        with self._nursery(address) as nursery:
            return replay(nursery, _number(trial))

    def compare(self, trial: Trial | int, *, address: str | None = None) -> list[Comparison]:
        """Train, for each intervention of a babysat trial, the same run without it: did it help?

        Raises:
            TrialNotFound: it was never babysat.
            CheckpointError: there is nothing to start from.
        """
        from caviar.panda.compare import compare

        with self._nursery(address) as nursery:
            return compare(nursery, _number(trial))

    def _load(self) -> tuple[Dataset, Preparation]:
        if self._prepared is None:
            if not self.spec.data.source and self.spec.trainable is not None:
                raise DataError(f"study {self.name!r} has no data: {self.spec.trainable.name} trains on its own")
            if not self.spec.data.source:
                raise DataError(
                    f"study {self.name!r} was made through Optuna and names no data; nothing can be trained for it here"
                )
            try:
                self._prepared = load_prepared(self.spec.data, self.spec.dtype)
            except DataNotFound as error:
                if self.spec.data.source in NAMES:
                    raise
                n_trials = max(self.summary().n_trials, 1)
                say = command("sweep", self.name, "--trials", str(n_trials), "--data", "FILE")
                raise DataNotFound(
                    f"study {self.name!r} was trained on {self.spec.data.source!r}, where nothing is now; say where it "
                    f"went: {say}"
                ) from error
        return self._prepared

    @contextmanager
    def _nursery(self, address: str | None, **settings: Any) -> Iterator[Nursery]:
        nursery = self._open_nursery(address, **settings)
        try:
            yield nursery
        finally:
            nursery.executor.close()

    def _open_nursery(self, address: str | None, **settings: Any) -> Nursery:
        from caviar.panda.adjustable import refuse_function
        from caviar.panda.start import Nursery

        spec = self.spec
        refuse_loading(self.name)
        refuse_function(spec)
        if spec.trainable is not None:
            spec = replace(spec, trainable=unchanged(spec.trainable, self.name))
        data = self._data_of_workers
        executor = make_executor(address, None if address else 0)
        try:
            executor.load(data)
        except BaseException:
            executor.close()
            raise
        root = checkpoint_folder(self.storage)
        return Nursery(storage=self.storage, spec=spec, data=data, executor=executor, root=root, **settings)

    def _refuse_own(self) -> None:
        """Refuse what the built-in network alone can do."""
        if self.spec.trainable is not None:
            raise SettingsError(
                f"study {self.name!r} is trained by {self.spec.trainable.name}, whose models are its own: only the "
                "built-in network is exported as a model and used to predict; in Python, own_model() returns yours"
            )

    def _hand_over(self, trial: Trial, state: State | None, answer: Intervention) -> None:
        from caviar.panda.found import hand_over

        hand_over(self.storage, self.spec, checkpoint_folder(self.storage), trial, state, answer)

    def _is_done(self, n_trials: int) -> bool:
        """Return whether so many trials of the study have ended, or are babysat by now."""
        summary = self.summary()
        if summary.n_trials < n_trials:
            return False
        n_ended = sum(count for state, count in summary.counts.items() if state.is_finished)
        return n_ended >= n_trials or n_ended == summary.n_trials


def _warn(line: str) -> None:
    """Let Python warn of an event that is a warning."""
    if line.startswith("WARNING: "):
        warnings.warn(line.removeprefix("WARNING: "), stacklevel=2)


def _number(trial: Trial | int) -> int:
    if isinstance(trial, Trial):
        return trial.number
    number = whole("the number of a trial", trial)
    if number is None:
        raise SettingsError("a trial is given as a Trial or by its number, found None")
    return number
