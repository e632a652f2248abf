"""The pure function that everything else is a loop around: `advance(state, params, data, until)`."""

from __future__ import annotations

import math

import numpy as np

from caviar.errors import DataError, ParamsError
from caviar.nn.initial import Key, epoch_order, initial_parameters
from caviar.nn.kernel import Kernel, Update
from caviar.nn.network import Network
from caviar.nn.optimizers import N_MOMENTS
from caviar.records import EPOCH_METRICS, Params, Reports
from caviar.training.dataset import Dataset
from caviar.training.hyperparameters import Hyperparameters
from caviar.training.progress import Progress
from caviar.training.state import Point, TrainState


def initial_state(key: Key, params: Params, data: Dataset) -> TrainState:
    """Return the state before the first mini-batch.

    Args:
        key: (study seed, trial number), each 0 to 2**63 - 1.
        params: of the trial.
        data: gives the shapes and the dtype.

    Raises:
        ParamsError: the params are not valid.
        SettingsError: a number of the key is out of bounds.
    """
    hyper = Hyperparameters.from_params(params)
    network = hyper.network(data.n_features, data.n_classes)
    return TrainState(
        key=key,
        parameters=initial_parameters(network, key, data.dtype),
        moments=np.zeros((N_MOMENTS[hyper.optimizer], network.n_parameters), data.dtype),
        running=np.zeros((2, network.n_units), data.dtype),
    )


def advance(state: TrainState, params: Params, data: Dataset, until: int | Point, *, kernel: Kernel) -> Progress:
    """Train to the end of an epoch, or to any mini-batch.

    Pure: the arguments are not changed, and what comes back depends on them alone. Stopping anywhere and going on gives
    the same bits as going through. The params may differ from those of an earlier call in all but the architecture and
    the optimizer; a new batch size holds for the mini-batches still to come.

    Args:
        state: where to start.
        params: of the trial.
        data: to train and validate on.
        until: epochs to have completed in all, or (epochs completed, mini-batches of the next one done).
        kernel: does the arithmetic.

    Returns:
        The progress. A loss that is not finite ends training at once; the epoch it happened in gives no report. A point
        beyond the last mini-batch of its epoch is that epoch's end; one that lies behind the state changes nothing.

    Raises:
        ParamsError: the params are not valid, or not of the network or optimizer that the state was made for.
        DataError: the data has fewer than two examples to train on, none to validate on, or another dtype than the
            state.
    """
    hyper = Hyperparameters.from_params(params)
    network = hyper.network(data.n_features, data.n_classes)
    _check(state, hyper, network, data)
    last_epoch, last_batch = until if isinstance(until, tuple) else (until, 0)
    # this call's own arrays, changed in place; the caller's stay as they are
    parameters, moments, running = state.parameters.copy(), state.moments.copy(), state.running.copy()
    epoch, position, batch, step = state.epoch, state.position, state.batch, state.step
    loss_sum, n_examples = state.loss_sum, state.n_examples
    x, y = data.train.x, data.train.y
    batch_size = min(hyper.batch_size, len(x))
    rows: list[tuple[float, float, float]] = []
    diverged_at = None

    while (epoch, batch) < (last_epoch, last_batch):
        end = len(x) if epoch < last_epoch else min(len(x), position + (last_batch - batch) * batch_size)
        update = Update(hyper.optimizer, hyper.learning_rate_at(epoch), hyper.momentum, hyper.l2)
        order = epoch_order(state.key, epoch, len(x))[position:end]
        loss_sum, n_updates = kernel.train(
            network, parameters, moments, running, step, x, y, order, batch_size, update, loss_sum
        )
        step += n_updates
        batch += n_updates
        n_trained = min(n_updates * batch_size, len(order))
        n_examples += n_trained
        position += n_trained
        if not math.isfinite(loss_sum):
            diverged_at = epoch + 1
            break
        if len(x) - position >= 2:
            continue
        val_loss, val_accuracy = kernel.evaluate(
            network, parameters, running, step, data.validation.x, data.validation.y
        )
        if not math.isfinite(val_loss):
            diverged_at = epoch + 1
            break
        rows.append((loss_sum / n_examples, val_loss, val_accuracy))
        epoch, position, batch, loss_sum, n_examples = epoch + 1, 0, 0, 0.0, 0

    state = TrainState(
        key=state.key,
        parameters=parameters,
        moments=moments,
        running=running,
        epoch=epoch,
        position=position,
        batch=batch,
        step=step,
        loss_sum=loss_sum,
        n_examples=n_examples,
    )
    values = np.array(rows, np.float64).reshape(len(rows), len(EPOCH_METRICS))  # E,3
    return Progress(state, Reports(epoch - len(rows) + 1, EPOCH_METRICS, values), diverged_at)


def _check(state: TrainState, hyper: Hyperparameters, network: Network, data: Dataset) -> None:
    """Refuse arguments that do not belong together, before the kernel meets them."""
    shapes = [(network.n_parameters,), (N_MOMENTS[hyper.optimizer], network.n_parameters), (2, network.n_units)]
    found = [state.parameters.shape, state.moments.shape, state.running.shape]
    if found != shapes:
        raise ParamsError(
            f"the state was made for another network or optimizer: expected shapes {shapes} for "
            f"{hyper.optimizer} on layers {network.layer_sizes}, found {found}; keep hidden_units, layers and optimizer"
        )
    if state.parameters.dtype != data.dtype:
        raise DataError(f"expected data in {state.parameters.dtype} as the state is, found {data.dtype}; load it so")
    if len(data.train) < 2 or not len(data.validation):
        raise DataError(
            "expected at least 2 examples to train on and 1 to validate on, "
            f"found {len(data.train)} and {len(data.validation)}; add examples"
        )


def test_metrics(state: TrainState, params: Params, data: Dataset, *, kernel: Kernel) -> dict[str, float]:
    """Return `test_loss` and `test_accuracy` of a state: for the one trial that is chosen, not for choosing.

    Raises:
        ParamsError: the params are not valid.
        DataError: the data has no examples to test on.
    """
    if not len(data.test):
        raise DataError("expected examples to test on, found none; add examples")
    network = Hyperparameters.from_params(params).network(data.n_features, data.n_classes)
    loss, accuracy = kernel.evaluate(network, state.parameters, state.running, state.step, data.test.x, data.test.y)
    return {"test_loss": loss, "test_accuracy": accuracy}
