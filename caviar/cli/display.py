"""The live view of a sweep: one updating block on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from caviar.cli.tables import duration
from caviar.nn.kernel import is_compiling
from caviar.records import StudySpec, SweepProgress
from caviar.wording import counted

#: Seconds between two plain lines.
_LINE_INTERVAL_S = 2.0
#: When nothing has come for so long, people are told what is being waited for.
_PATIENCE_S = 3.0


class SweepDisplay:
    """Shows the progress of a sweep on stderr, from `with` to its end."""

    def __init__(self, spec: StudySpec) -> None:
        self._spec = spec
        self._console = Console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        self._last: SweepProgress | None = None
        self._printed_at = 0.0
        self._waiting = threading.Timer(_PATIENCE_S, self._say_what_is_awaited)
        self._waiting.daemon = True

    def __enter__(self) -> SweepDisplay:
        spec = self._spec
        epochs = f"{'up to ' if spec.prune else ''}{spec.epochs} epochs"
        what = f"{spec.kernel} kernel" if spec.trainable is None else f"trained by {spec.trainable.name}"
        data = f"{spec.data.source}, " if spec.data.source else ""
        intro = f"{spec.name}: {data}{epochs} a trial, seed {spec.seed}, {what}"
        print(intro, file=sys.stderr)
        if self._live:
            self._live.start()
        self._waiting.start()
        return self

    def _say_what_is_awaited(self) -> None:
        why = ": the kernel is compiled, once for this installation" if is_compiling(self._spec.kernel) else ""
        self._console.print(f"preparing{why}", highlight=False, soft_wrap=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._waiting.cancel()
        if self._live:
            self._live.stop()
        elif self._last is not None:
            print(_line(self._last), file=sys.stderr)

    def update(self, progress: SweepProgress) -> None:
        """Show where the sweep stands."""
        self._waiting.cancel()
        self._last = progress
        if self._live:
            self._live.update(block(progress, self._spec.metric), refresh=True)
        elif time.monotonic() - self._printed_at >= _LINE_INTERVAL_S:
            self._printed_at = time.monotonic()
            print(_line(progress), file=sys.stderr, flush=True)


def _line(progress: SweepProgress) -> str:
    best = progress.best
    parts = [
        f"{progress.n_ended}/{progress.n_trials} trials",
        *([f"{progress.n_running} running"] if progress.n_running else ()),
        *([f"{progress.n_pruned} pruned"] if progress.n_pruned else ()),
        f"{progress.n_failed} failed",
        f"{progress.trials_per_second:.1f} trials/s",
        f"best {_value(best.value)} ({best.name})" if best and best.value is not None else "no result yet",
    ]
    if progress.seconds_left is not None:
        parts.append(f"{duration(progress.seconds_left)} left")
    if progress.notice:
        parts.append(progress.notice)
    return ", ".join(parts)


def block(progress: SweepProgress, metric: str) -> Group:
    """Return what a terminal shows of a sweep."""
    bar = Table.grid(padding=(0, 2))
    left = "" if progress.seconds_left is None else f"{duration(progress.seconds_left)} left"
    bar.add_row(
        f"{progress.n_ended}/{progress.n_trials}",
        ProgressBar(total=progress.n_trials, completed=progress.n_ended, width=40),
        Text(f"{progress.trials_per_second:.1f} trials/s", style="bold"),
        Text(left, style="cyan"),
    )
    failed = Text(f"{progress.n_failed} failed", style="red" if progress.n_failed else "dim")
    # what is trained in this process is never under way when this process looks
    running = f", {progress.n_running} running" if progress.n_running else ""
    pruned = f", {progress.n_pruned} pruned" if progress.n_pruned else ""
    running = f"{progress.n_complete} done{pruned}{running} on {counted(progress.n_workers, 'worker')}, "
    lines: list[Table | Text] = [bar, Text.assemble(running, failed)]
    best = progress.best
    if best and best.value is not None:
        lines.append(Text.assemble("best ", (f"{metric} {_value(best.value)}", "bold green"), f" {best.name}"))
        lines.append(Text(", ".join(f"{name} {_short(value)}" for name, value in best.params.items()), style="dim"))
    if progress.notice:
        lines.append(Text(progress.notice, style="yellow"))
    return Group(*lines)


def _value(value: float) -> str:
    """Return a metric with as many places each time, where it is of the size of an accuracy or a loss."""
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.4g}"


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
