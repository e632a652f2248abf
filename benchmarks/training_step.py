"""One training step of one model: each kernel against PyTorch, JAX, and the step's matrix products alone.

All sides run in turn in one process, on one core; printed are medians over rounds and the ratio to the kernel.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable

import numpy as np

from caviar.nn.initial import initial_parameters
from caviar.nn.kernel import KERNELS, Update, choose_kernel
from caviar.nn.network import Network

NETWORKS = [
    ((64, 32, 10), 64),
    ((64, 64, 64, 10), 64),
    ((64, 128, 64, 10), 128),
    ((784, 64, 10), 64),
    ((784, 128, 64, 10), 128),
    ((784, 256, 128, 10), 256),
]
STEPS = 20
STACK = 8
LEARNING_RATE = 0.001

Run = Callable[[], None]


def make_batches(sizes: tuple[int, ...], M: int) -> tuple[np.ndarray, np.ndarray]:
    """Return STEPS mini-batches of random examples in one array."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((M * STEPS, sizes[0])).astype(np.float32)
    return x, rng.integers(0, sizes[-1], M * STEPS)


def kernel_run(name: str, sizes: tuple[int, ...], M: int) -> Run:
    """Return a run of STEPS steps of a kernel, with batch norm and Adam."""
    network, kernel = Network(sizes), choose_kernel(name)
    x, y = make_batches(sizes, M)
    parameters = initial_parameters(network, (0, 0), "float32")
    moments, running = np.zeros((2, len(parameters)), np.float32), np.zeros((2, network.n_units), np.float32)
    order = np.random.default_rng(1).permutation(len(x))
    update = Update("adam", LEARNING_RATE, 0.9, 0.0)

    def run() -> None:
        kernel.train(network, parameters, moments, running, 0, x, y, order, M, update)

    return run


def products_run(sizes: tuple[int, ...], M: int) -> Run:
    """Return the matrix products of STEPS steps: forward, d_W and d_a of each layer, and nothing else."""
    rng = np.random.default_rng(0)
    layers = []
    for index, (D, H) in enumerate(itertools.pairwise(sizes)):
        W, a, d_z = (rng.standard_normal(s).astype(np.float32) for s in ((H, D), (D, M), (H, M)))
        layers.append((W, a, d_z, np.empty_like(d_z), np.empty_like(W), np.empty_like(a), index > 0))

    def run() -> None:
        for _ in range(STEPS):
            for W, a, d_z, z, d_W, d_a, has_below in layers:
                np.dot(W, a, out=z)
                np.dot(d_z, a.T, out=d_W)
                if has_below:
                    np.dot(W.T, d_z, out=d_a)

    return run


def torch_run(sizes: tuple[int, ...], M: int) -> Run:
    """Return STEPS steps in eager PyTorch with the fused Adam."""
    import torch

    torch.set_num_threads(1)
    modules: list[torch.nn.Module] = []
    for D, H in itertools.pairwise(sizes[:-1]):
        modules += [torch.nn.Linear(D, H, bias=False), torch.nn.BatchNorm1d(H), torch.nn.ReLU()]
    model = torch.nn.Sequential(*modules, torch.nn.Linear(sizes[-2], sizes[-1]))
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)
    loss_of = torch.nn.CrossEntropyLoss()
    x, y = map(torch.from_numpy, make_batches(sizes, M))
    order = torch.randperm(len(x))

    def run() -> None:
        for start in range(0, len(x), M):
            batch = order[start : start + M]
            optimizer.zero_grad(set_to_none=True)
            loss_of(model(x[batch]), y[batch]).backward()
            optimizer.step()

    return run


def jax_run(sizes: tuple[int, ...], M: int) -> Run:
    """Return STEPS steps of STACK equal models under jit and vmap, Adam written out; the time counts for one model."""
    import jax
    import jax.numpy as jnp

    def initial(key):
        keys = jax.random.split(key, len(sizes))
        hidden = [
            (jax.random.normal(k, (H, D)) * (2 / D) ** 0.5, jnp.ones((H, 1)), jnp.zeros((H, 1)))
            for k, D, H in zip(keys, sizes[:-2], sizes[1:-1], strict=False)
        ]
        return hidden, (jax.random.normal(keys[-1], (sizes[-1], sizes[-2])), jnp.zeros((sizes[-1], 1)))

    def loss_of(parameters, x, y):
        hidden, (W_out, b) = parameters
        a = x.T
        for W, gamma, beta in hidden:
            z = W @ a
            z = (z - z.mean(1, keepdims=True)) / jnp.sqrt(z.var(1, keepdims=True) + 1e-5)
            a = jnp.maximum(gamma * z + beta, 0)
        scores = jax.nn.log_softmax(W_out @ a + b, axis=0)
        return -scores[y, jnp.arange(M)].mean()

    def step(parameters, v, s, t, x, y):
        gradient = jax.grad(loss_of)(parameters, x, y)
        v = jax.tree.map(lambda old, g: 0.9 * old + 0.1 * g, v, gradient)
        s = jax.tree.map(lambda old, g: 0.999 * old + 0.001 * g * g, s, gradient)

        def update(p, first, second):
            return p - LEARNING_RATE * (first / (1 - 0.9**t)) / (jnp.sqrt(second / (1 - 0.999**t)) + 1e-8)

        return jax.tree.map(update, parameters, v, s), v, s

    stacked = jax.jit(jax.vmap(step, in_axes=(0, 0, 0, None, None, None)))
    parameters = jax.vmap(initial)(jax.random.split(jax.random.key(0), STACK))
    v = jax.tree.map(jnp.zeros_like, parameters)
    s = jax.tree.map(jnp.zeros_like, parameters)
    x, y = make_batches(sizes, M)
    batches = [(jnp.asarray(x[i : i + M]), jnp.asarray(y[i : i + M])) for i in range(0, len(x), M)]

    def run() -> None:
        p, first, second = parameters, v, s
        for t, (xb, yb) in enumerate(batches, 1):
            p, first, second = stacked(p, first, second, float(t), xb, yb)
        jax.block_until_ready(p)

    return run


def microseconds(runs: dict[str, Run], rounds: int) -> dict[str, list[float]]:
    """Time each run in turn, round by round, and return microseconds per step and model."""
    for run in runs.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            models = STACK if name == "jax" else 1
            times[name].append((time.perf_counter() - start) / STEPS / models * 1e6)
    return times


def main() -> None:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    makers: dict[str, Callable[[tuple[int, ...], int], Run]] = {"products": products_run}
    for name in KERNELS:
        makers[name] = lambda sizes, M, name=name: kernel_run(name, sizes, M)
    makers |= {"torch": torch_run, "jax": jax_run}
    results = []
    for sizes, M in NETWORKS:
        runs = {}
        for name, make in makers.items():
            try:
                runs[name] = make(sizes, M)
            except ImportError:
                continue
        times = microseconds(runs, options.rounds)
        medians = {name: statistics.median(values) for name, values in times.items()}
        spread = {name: [min(values), max(values)] for name, values in times.items()}
        results.append({"network": list(sizes), "batch_size": M, "microseconds": medians, "spread": spread})
        if not options.json:
            print("-".join(map(str, sizes)), M, end="")
            for name, median in medians.items():
                low, high = spread[name]
                ratio = median / medians[KERNELS[-1]]
                print(f"   {name} {median:.0f} us ({low:.0f} to {high:.0f}), {ratio:.2f}", end="")
            print(flush=True)
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
