"""The live view of one model: curves and settings on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from caviar.cli.panda_rows import kept_epochs
from caviar.cli.plot import Curve, plot, thinned
from caviar.cli.tables import duration, short, shown
from caviar.panda.course import STEERING
from caviar.panda.session import PandaSession
from caviar.panda.watch import History
from caviar.records import Direction, Report, TrialState
from caviar.training.hyperparameters import Hyperparameters

#: Seconds between two plain lines about epochs; what happens is always told.
_LINE_S = 2.0
#: Seconds between two pictures at least, and how many times longer than drawing one this is: a model that is trained
#: in this process gets the rest.
_FRAME_S = 0.15
_REST_RATIO = 25.0
#: Speed is measured over so many seconds.
_SPEED_S = 5.0
#: Lines of a picture besides plots and last events: title, metrics, settings, pace, checkpoints; and one left free.
_OTHER_LINES = 6
#: Last events that are shown, at least where there is room, and at most.
_LEAST_LINES, _MOST_LINES = 4, 8
_MOST_PLOT_LINES = 22
#: Characters from which on there is room for two plots side by side.
_TWO_PLOTS = 64
_BAR_WIDTH = 16


#: Metrics that one plot shows, each with its name there and its colour.
_Curves = dict[str, tuple[str, str]]
_OF_NETWORK: tuple[_Curves, _Curves] = (
    {"train_loss": ("train", "cyan"), "val_loss": ("val", "yellow")},
    {"val_accuracy": ("val", "green")},
)
#: Of the metrics of a model of the user's own, in one plot.
_COLOURS = ("yellow", "cyan", "green")


class PandaDisplay:
    """Shows one model. Pictures are drawn on a thread of their own, from what training leaves to look at.

    Args:
        console: where; stderr, where absent.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._is_plain = not self._console.encoding.lower().startswith("utf")
        #: What happened last, and how often one after the other.
        self._lines: deque[tuple[str, int]] = deque(maxlen=50)
        self._live: Live | None = None
        self._printed_at = 0.0
        self._speed = Speed()
        self._history: History = {}
        self._abandoned: History = {}

    def tell(self, line: str) -> None:
        """Show something that happened; of the same again and again, how often."""
        line = shown(line)  # authors and the words of requests are in it
        if self._lines and self._lines[-1][0] == line:
            self._lines[-1] = (line, self._lines[-1][1] + 1)
        else:
            self._lines.append((line, 1))
        if self._live is None:
            print(f"caviar: {line}", file=sys.stderr, flush=True)
        elif line.startswith(("WARNING", "rejected")):  # to be read later, too
            self._live.console.print(Text(line, style="yellow"))

    @contextmanager
    def watch(self, panda: PandaSession, *, n_examples: int | None) -> Iterator[None]:
        """Show a session until it is left.

        Args:
            panda: the session.
            n_examples: of the training part; None where nobody knows what an epoch of the model trains on.
        """
        self._panda, self._n_examples = panda, n_examples or 1
        self._is_own = n_examples is None
        if not self._console.is_terminal:
            of = "until stopped" if panda.epochs is None else f"{panda.epochs} epochs in all"
            print(f"{panda.trial.name}: at epoch {panda.epoch}, {of}", file=sys.stderr, flush=True)
            yield
            self._print_line(panda)
            return
        self._live = Live(console=self._console, auto_refresh=False, transient=False)
        ended = threading.Event()
        thread = threading.Thread(target=self._draw_until, args=(ended,), name="panda display", daemon=True)
        with self._live:
            thread.start()
            try:
                yield
            finally:
                ended.set()
                thread.join()
        self._live = None

    def update(self, report: Report) -> None:
        """Show an epoch, where there is no terminal."""
        if self._live is None and time.monotonic() - self._printed_at >= _LINE_S:
            self._print_line(self._panda)

    def _print_line(self, panda: PandaSession) -> None:
        self._printed_at = time.monotonic()
        metrics = panda.history.get(panda.epoch, {})
        parts = [f"epoch {panda.epoch}", *(f"{name} {value:.4g}" for name, value in metrics.items())]
        self._speed.look(panda.epoch * self._n_examples + panda.state.position)
        if rate := self._speed.examples_per_s:
            parts.append(f"{rate / self._n_examples:.3g} epochs/s")
        print(", ".join(parts), file=sys.stderr, flush=True)

    def _draw_until(self, ended: threading.Event) -> None:
        assert self._live is not None
        rest = 0.0
        while not ended.wait(rest):
            begun = time.monotonic()
            self._live.update(self.picture(), refresh=True)
            rest = max(_FRAME_S, _REST_RATIO * (time.monotonic() - begun))
        self._live.update(self.picture(), refresh=True)

    def picture(self) -> Group:
        """Return what is to be seen now."""
        panda, (width, height) = self._panda, self._console.size
        self._remember_abandoned(panda)
        self._speed.look(panda.state.epoch * self._n_examples + panda.state.position)
        # one line is left free: a picture as high as the terminal would scroll it
        n_plot = max(min(height - _OTHER_LINES - _LEAST_LINES, _MOST_PLOT_LINES), 5)
        n_last = max(min(height - _OTHER_LINES - n_plot, _MOST_LINES), 1)
        last = [f"{line} ({n} times)" if n > 1 else line for line, n in [*self._lines][-n_last:]]
        hint = f"Ctrl-C leaves a checkpoint; steer it from another terminal: caviar panda set {panda.trial.name} ..."
        lines = [
            _header(panda, self._is_plain),
            _metrics(panda),
            *self._plots(panda, width, n_plot),
            _settings(panda),
            self._pace(panda),
            _checkpoints(panda),
            *(Text(line, style="yellow" if "WARNING" in line else "dim") for line in last or [hint]),
        ]
        for line in lines:
            line.no_wrap, line.overflow = True, "crop" if self._is_plain else "ellipsis"
        return Group(*lines[: height - 1])

    def _plots(self, panda: PandaSession, width: int, height: int) -> list[Text]:
        history = dict(panda.history)  # it may grow while we look
        marks = [i.epoch for i in panda.interventions if i.epoch is not None and i.kind in STEERING]
        columns = (width - 1) // 2 if width >= _TWO_PLOTS else width

        def draw(title: str, names: dict[str, tuple[str, str]], *, may_be_log: bool) -> list[Text]:
            gone = [(thinned(self._abandoned, metric, columns), "", "bright_black", True) for metric in names]
            now = [
                (thinned(history, metric, columns), label, style, metric.startswith("train"))
                for metric, (label, style) in names.items()
            ]
            curves = [Curve(points=p, name=n, style=s, is_dotted=d) for p, n, s, d in (*gone, *now)]
            size = {"width": columns, "height": height}
            return plot(title, curves, **size, marks=marks, may_be_log=may_be_log, is_plain=self._is_plain)

        losses, gains = _OF_NETWORK if not self._is_own else _of_own_model(panda, history)
        left, right = ("less is better", "more is better") if self._is_own else ("loss", "accuracy")
        plots = [draw(left, losses, may_be_log=True)] if losses or not gains else []
        if gains and (width >= _TWO_PLOTS or not plots):
            # by powers of ten, an accuracy would show little of what is near 1
            plots.append(draw(right, gains, may_be_log=False))
        if len(plots) == 1:
            return plots[0]
        left_plot, right_plot = plots
        for one, other in zip(left_plot, right_plot, strict=True):
            one.pad_right(columns + 1 - one.cell_len)
            one.append_text(other)
        return left_plot

    def _remember_abandoned(self, panda: PandaSession) -> None:
        """Keep the part of the curves that a rollback has left behind, so that it can be seen beside the new one."""
        if panda.history is self._history:
            return
        backs = [i for i in panda.interventions if i.kind == "rollback" and i.after]
        if self._history and backs:
            target = (backs[-1].after or {})["epoch"]
            self._abandoned = {e: m for e, m in self._history.items() if e >= target}
        self._history = panda.history

    def _pace(self, panda: PandaSession) -> Text:
        rate = self._speed.examples_per_s
        text = Text(" ")
        if not rate:
            return text.append("paused" if panda.is_paused else "measuring the speed ...", "dim")
        text.append(f"{rate / self._n_examples:,.3g} epochs/s", "bold")
        if not self._is_own:
            text.append(f"  {rate:,.0f} examples/s")
        text.append(f"  trained for {duration(panda.seconds)}")
        if panda.epochs is not None and not panda.is_over:
            left = panda.epochs * self._n_examples - panda.state.epoch * self._n_examples - panda.state.position
            text.append(f"  {duration(max(left, 0) / rate)} left", "cyan")
        return text


class Speed:
    """Examples per second over the last seconds, from looks at how many there were."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, float]] = deque()
        self._total = self._seen = 0.0

    def look(self, n_examples: float) -> None:
        """Take how many examples lie behind; fewer than before are a rollback, and count for nothing."""
        if self._looks:
            self._total += max(n_examples - self._seen, 0.0)
        self._seen = n_examples
        now = time.monotonic()
        self._looks.append((now, self._total))
        while len(self._looks) > 2 and now - self._looks[0][0] > _SPEED_S:
            self._looks.popleft()

    @property
    def examples_per_s(self) -> float:
        """0 where nothing was trained."""
        if len(self._looks) < 2:
            return 0.0
        (t0, n0), (t1, n1) = self._looks[0], self._looks[-1]
        return (n1 - n0) / (t1 - t0) if t1 > t0 else 0.0


def _header(panda: PandaSession, is_plain: bool) -> Text:
    trial, epoch, epochs = panda.trial, panda.epoch, panda.epochs
    text = Text(" ").append(trial.name, "bold")
    if trial.parent:
        text.append(f" from epoch {trial.parent_epoch} of {trial.parent}", "dim")
    word, style = (
        ("PAUSED", "bold yellow") if panda.is_paused and not panda.is_over else (trial.state.value, "bold green")
    )
    text.append("  ").append(word, "bold red" if trial.state is TrialState.FAIL else style)
    text.append("  epoch ").append(str(epoch), "bold")
    if epochs is None:
        text.append(", until stopped")
    else:
        n = round(_BAR_WIDTH * min(epoch / epochs, 1.0))
        done, left = ("#", ".") if is_plain else ("━", "━")
        text.append(f" of {epochs} ").append(done * n, "green").append(left * (_BAR_WIDTH - n), "bright_black")
    return text


def _metrics(panda: PandaSession) -> Text:
    text = Text()
    for name, value in panda.history.get(panda.epoch, {}).items():
        text.append(f"{'  ' if text else ' '}{name} ").append(f"{value:.4g}", "bold")
    return text


def _of_own_model(panda: PandaSession, history: History) -> tuple[_Curves, _Curves]:
    """Return the metrics of which less is better, and those of which more is, each with its name and colour."""
    reported: Mapping[str, float] = history[max(history)] if history else {}
    found: tuple[_Curves, _Curves] = {}, {}
    for name in sorted(reported, key=lambda name: name != panda.spec.metric):  # the study's own in any case
        way = panda.spec.direction_of(name)
        curves = found[way is Direction.MAXIMIZE]
        if way is not None and len(curves) < len(_COLOURS):
            curves[name] = (name, _COLOURS[len(curves)])
    return found


def _settings(panda: PandaSession) -> Text:
    params = panda.params
    if panda.spec.trainable is not None:
        return Text(" ").append("  ".join(f"{name} {short(value)}" for name, value in params.items()))
    rate, decay = params["learning_rate"], params["learning_rate_decay"]
    text = Text(" learning_rate ").append(short(rate), "bold")
    if decay:
        text.append(f" (now {Hyperparameters.from_params(params).learning_rate_at(panda.epoch):.3g})")
    text.append(f"  {params['optimizer']}")
    if params["optimizer"] == "momentum":
        text.append(f" {params['momentum']:.4g}")
    text.append(f"  batch_size {params['batch_size']}")
    for name, label in (("l2", "l2"), ("learning_rate_decay", "decay")):
        if params[name]:
            text.append(f"  {label} {params[name]:.4g}")
    return text


def _checkpoints(panda: PandaSession) -> Text:
    kept = [c for c in panda.checkpoints if not c.batch]
    text = Text(f" checkpoints {kept_epochs(kept)}")
    best = panda.best_epoch
    if best is not None and (metrics := panda.history.get(best)):
        name = panda.spec.metric
        text.append(f"  best epoch {best}", "bold").append(f" ({name} {metrics[name]:.4f})")
    return text
