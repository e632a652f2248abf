"""The trials that wait for a worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from caviar.execution.base import TrialTask
from caviar.execution.planner import Planner
from caviar.execution.pool import Pool
from caviar.training.advance import initial_state
from caviar.training.dataset import Dataset

MakeTask = Callable[..., TrialTask]


def test_cheap_ones_come_first_and_begun_ones_last(data: Dataset, make_task: MakeTask) -> None:
    """Of equal cost the first number is taken first, from the end; a begun one before all that are not."""
    pool = Pool(Planner(data).cost)
    small, large = {"hidden_units": 4}, {"hidden_units": 64}
    begun = make_task(9, small, until=6)
    begun = replace(begun, state=replace(initial_state(begun.key, begun.params, data), epoch=1))

    pool.add([make_task(2, large), make_task(0, small), begun])
    pool.add([make_task(1, small)])

    assert [task.number for task in pool] == [1, 0, 2, 9]


def test_what_all_of_them_cost_is_kept_right(data: Dataset, make_task: MakeTask) -> None:
    """Whatever comes and goes, and where as many come as go."""
    planner = Planner(data)
    pool = Pool(planner.cost)
    pool.add([make_task(number, {"hidden_units": 4 + 10 * number}) for number in range(5)])
    before = pool.cost

    taken, other = pool.take(-1), pool.take_number(1)
    assert (taken.number, other and other.number) == (4, 1)
    assert pool.take_number(1) is None
    assert pool.cost < before
    pool.put_last(make_task(6, {"hidden_units": 400}))
    pool.put_last(make_task(7, {"hidden_units": 400}))

    assert len(pool) == 5
    assert abs(pool.cost - planner.seconds(pool)) <= 1e-12 * pool.cost
