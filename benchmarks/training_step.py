"""One training step of one model: each kernel against PyTorch, JAX, and the step's matrix products alone.

All sides run in turn in one process, on one core. "Products" are the same `np.dot` calls in a compiled loop, on arrays
of the same layout, and nothing else.
"""

from __future__ import annotations

import os

from measuring import ONE_THREAD, Results, arguments, at_least, at_most, hold_to_one_core, in_turn

os.environ.update(ONE_THREAD)
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
hold_to_one_core()  # these flags alone leave JAX a thread for each core

import itertools
from collections.abc import Callable

import numpy as np

from caviar.nn.initial import initial_parameters
from caviar.nn.kernel import KERNELS, Update, choose_kernel
from caviar.nn.network import Network

#: Layers, mini-batch, and the aims: times as fast as PyTorch and as JAX, times the products' time.
NETWORKS = [
    ((64, 32, 10), 64, 30, 1.3, 1.6),
    ((64, 64, 64, 10), 64, 11, 1.1, 1.15),
    ((64, 128, 64, 10), 128, 6, 1.6, 1.15),
    ((784, 64, 10), 64, 3, 1.2, 1.15),
    ((784, 128, 64, 10), 128, 2.4, 1.15, 1.15),
    ((784, 256, 128, 10), 256, 1.6, 1.3, 1.15),
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
    import numba

    rng = np.random.default_rng(0)
    pairs = list(itertools.pairwise(sizes))
    x = rng.standard_normal((M, sizes[0])).astype(np.float32)
    W, d_W = (tuple(rng.standard_normal((H, D)).astype(np.float32) for D, H in pairs) for _ in range(2))
    a, d_a = (tuple(rng.standard_normal((H, M)).astype(np.float32) for D, H in pairs) for _ in range(2))

    @numba.njit
    def products(W, d_W, a, d_a, x):
        for _ in range(STEPS):
            np.dot(W[0], x.T, a[0])
            for layer in range(1, len(W)):
                np.dot(W[layer], a[layer - 1], a[layer])
            for layer in range(len(W) - 1, 0, -1):
                np.dot(d_a[layer], a[layer - 1].T, d_W[layer])
                np.dot(W[layer].T, d_a[layer], d_a[layer - 1])
            np.dot(d_a[0], x, d_W[0])

    return lambda: products(W, d_W, a, d_a, x)


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


def network_of(text: str) -> tuple[tuple[int, ...], int]:
    """Return layers and mini-batch of a text such as 784-300-10,128."""
    sizes, _, batch = text.partition(",")
    return tuple(map(int, sizes.split("-"))), int(batch)


def main() -> None:
    """Print medians, ranges, ratios and aims of each network."""
    parser = arguments(__doc__)
    parser.add_argument(
        "--network", type=network_of, action="append", help="layers and mini-batch, as 784-300-10,128, without aims"
    )
    options = parser.parse_args()
    networks = [(*network, None, None, None) for network in options.network or ()] or NETWORKS
    makers: dict[str, Callable[[tuple[int, ...], int], Run]] = {
        name: lambda sizes, M, name=name: kernel_run(name, sizes, M) for name in reversed(KERNELS)
    }
    makers |= {"products": products_run, "torch": torch_run, "jax": jax_run}
    results = Results(options)
    for sizes, M, torch_aim, jax_aim, products_aim in networks:
        sides = {}
        for name, make in makers.items():
            try:
                sides[name] = make(sizes, M)
            except ImportError:
                continue
        per_step = {name: STEPS * (STACK if name == "jax" else 1) / 1e6 for name in sides}
        seconds = in_turn(sides, options.rounds)
        aims = {}
        if torch_aim is not None:
            aims = {"torch": at_least(torch_aim), "jax": at_least(jax_aim), "products": at_most(products_aim)}
        results.compare(
            f"{'-'.join(map(str, sizes))}, {M}",
            {name: [value / per_step[name] for value in values] for name, values in seconds.items()},
            ours="compiled",
            unit="us",
            aims=aims,
        )
    results.finish()


if __name__ == "__main__":
    main()
