"""One model on an executor: `advance` as panda mode calls it, a few mini-batches at a time."""

from __future__ import annotations

from dataclasses import dataclass

from caviar.errors import ExecutorError, ParamsError, RequestRejected, TrainableError
from caviar.execution.base import Executor, Slice, TrialOutcome, TrialTask
from caviar.records import Params, Reason, StudySpec
from caviar.training.state import Point, State

_POLL_S = 1.0
#: Training between two looks at the requests; a request waits for half of it on average.
_CHUNK_S = 0.05
#: Of the seconds that a mini-batch takes, the weight of what was measured before.
_OLD_WEIGHT = 0.7


@dataclass(frozen=True, slots=True)
class Advance:
    """What became of a few mini-batches."""

    #: None where the loss became NaN or infinite.
    state: State | None
    #: Metrics by epoch, for each epoch completed.
    metrics: dict[int, dict[str, float]]
    seconds: float


class Trainer:
    """Trains one model, here or on a cluster.

    Args:
        executor: where; the data is there.
        spec: of the study.
        n_examples: N of the training part; None where it is not known, as of models of the user's own.
        number: of the trial; with the study's seed it is the key of what is random in a fresh model.
    """

    def __init__(self, executor: Executor, spec: StudySpec, n_examples: int | None, number: int) -> None:
        self._spec = spec
        self._executor = executor
        self._number, self._key = number, (spec.seed, number)
        self._n_examples = n_examples
        self._batch_s: float | None = None

    def of(self, number: int) -> Trainer:
        """Return what trains another trial of the study at the same place."""
        return Trainer(self._executor, self._spec, self._n_examples, number)

    def advance(self, state: State | None, params: Params, until: int | Point) -> Advance:
        """Train to the end of an epoch or to a mini-batch; None is the beginning.

        Raises:
            ExecutorError: it raised an exception, or its worker was lost.
        """
        outcome = self._run(
            TrialTask(number=self._number, params=params, key=self._key, until=until, state=state, keep_state=True)
        )
        if outcome.reason == Reason.ERROR:
            kind, _, said = (outcome.error or "").partition(": ")
            if kind == TrainableError.__name__:
                raise TrainableError(said)
            raise ExecutorError(f"training failed: {outcome.error}")
        reports = outcome.reports
        metrics = {
            reports.first_epoch + index: dict(zip(reports.metrics, row, strict=True))
            for index, row in enumerate(reports.values.tolist())
        }
        reached = outcome.train_state
        if reached is not None:
            self._learn(reached.step - (state.step if state else 0), outcome.seconds)
        return Advance(reached, metrics, outcome.seconds)

    def try_params(self, state: State, params: Params) -> None:
        """Check that a model of the user's own goes on from a state with other params.

        Raises:
            RequestRejected: it refuses; the message is its own.
        """
        task = TrialTask(
            number=self._number, params=params, key=self._key, until=state.point, state=state, keep_state=True
        )
        why = self._run(task).error
        if why is not None:
            raise RequestRejected(why.removeprefix(f"{ParamsError.__name__}: "))

    def test(self, state: State, params: Params) -> dict[str, float]:
        """Return the metrics of a state on the test part."""
        outcome = self._run(
            TrialTask(number=self._number, params=params, key=self._key, until=state.point, state=state, judge=True)
        )
        return dict(outcome.test_metrics or {})

    def next_stop(self, state: State, batch_size: int | None, limit: Point | None) -> Point:
        """Return a point to train to before looking up again: the end of the epoch, or some mini-batches on.

        Args:
            state: where training is.
            batch_size: in force; of a model of the user's own nobody knows it.
            limit: not further than this.
        """
        if self._spec.trainable is not None or self._n_examples is None or batch_size is None:
            return state.epoch + 1, 0
        left = -(-(self._n_examples - state.position) // min(batch_size, self._n_examples))
        n = left if self._batch_s is None and left < 64 else max(int(_CHUNK_S / (self._batch_s or 0.01)), 1)
        # a rest of a few mini-batches is not worth another look
        stop = (state.epoch + 1, 0) if n * 1.25 >= left else (state.epoch, state.batch + n)
        return stop if limit is None else min(stop, limit)

    def close(self) -> None:
        """Release the executor."""
        self._executor.close()

    def _run(self, task: TrialTask) -> TrialOutcome:
        job = self._executor.submit(Slice.of(self._spec, [task]))
        while not self._executor.wait([job], _POLL_S):
            pass
        (outcome,) = job.result()
        return outcome

    def _learn(self, n_batches: int, seconds: float) -> None:
        if n_batches <= 0:
            return
        measured = seconds / n_batches
        known = self._batch_s
        self._batch_s = measured if known is None else _OLD_WEIGHT * known + (1 - _OLD_WEIGHT) * measured
