"""What all benchmarks share: sides timed in turn, tables of medians and ratios, and results as JSON.

A program makes one `Results`, adds to it case by case, and calls `finish()`:

    results = Results(arguments(__doc__).parse_args())
    results.compare("64-32-10, 64", in_turn(sides), ours="compiled", aims={"torch": at_least(30)})
    results.figure("workers' time inside advance", shares, "", at_least(0.9))
    results.finish()
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

#: What a benchmark sets before it imports NumPy, directly or not.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
#: A sample lasts at least this long: shorter runs are repeated.
SAMPLE_S = 0.02
ROUNDS = 9

_PACKAGES = ("numpy", "scipy", "numba", "ray", "optuna", "sqlalchemy", "scikit-learn", "torch", "jax")


@dataclass(frozen=True)
class Aim:
    """A bound on a ratio or a figure."""

    bound: float
    is_least: bool

    def __str__(self) -> str:
        return f"at {'least' if self.is_least else 'most'} {self.bound:g}"

    def is_met_by(self, value: float) -> bool:
        """Return whether a value keeps the bound."""
        return value >= self.bound if self.is_least else value <= self.bound


def hold_to_one_core() -> None:
    """Keep this process to one core, where the system can: a pool of threads must not count as a faster side."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def at_least(bound: float) -> Aim:
    """In a comparison: ours is to be at least so many times as fast."""
    return Aim(bound, True)


def at_most(bound: float) -> Aim:
    """In a comparison: ours is to take at most so many times the other's time."""
    return Aim(bound, False)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One side of one case: its median and range, and what it is held to."""

    case: str
    side: str
    unit: str
    median: float
    low: float
    high: float
    n: int
    #: How many times as fast ours is or, with an aim of at most, how many times the side's time ours takes: the
    #: median of the ratios of each round, in which both sides ran one after the other. None for ours, and for figures.
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    aim: str | None = None
    is_met: bool | None = None
    higher_is_better: bool = False


def arguments(description: str | None, rounds: int = ROUNDS) -> argparse.ArgumentParser:
    """Return a parser with what every benchmark takes: --rounds and --json."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=rounds, help="samples of each side (%(default)s)")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    return parser


def in_turn(sides: Mapping[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Time each side once a round, after one run that does not count; return seconds per run."""
    repeats = {}
    for name, run in sides.items():
        run()
        start = time.perf_counter()
        run()
        repeats[name] = max(1, round(SAMPLE_S / max(time.perf_counter() - start, 1e-9)))
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            start = time.perf_counter()
            for _ in range(repeats[name]):
                run()
            seconds[name].append((time.perf_counter() - start) / repeats[name])
    return seconds


class Results:
    """Collects the rows of one program, and prints them as they come.

    Args:
        options: as `arguments` parses them.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._path: Path | None = options.json
        self.rows: list[Row] = []
        print(machine_line(), flush=True)

    def compare(
        self,
        case: str,
        values: Mapping[str, Sequence[float]],
        *,
        ours: str,
        unit: str = "s",
        aims: Mapping[str, Aim] | None = None,
        higher_is_better: bool = False,
    ) -> None:
        """Add and print one case: the values of each side, as many of each, of round by round.

        Args:
            case: what was done.
            values: by side; all are times, or with `higher_is_better` all are rates.
            ours: the side that the others are compared with.
            unit: of the values.
            aims: by side.
            higher_is_better: the values are rates.
        """
        print(f"\n{case}")
        for side, samples in values.items():
            aim = (aims or {}).get(side)
            ratios = []
            if side != ours:
                ratios = [theirs / mine for theirs, mine in zip(samples, values[ours], strict=True)]
                if higher_is_better != (aim is not None and not aim.is_least):
                    ratios = [1 / ratio for ratio in ratios]
            self._add(case, side, unit, samples, ratios, aim, higher_is_better)

    def figure(
        self, case: str, samples: Sequence[float], unit: str, aim: Aim | None = None, *, higher_is_better: bool = False
    ) -> None:
        """Add and print something measured that stands for itself, such as a share or a duration."""
        print()
        better = aim.is_least if aim else higher_is_better
        self._add(case, "", unit, samples, [], aim, better)

    def finish(self) -> None:
        """Write the results where --json says."""
        if self._path:
            self._path.write_text(json.dumps([asdict(row) for row in self.rows], indent=1))

    def _add(
        self,
        case: str,
        side: str,
        unit: str,
        samples: Sequence[float],
        ratios: Sequence[float],
        aim: Aim | None,
        higher_is_better: bool,
    ) -> None:
        median, ratio = statistics.median(samples), statistics.median(ratios) if ratios else None
        judged = median if ratio is None else ratio
        row = Row(
            case=case,
            side=side,
            unit=unit,
            median=median,
            low=min(samples),
            high=max(samples),
            n=len(samples),
            ratio=ratio,
            ratio_low=min(ratios, default=None),
            ratio_high=max(ratios, default=None),
            aim=str(aim) if aim else None,
            is_met=aim.is_met_by(judged) if aim else None,
            higher_is_better=higher_is_better,
        )
        self.rows.append(row)
        print(_line(row), flush=True)


def machine_line() -> str:
    """Return processor, cores, Python and the versions of what is measured, in one line."""
    return ", ".join(f"{name} {value}" for name, value in machine().items())


def machine() -> dict[str, str]:
    """Return processor, cores, Python and the versions of what is measured."""
    found = {"processor": _processor(), "cores": str(os.cpu_count()), "Python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    if "numpy" in sys.modules:
        from threadpoolctl import threadpool_info

        blas = {f"{pool['internal_api']} {pool.get('architecture', '')}".strip() for pool in threadpool_info()}
        found["BLAS"] = " and ".join(sorted(blas))
    return found


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def _line(row: Row) -> str:
    name = row.side or row.case
    text = f"  {name:24} {_number(row.median):>9} {row.unit:9} ({_number(row.low)} to {_number(row.high)})"
    if row.ratio is not None:
        text += f"   ratio {_number(row.ratio)} ({_number(row.ratio_low)} to {_number(row.ratio_high)})"
    if row.aim:
        text += f"   aim {row.aim}: {'met' if row.is_met else 'MISSED'}"
    return text


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
