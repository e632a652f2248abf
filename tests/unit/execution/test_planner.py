"""Cutting trials into slices."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caviar.execution.base import Bar, TrialTask
from caviar.execution.planner import SLICE_S, SPARE_SLICE_S, Planner
from caviar.execution.pool import Pool
from caviar.records import Direction
from caviar.training.advance import initial_state
from caviar.training.dataset import Dataset

MakeTask = Callable[..., TrialTask]


def pool_of(planner: Planner, tasks: Iterable[TrialTask]) -> Pool:
    """Return a pool of some tasks."""
    pool = Pool(planner.cost)
    pool.add([*tasks])
    return pool


@pytest.mark.parametrize(
    ("small", "large"),
    [
        ({"hidden_units": 8}, {"hidden_units": 512}),
        ({"layers": 0}, {"layers": 3}),
        ({"batch_size": 60}, {"batch_size": 2}),
    ],
)
def test_a_larger_trial_costs_more(
    data: Dataset, make_task: MakeTask, small: dict[str, int], large: dict[str, int]
) -> None:
    """More units, more layers and smaller mini-batches each cost more."""
    planner = Planner(data)

    assert 0 < planner.cost(make_task(0, small)) < planner.cost(make_task(0, large))


def test_cost_counts_the_epochs_still_to_come(data: Dataset, make_task: MakeTask) -> None:
    """Cost is proportional to the epochs between where a task starts and where it ends."""
    planner, task = Planner(data), make_task(until=3)
    begun = initial_state(task.key, task.params, data)

    assert planner.cost(make_task(until=6)) == pytest.approx(2 * planner.cost(task))
    assert planner.cost(make_task(until=3, state=begun)) == planner.cost(task)


def test_a_task_that_may_end_early_costs_less(data: Dataset, make_task: MakeTask) -> None:
    """One in three is thought to go on at each bar still to come."""
    bar = Bar(metric="val_loss", direction=Direction.MINIMIZE)
    planner, bars = Planner(data), ((3, bar), (7, bar))
    an_epoch = planner.cost(make_task(until=1))
    task = make_task(until=20, bars=bars)
    begun = replace(initial_state(task.key, task.params, data), epoch=3)

    assert planner.cost(task) == pytest.approx((3 + 4 / 3 + 13 / 9) * an_epoch)
    assert planner.cost(replace(task, state=begun)) == pytest.approx((4 + 13 / 3) * an_epoch)
    assert planner.cost(replace(task, until=5)) == pytest.approx((3 + 2 / 3) * an_epoch)


def test_params_that_are_not_valid_cost_nothing(data: Dataset, make_task: MakeTask) -> None:
    """Such a trial is planned like others, so that a worker can say what is wrong with it."""
    assert Planner(data).cost(make_task(0, {"learning_rate": -1.0})) == 0
    assert Planner(data).cost(make_task(0, {"width": 3})) == 0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(1, 4096), min_size=1, max_size=60),
    n_workers=st.integers(1, 8),
    seconds=st.floats(0, 1e6),
)
def test_each_task_is_taken_once(
    data: Dataset, make_task: MakeTask, sizes: list[int], n_workers: int, seconds: float
) -> None:
    """Slices are never empty, and together hold each task of the pool once, the most expensive first."""
    planner = Planner(data)
    planner.learn((make_task(),), seconds)
    tasks = [make_task(number, {"hidden_units": size}) for number, size in enumerate(sizes)]
    pool = pool_of(planner, tasks)

    taken: list[TrialTask] = []
    while len(pool):
        slice = planner.take(pool, n_workers)
        assert slice
        taken += slice

    assert sorted(task.number for task in taken) == list(range(len(sizes)))
    costs = [planner.cost(task) for task in taken]
    assert costs == sorted(costs, reverse=True)


def test_a_slice_is_about_a_second_of_what_was_measured(data: Dataset, make_task: MakeTask) -> None:
    """Where a trial took 0.1 s, ten go into a slice; where it took longer than a slice, one does."""
    quick, slow = Planner(data), Planner(data)
    quick.learn((make_task(),), 0.1)
    slow.learn((make_task(),), 5 * SLICE_S)
    pool = [make_task(number) for number in range(1000)]

    assert len(quick.take(pool_of(quick, pool), 1)) in (9, 10)  # the sum of ten tenths may exceed 1 by a bit
    assert len(slow.take(pool_of(slow, pool), 1)) == 1


def test_slices_shrink_towards_the_end(data: Dataset, make_task: MakeTask) -> None:
    """What is left is shared so that no worker gets more than half of its part at once."""
    planner = Planner(data)
    planner.learn((make_task(),), 0.01)
    pool = pool_of(planner, [make_task(number) for number in range(32)])

    first, second = len(planner.take(pool, 2)), len(planner.take(pool, 2))

    # a quarter of 32, then of 24; the sum of equal costs may exceed that by a bit
    assert first in (7, 8)
    assert second in (5, 6)


def test_the_last_slices_are_worth_a_call(data: Dataset, make_task: MakeTask) -> None:
    """Trials that take a hundredth of a call are not sent one by one, unless they may take longer than they seem to."""
    planner, measured = Planner(data), Planner(data)
    measured.learn((make_task(),), 1e-4)
    pool = [make_task(number) for number in range(12)]

    assert len(measured.take(pool_of(measured, pool), 2)) == 12
    assert len(planner.take(pool_of(planner, pool), 2)) <= 3


def test_the_first_slices_are_short(data: Dataset, make_task: MakeTask) -> None:
    """Before anything was measured, a slice holds less than it does once the estimate is known to be right."""
    planner, measured = Planner(data), Planner(data)
    measured.learn((make_task(),), measured.cost(make_task()))
    pool = [make_task(number) for number in range(2000)]

    assert len(planner.take(pool_of(planner, pool), 1)) < len(measured.take(pool_of(measured, pool), 1))


def test_what_was_measured_is_weighed_with_what_was_known(data: Dataset, make_task: MakeTask) -> None:
    """The first measurement counts whole, a later one three tenths; none of no time or of no work does."""
    planner, task = Planner(data), make_task()
    planner.learn((task,), 0.1)
    planner.learn((task,), 0.2)
    planner.learn((task,), 0.0)
    planner.learn((make_task(0, {"width": 3}),), 9.0)
    pool = pool_of(planner, [make_task(number) for number in range(1000)])

    # 0.7 * 0.1 + 0.3 * 0.2 = 0.13 s each
    assert len(planner.take(pool, 1)) == 7


@pytest.mark.parametrize("n_tasks", [20, 127, 128, 500])
def test_many_short_trials_are_shared(data: Dataset, make_task: MakeTask, n_tasks: int) -> None:
    """However many there are, the first slice leaves work to the other workers."""
    planner = Planner(data)
    pool = pool_of(planner, [make_task(number) for number in range(n_tasks)])
    planner.learn((pool[0],), 0.9 * SLICE_S / n_tasks)

    assert 1 <= len(planner.take(pool, 2)) <= n_tasks / 4


def test_a_spare_slice_is_short_and_takes_the_cheapest(data: Dataset, make_task: MakeTask) -> None:
    """It holds no more than bridges the time until the next, or one trial, and leaves the longest to the others."""
    planner = Planner(data)
    pool = pool_of(planner, [make_task(n, {"hidden_units": 4 + n}) for n in range(200)])
    order = [task.number for task in pool]
    planner.learn((pool[100],), 0.01)

    spare, usual = planner.take(pool, 1, spare=True), planner.take(pool, 1)

    assert [task.number for task in spare] == order[: len(spare)]
    assert len(spare) >= 2 and planner.seconds(spare) <= SPARE_SLICE_S < planner.seconds((*spare, pool[0]))
    assert [task.number for task in usual] == order[: -len(usual) - 1 : -1]


def test_where_no_trial_is_short_no_slice_is_spare(data: Dataset, make_task: MakeTask) -> None:
    """The longest come first then, and those that are begun before any other, whoever waits."""
    planner = Planner(data)
    pool = sorted((make_task(n, {"hidden_units": 4 + n}) for n in range(20)), key=planner.cost)
    planner.learn((pool[0],), 1.2 * SPARE_SLICE_S)
    state = initial_state(pool[3].key, pool[3].params, data)
    begun = replace(pool[3], number=99, state=replace(state, epoch=1))

    assert planner.take(pool_of(planner, pool), 2, spare=True) == planner.take(pool_of(planner, pool), 2)
    assert planner.take(pool_of(planner, [*pool, begun]), 2, spare=True)[0] == begun
    assert planner.take(pool_of(planner, [begun]), 2, spare=True) == (begun,)


def test_trials_that_are_yet_to_come_keep_slices_long(data: Dataset, make_task: MakeTask) -> None:
    """Slices shrink at the end of all trials, not of those that are drawn so far."""
    planner = Planner(data)
    pool = [make_task(number) for number in range(300)]
    planner.learn((pool[0],), 0.001)

    assert len(planner.take(pool_of(planner, pool), 2)) == 75
    assert len(planner.take(pool_of(planner, pool), 2, n_to_come=100_000)) == 300
