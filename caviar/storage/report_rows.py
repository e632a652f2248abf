"""Reports to rows and back."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

from sqlalchemy.engine import Connection

from caviar.errors import StorageError
from caviar.records import Reports
from caviar.storage import codec, schema
from caviar.storage.bulk import ReportBlock
from caviar.storage.studies import StudyKey

#: More missing epochs between two reports than this are taken for steps, not for epochs.
_WIDEST_GAP = 1_000_000


def to_block(trial_id: int, reports: Reports) -> ReportBlock:
    """Return reports as the database takes them.

    Raises:
        StorageError: the shape of the values does not fit the names.
    """
    import numpy as np  # takes longer than most queries, which need none

    values = np.asarray(reports.values, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != len(reports.metrics):
        if not values.size:
            return trial_id, 1, ()
        raise StorageError(
            f"reports of {len(reports.metrics)} metrics must have as many columns, found shape {values.shape}"
        )
    for name in reports.metrics:
        codec.check_name("metric", name)
    return trial_id, int(reports.first_epoch), codec.encode_report_rows(reports.metrics, values)


def from_rows(found: Sequence[tuple[int, str]], order: Sequence[str], trial: str) -> Reports:
    """Return the reports of rows of epoch and metrics, sorted by epoch.

    Args:
        found: epoch and JSON of the metrics.
        order: the names of metrics in the order of the columns.
        trial: name of the trial, for the message.

    Raises:
        StorageError: the epochs are too far apart.
    """
    import numpy as np

    if not found:
        return Reports(1, (), np.empty((0, 0)))
    parsed = codec.join_json(text for _, text in found)
    seen = set().union(*parsed)
    names = [name for name in order if name in seen]
    first, last = found[0][0], found[-1][0]
    if last - first >= len(found) + _WIDEST_GAP:
        raise StorageError(
            f"the reports of {trial!r} are too far apart to be epochs; read them with `caviar sql` from v_reports"
        )
    values = np.full((last - first + 1, len(names)), np.nan)
    at = [epoch - first for epoch, _ in found]
    for column, name in enumerate(names):
        values[at, column] = [float(metrics.get(name, "NaN")) for metrics in parsed]
    return Reports(first, tuple(names), values)


def read(connection: Connection, key: StudyKey, order: Sequence[str], first: int, last: int) -> dict[int, Reports]:
    """Return the reports of the trials from number `first` to `last` that have any, by number.

    Args:
        connection: in a transaction.
        key: of their study.
        order: as in `from_rows`.
        first, last: numbers; the study need not have trials of these.

    Raises:
        StorageError: the epochs of a trial are too far apart.
    """
    ids = [schema.trial_id(key.id, min(max(number, 0), schema.NUMBERS - 1)) for number in (first, last)]
    found = connection.exec_driver_sql(
        "SELECT trial_id, epoch, metrics FROM reports "
        f"WHERE trial_id BETWEEN {ids[0]:d} AND {ids[1]:d} ORDER BY trial_id, epoch"
    ).fetchall()
    by_number = {}
    for trial_id, of_trial in groupby(found, key=itemgetter(0)):
        number = trial_id % schema.NUMBERS
        by_number[number] = from_rows([(row[1], row[2]) for row in of_trial], order, f"{key.name}/{number}")
    return by_number
