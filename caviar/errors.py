"""Every exception of caviar, factored out so that any module can raise them without import loops.

The first line of a class docstring is the message when none is given. A message says what was expected, what was
found, and what to do next, in one line.
"""

from __future__ import annotations


class CaviarError(Exception):
    """something went wrong in caviar"""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip().splitlines()[0])


class DataError(CaviarError, ValueError):
    """the data cannot be used for training"""


class DataNotFound(DataError, LookupError):
    """there is no data set or file of that name"""


class SpaceError(CaviarError, ValueError):
    """the search space is not valid"""


class TrainableError(CaviarError, ValueError):
    """the function or class that is to train the trials cannot be used"""


class ParamsError(CaviarError, ValueError):
    """the params of a trial are not valid"""


class ShapeError(CaviarError, ValueError):
    """an array has the wrong shape"""


class SettingsError(CaviarError, ValueError):
    """a setting has a value that is not allowed"""


class StorageError(CaviarError):
    """the trial database failed"""


class StorageMissing(StorageError):
    """there is no trial database yet"""


class StorageUnreachable(StorageError):
    """the trial database does not answer"""


class StorageVersionError(StorageError):
    """the trial database has another schema version than this caviar"""


class StudyNotFound(StorageError, LookupError):
    """there is no study of that name"""


class TrialNotFound(StorageError, LookupError):
    """there is no trial of that number"""


class StudyMismatch(CaviarError, ValueError):
    """the study exists with other settings"""


class StudyBusy(CaviarError):
    """another coordinator is sweeping this study"""


class PandaBusy(CaviarError):
    """another process is babysitting this trial"""


class PandaNotRunning(CaviarError):
    """nobody babysits this trial now"""


class NoAnswer(CaviarError):
    """the babysat trial did not answer in time"""


class RequestRejected(CaviarError, ValueError):
    """what was asked of the babysat trial is not valid, or not possible now"""


class QueryError(CaviarError, ValueError):
    """the query expression is not valid"""


class ExecutorError(CaviarError):
    """the executor failed"""


class SliceLost(ExecutorError):
    """the worker that trained a slice died"""


class CheckpointError(CaviarError):
    """the checkpoint cannot be read"""


class SweepBroken(CaviarError):
    """the sweep was stopped because its first trials all failed alike"""
