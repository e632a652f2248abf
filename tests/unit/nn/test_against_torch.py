"""The whole network against PyTorch: same weights, 20 steps of each optimizer, in float64."""

from __future__ import annotations

import numpy as np
import pytest

from caviar.nn.initial import initial_parameters
from caviar.nn.kernel import RUNNING_WEIGHT, Kernel, Update
from caviar.nn.layers import BATCH_NORM_EPSILON
from caviar.nn.network import Network
from caviar.nn.optimizers import N_MOMENTS, OPTIMIZER_EPSILON, RMSPROP_DECAY

torch = pytest.importorskip("torch", reason="torch is the oracle: pip install torch to run this")

SIZES, M, STEPS = (6, 5, 4, 3), 8, 20
LEARNING_RATE, MOMENTUM, L2 = 0.05, 0.8, 0.01
#: float64 sums in another order, over 20 steps.
TOLERANCE = 1e-9


def torch_model(network: Network, parameters: np.ndarray):
    """Return the same network in PyTorch, with the same weights."""
    hidden, output = network.views(parameters)
    modules = []
    for layer in hidden:
        H, D = layer.W.shape
        linear = torch.nn.Linear(D, H, bias=False, dtype=torch.float64)
        norm = torch.nn.BatchNorm1d(H, eps=BATCH_NORM_EPSILON, dtype=torch.float64)
        linear.weight.data = torch.tensor(layer.W)
        norm.weight.data, norm.bias.data = torch.tensor(layer.gamma), torch.tensor(layer.beta)
        modules += [linear, norm, torch.nn.ReLU()]
    C, D = output.W.shape
    last = torch.nn.Linear(D, C, dtype=torch.float64)
    last.weight.data, last.bias.data = torch.tensor(output.W), torch.tensor(output.b)
    return torch.nn.Sequential(*modules, last)


def norms_of(model) -> list:
    """Return the batch-norm layers, from the bottom up."""
    return [module for module in model if isinstance(module, torch.nn.BatchNorm1d)]


def torch_optimizer(name: str, model):
    """Return PyTorch's form of an optimizer; L2 is on weight matrices only."""
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": L2}, {"params": vectors, "weight_decay": 0.0}]
    if name == "adam":
        return torch.optim.Adam(groups, lr=LEARNING_RATE, eps=OPTIMIZER_EPSILON)
    if name == "rmsprop":
        return torch.optim.RMSprop(groups, lr=LEARNING_RATE, alpha=RMSPROP_DECAY, eps=OPTIMIZER_EPSILON)
    if name == "sgd":
        return torch.optim.SGD(groups, lr=LEARNING_RATE)
    optimizer = torch.optim.SGD(groups, lr=LEARNING_RATE, momentum=MOMENTUM, dampening=MOMENTUM)
    for parameter in model.parameters():
        # without it PyTorch starts from the first gradient, undamped; the lectures start from zero
        optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


@pytest.mark.parametrize("optimizer", sorted(N_MOMENTS))
def test_twenty_steps_agree_with_torch(kernel: Kernel, optimizer: str) -> None:
    """Weights, gammas, betas, losses and running statistics agree after 20 steps on 20 mini-batches."""
    rng = np.random.default_rng(11)
    network = Network(SIZES)
    parameters = initial_parameters(network, (5, 6), "float64")
    model = torch_model(network, parameters.copy())
    for norm in norms_of(model):
        norm.running_var.zero_()  # as ours: both averages start at zero
    x, y = rng.standard_normal((M * STEPS, SIZES[0])), rng.integers(0, SIZES[-1], M * STEPS)

    torch_step = torch_optimizer(optimizer, model)
    torch_loss = 0.0
    for start in range(0, len(x), M):
        torch_step.zero_grad()
        scores = model(torch.tensor(x[start : start + M]))
        loss = torch.nn.functional.cross_entropy(scores, torch.tensor(y[start : start + M]))
        loss.backward()
        torch_step.step()
        torch_loss += loss.item() * M
    moments = np.zeros((N_MOMENTS[optimizer], len(parameters)))
    running = np.zeros((2, network.n_units))
    update = Update(optimizer, LEARNING_RATE, MOMENTUM, L2)
    loss_sum, n = kernel.train(network, parameters, moments, running, 0, x, y, np.arange(len(x)), M, update)

    expected = np.concatenate([p.detach().numpy().ravel() for p in model.parameters()])
    assert n == STEPS
    assert loss_sum == pytest.approx(torch_loss, rel=TOLERANCE)
    assert parameters == pytest.approx(expected, rel=TOLERANCE, abs=TOLERANCE)
    # PyTorch averages the unbiased variance, divided by M - 1; ours is divided by M
    means = np.concatenate([norm.running_mean.numpy() for norm in norms_of(model)])
    variances = np.concatenate([norm.running_var.numpy() for norm in norms_of(model)]) * (M - 1) / M
    assert running == pytest.approx(np.stack([means, variances]), rel=TOLERANCE, abs=TOLERANCE)


def test_evaluation_agrees_with_torch(kernel: Kernel) -> None:
    """Given the corrected running statistics, PyTorch in evaluation mode has the same loss and accuracy."""
    rng = np.random.default_rng(12)
    network = Network(SIZES)
    parameters = initial_parameters(network, (5, 7), "float64")
    running, step = rng.random((2, network.n_units)), 3
    x, y = rng.standard_normal((600, SIZES[0])), rng.integers(0, SIZES[-1], 600)

    loss, accuracy = kernel.evaluate(network, parameters, running, step, x, y)

    model, start = torch_model(network, parameters).eval(), 0
    for norm in norms_of(model):
        units = slice(start, start + norm.num_features)
        start = units.stop
        mean, variance = running[:, units] / (1 - RUNNING_WEIGHT**step)
        norm.running_mean, norm.running_var = torch.tensor(mean), torch.tensor(variance)
    with torch.no_grad():
        scores = model(torch.tensor(x))
        expected = torch.nn.functional.cross_entropy(scores, torch.tensor(y)).item()
    assert loss == pytest.approx(expected, rel=TOLERANCE)
    assert accuracy == np.mean(scores.argmax(dim=1).numpy() == y)
