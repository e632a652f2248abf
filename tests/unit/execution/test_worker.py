"""What a worker makes of a slice, and the inline executor around it."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC
from typing import Any

import numpy as np
import pytest

from caviar.errors import ExecutorError
from caviar.execution.base import Bar, Slice, TrialOutcome, TrialTask
from caviar.execution.inline import InlineExecutor
from caviar.execution.worker import run_slice
from caviar.nn.kernel import Kernel
from caviar.nn.threads import blas_threads
from caviar.records import Direction, Reason, TrialState
from caviar.training.advance import advance, initial_state
from caviar.training.advance import test_metrics as metrics_of_test_part
from caviar.training.dataset import Dataset, Examples

MakeTask = Callable[..., TrialTask]
Run = Callable[..., list[TrialOutcome]]


@pytest.fixture
def run(kernel: Kernel) -> Run:
    """Train some tasks as one slice, with each kernel in turn."""
    return lambda data, *tasks: run_slice(Slice(tasks=tasks, kernel=kernel.name), data)


def bits(outcome: TrialOutcome) -> tuple[Any, ...]:
    """Return all of an outcome that must not depend on where and when it was made."""
    reports = outcome.reports
    return (
        *(outcome.number, outcome.state, outcome.epoch, outcome.reason, outcome.error),
        *(reports.first_epoch, reports.metrics, reports.values.tobytes()),
    )


def test_an_outcome_is_what_advance_returns(data: Dataset, make_task: MakeTask, run: Run, kernel: Kernel) -> None:
    """The reports are those of `advance` from the initial state, to the last bit."""
    task = make_task(3, until=4)

    (outcome,) = run(data, task)

    expected = advance(initial_state(task.key, task.params, data), task.params, data, 4, kernel=kernel)
    assert np.array_equal(outcome.reports.values, expected.reports.values)
    assert (outcome.number, outcome.state, outcome.epoch) == (3, TrialState.COMPLETE, 4)
    assert (outcome.reason, outcome.error, outcome.traceback) == (None, None, None)
    assert (outcome.test_metrics, outcome.train_state) == (None, None)


def test_outcomes_do_not_depend_on_the_company(data: Dataset, make_task: MakeTask, run: Run) -> None:
    """A trial in a slice, alone, and in a slice of another order has the same bits."""
    tasks = [make_task(number, {"hidden_units": 4 + number, "layers": number % 3}) for number in range(6)]

    together = run(data, *tasks)

    assert [outcome.number for outcome in together] == list(range(6))
    assert [bits(outcome) for outcome in together] == [bits(run(data, task)[0]) for task in tasks]
    assert [bits(outcome) for outcome in together] == [bits(outcome) for outcome in run(data, *tasks[::-1])[::-1]]


def test_a_task_goes_on_from_a_state(data: Dataset, make_task: MakeTask, run: Run) -> None:
    """Two epochs, handed over, and three more are five epochs in one go."""
    (whole,) = run(data, make_task(until=5, keep_state=True, judge=True))
    (first,) = run(data, make_task(until=2, keep_state=True))

    (second,) = run(data, make_task(until=5, keep_state=True, judge=True, state=first.train_state))

    assert second.reports.first_epoch == 3
    assert np.array_equal(second.reports.values, whole.reports.values[2:])
    assert whole.train_state is not None and second.train_state is not None
    assert np.array_equal(second.train_state.parameters, whole.train_state.parameters)
    assert second.test_metrics == whole.test_metrics


def test_a_task_that_is_done_reports_nothing(data: Dataset, make_task: MakeTask, run: Run) -> None:
    """A state that has reached its epoch comes back as it is."""
    (first,) = run(data, make_task(keep_state=True))

    (again,) = run(data, make_task(keep_state=True, state=first.train_state))

    assert (again.state, again.epoch, len(again.reports)) == (TrialState.COMPLETE, 2, 0)


def test_trials_that_reach_the_bar_are_judged(data: Dataset, make_task: MakeTask, kernel: Kernel) -> None:
    """Each that ends at least as well as the best so far; not one that goes on, nor one below."""
    tasks = [make_task(number, {"learning_rate": 10.0**-number}, until=1 + number % 2) for number in range(6)]
    going_on = make_task(9, keep_state=True)
    bar = Bar(metric="val_loss", direction=Direction.MINIMIZE)

    outcomes = run_slice(Slice(tasks=(going_on, *tasks), kernel=kernel.name, bar=bar), data)

    assert outcomes[0].test_metrics is None
    losses = [outcome.reports.last["val_loss"] for outcome in outcomes[1:]]
    best_so_far = [loss == min(losses[: index + 1]) for index, loss in enumerate(losses)]
    assert [outcome.test_metrics is not None for outcome in outcomes[1:]] == best_so_far
    assert 0 < sum(best_so_far) < len(tasks)
    high = replace(bar, value=min(losses) - 0.001)
    again = run_slice(Slice(tasks=tuple(tasks), kernel=kernel.name, bar=high), data)
    assert all(outcome.test_metrics is None for outcome in again)


def test_a_trial_is_complete_where_it_cannot_be_judged_at_the_bar(data: Dataset, make_task: MakeTask) -> None:
    """Nobody asked for it: the sweep tries again at its end."""
    broken = replace(data, test=Examples(data.test.x[:, :-1], data.test.y))
    bar = Bar(metric="val_accuracy", direction=Direction.MAXIMIZE)

    (outcome,) = run_slice(Slice(tasks=(make_task(),), kernel="numpy", bar=bar), broken)

    assert (outcome.state, outcome.test_metrics) == (TrialState.COMPLETE, None)


def test_a_task_is_judged_where_it_asks_for_it(data: Dataset, make_task: MakeTask, run: Run, kernel: Kernel) -> None:
    """It brings `test_metrics` of the state it reached, and that state."""
    task = make_task(keep_state=True, judge=True)

    (outcome,) = run(data, task)

    assert outcome.train_state is not None
    assert outcome.test_metrics == metrics_of_test_part(outcome.train_state, task.params, data, kernel=kernel)


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({"learning_rate": -1.0}, "ParamsError: learning_rate must be a number in (0, inf), found -1.0"),
        ({"learning_rate": None}, "ParamsError: learning_rate must be a number in (0, inf), found None"),
        ({"width": 3}, "ParamsError: unknown param 'width'"),
        ({"hidden_units": "8-8"}, "ParamsError: hidden_units = '8-8' names 2 layers, but layers = 1"),
    ],
)
def test_a_trial_that_raises_leaves_the_others_alone(
    data: Dataset, make_task: MakeTask, run: Run, params: dict[str, Any], error: str
) -> None:
    """It is FAIL with its error in one line and its traceback; its neighbours have the bits they have without it."""
    before, after = run(data, make_task(0), make_task(2))

    outcomes = run(data, make_task(0), make_task(1, params), make_task(2))

    failed = outcomes[1]
    assert (failed.number, failed.state, failed.reason, failed.epoch) == (1, TrialState.FAIL, Reason.ERROR, 0)
    assert failed.error is not None and failed.error.startswith(error) and "\n" not in failed.error
    assert failed.traceback is not None and failed.traceback.startswith("Traceback (most recent call last)")
    assert len(failed.reports) == 0 and failed.reports.last == {}
    assert [bits(outcomes[0]), bits(outcomes[2])] == [bits(before), bits(after)]


def test_a_diverged_trial_says_when(data: Dataset, make_task: MakeTask, run: Run) -> None:
    """A loss that is not finite is FAIL with reason `diverged`, the epoch, and no traceback."""
    diverging = make_task(0, {"learning_rate": 1e30, "layers": 0, "l2": 1e9}, until=9, keep_state=True)

    with np.errstate(all="ignore"):
        outcome, healthy = run(data, diverging, make_task(1))

    assert (outcome.state, outcome.reason) == (TrialState.FAIL, Reason.DIVERGED)
    assert outcome.error == f"diverged at epoch {outcome.epoch + 1}"
    assert (outcome.traceback, outcome.test_metrics, outcome.train_state) == (None, None, None)
    assert len(outcome.reports) == outcome.epoch < 9
    assert healthy.state is TrialState.COMPLETE


def test_outcomes_travel_with_all_reports_in_one_array(data: Dataset, make_task: MakeTask, run: Run) -> None:
    """What arrives is what was sent, with curves of different lengths, failures, states and metrics; in fewer bytes."""
    tasks = [make_task(n, until=n) for n in range(1, 30)]
    outcomes = run(data, *tasks, make_task(40, {"width": 1}), make_task(41, keep_state=True, judge=True))

    sent = pickle.dumps(outcomes)
    arrived = pickle.loads(sent)

    assert [bits(outcome) for outcome in arrived] == [bits(outcome) for outcome in outcomes]
    assert [o.traceback for o in arrived] == [o.traceback for o in outcomes]
    assert arrived[-1].test_metrics is not None
    assert arrived[-1].test_metrics == outcomes[-1].test_metrics
    assert arrived[-1].train_state is not None and outcomes[-1].train_state is not None
    assert np.array_equal(arrived[-1].train_state.parameters, outcomes[-1].train_state.parameters)
    assert len({id(o.reports.values.base.base) for o in arrived[:29]}) == 1
    assert len(sent) < len(pickle.dumps(list(outcomes)))
    assert pickle.loads(pickle.dumps(run(data))) == []


def test_an_outcome_says_where_and_when(data: Dataset, make_task: MakeTask, run: Run) -> None:
    """Times are UTC and in order; the worker is HOST:PID."""
    (outcome,) = run(data, make_task())

    assert outcome.started_at.tzinfo is UTC
    assert outcome.started_at <= outcome.finished_at
    assert outcome.seconds > 0
    assert outcome.worker.endswith(f":{os.getpid()}")


def test_training_leaves_the_number_of_blas_threads_as_it_was(data: Dataset, make_task: MakeTask, run: Run) -> None:
    """What the process had before a slice, it has after it."""
    before = blas_threads()

    run(data, make_task())

    assert blas_threads() == before


def test_a_kernel_trains_with_one_thread_in_a_process_that_has_more(kernel: Kernel) -> None:
    """Each BLAS that is loaded, SciPy's too, has one thread while a slice is trained, and its own number after it."""
    script = f"""
from caviar.nn.kernel import choose_kernel
from caviar.nn.threads import blas_threads, one_thread
print(blas_threads())
with one_thread(choose_kernel({kernel.name!r}).name):
    print(blas_threads())
print(blas_threads())
"""
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "2")

    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120)

    assert (done.stdout.split(), done.stderr) == (["2", "1", "2"], "")


def test_the_inline_executor_trains_what_is_submitted(data: Dataset, make_task: MakeTask) -> None:
    """The outcomes are those of `run_slice`, and each job is done when it is submitted."""
    slice = Slice(tasks=(make_task(0), make_task(1)), kernel="numpy")
    executor = InlineExecutor()
    executor.load(data)

    job = executor.submit(slice)

    assert executor.n_workers == 1
    assert executor.wait([job], timeout_s=0) == [job]
    assert job.slice is slice
    assert [bits(outcome) for outcome in job.result()] == [bits(outcome) for outcome in run_slice(slice, data)]


def test_a_slice_without_data_is_refused(data: Dataset, make_task: MakeTask) -> None:
    """Before `load` and after `close` there is nothing to train on."""
    slice = Slice(tasks=(make_task(),), kernel="numpy")
    executor = InlineExecutor()

    with pytest.raises(ExecutorError, match=r"^a slice was submitted before the data; call load\(\) first$"):
        executor.submit(slice)
    executor.load(data)
    executor.close()
    with pytest.raises(ExecutorError, match="before the data"):
        executor.submit(slice)


@pytest.mark.parametrize(
    ("metric", "direction"), [("val_loss", Direction.MINIMIZE), ("val_accuracy", Direction.MAXIMIZE)]
)
def test_a_trial_ends_at_the_first_bar_that_it_does_not_reach(
    data: Dataset, make_task: MakeTask, run: Run, metric: str, direction: Direction
) -> None:
    """As PRUNED, with what it had to reach; one that reaches its bars has the bits of one that has none."""
    (whole,) = run(data, make_task(until=6))
    column = whole.reports.values[:, whole.reports.metrics.index(metric)]

    def bar(epoch: int, better_by: float) -> tuple[int, Bar]:
        value = float(column[epoch - 1]) - direction.sign * better_by
        return epoch, Bar(metric=metric, direction=direction, value=value)

    (reached,) = run(data, make_task(until=6, bars=(bar(2, 0.0), bar(4, 0.0))))
    (behind,) = run(data, make_task(until=6, bars=(bar(2, 0.0), bar(4, 1e-6), bar(5, 9.0)), judge=True))

    assert bits(reached) == bits(whole)
    assert (behind.state, behind.reason, behind.epoch) == (TrialState.PRUNED, Reason.BEHIND, 4)
    assert behind.error is not None and behind.error.startswith(f"behind at epoch 4: {metric} {column[3]:.6g}, needed ")
    assert np.array_equal(behind.reports.values, whole.reports.values[:4])
    assert (behind.test_metrics, behind.train_state) == (None, None)


def test_a_bar_holds_at_the_end_of_a_part(data: Dataset, make_task: MakeTask, run: Run) -> None:
    """A trial that is trained in parts is judged once at each bar, also where a part ends there."""
    high = Bar(metric="val_accuracy", direction=Direction.MAXIMIZE, value=2.0)
    (first,) = run(data, make_task(until=2, keep_state=True))
    (at_the_end,) = run(data, make_task(until=2, bars=((2, high), (4, high)), keep_state=True))
    (later,) = run(data, make_task(until=3, state=first.train_state, bars=((2, high), (4, high)), keep_state=True))

    assert (at_the_end.state, at_the_end.epoch, at_the_end.train_state) == (TrialState.PRUNED, 2, None)
    assert (later.state, later.epoch, later.reports.first_epoch) == (TrialState.COMPLETE, 3, 3)
    (last,) = run(data, make_task(until=6, state=later.train_state, bars=((2, high), (4, high))))
    assert (last.state, last.epoch) == (TrialState.PRUNED, 4)


def test_a_trial_that_diverges_before_a_bar_has_diverged(data: Dataset, make_task: MakeTask, run: Run) -> None:
    """It has failed; no bar is looked at."""
    bar = Bar(metric="val_loss", direction=Direction.MINIMIZE, value=-1.0)

    (outcome,) = run(data, make_task(0, {"learning_rate": 1e30}, until=6, bars=((4, bar),)))

    assert (outcome.state, outcome.reason) == (TrialState.FAIL, Reason.DIVERGED)
