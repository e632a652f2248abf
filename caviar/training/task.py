"""What code of the user's is given to train: one trial."""

from __future__ import annotations

from dataclasses import dataclass, replace

from caviar.nn.initial import Key, function_seed
from caviar.records import Params, TrainableSpec
from caviar.training.dataset import Dataset, Examples


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What a function, or a class, is given: one trial to train."""

    #: Of the trial, as the space gives them; of one that is babysat, those in force.
    params: Params
    #: 0 to 2**31 - 1, of this trial alone: for all that is random. Python's, NumPy's and PyTorch's own generators are
    #: seeded with it.
    seed: int
    #: To train; a function that goes on is closed at its next report, and it may end earlier by itself. A model that is
    #: babysat may be trained further.
    epochs: int
    #: The study's name, and the trial's number.
    study: str
    number: int
    #: The study's data, split and standardised: `data.train.x` (N, D) and `data.train.y` (N,), `data.validation`,
    #: `data.test`; None where it has none. A copy for this trial alone.
    data: Dataset | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Assignment:
    """One trial that code of the user's is to train: which, and on what."""

    spec: TrainableSpec
    #: Name of the study, its metric, and the epochs of its trials.
    study: str
    metric: str
    epochs: int
    #: Of the trial.
    number: int
    #: (study seed, trial number) of all that is random; of a branch, its parent's.
    key: Key
    params: Params
    data: Dataset | None

    def task(self) -> Task:
        """Return what the code is given; what it writes into it is nobody else's."""
        return Task(
            params=dict(self.params),
            seed=function_seed(self.key),
            epochs=self.epochs,
            study=self.study,
            number=self.number,
            data=_own(self.data),
        )


def _own(data: Dataset | None) -> Dataset | None:
    """Return a copy: what a function writes into it, also through a tensor that shares it, is no other trial's."""
    if data is None:
        return None
    train, validation, test = (
        Examples(part.x.copy(), part.y.copy()) for part in (data.train, data.validation, data.test)
    )
    return replace(data, train=train, validation=validation, test=test)
