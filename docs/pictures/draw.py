"""Draw the pictures of the README: `python docs/pictures/draw.py` sweeps and babysits for some seconds, for real."""

from __future__ import annotations

import io
import os
import re
import tempfile
from pathlib import Path

from rich.console import Console, RenderableType
from rich.terminal_theme import TerminalTheme

import caviar
from caviar.cli.display import block
from caviar.cli.panda_display import PandaDisplay

HERE = Path(__file__).resolve().parent
WIDTH, HEIGHT = 100, 26
#: Black, red, green, yellow, blue, magenta, cyan, white; then the same, bright.
_NORMAL = [(40, 44, 52), (224, 108, 117), (152, 195, 121), (229, 192, 123),
           (97, 175, 239), (198, 120, 221), (86, 182, 194), (171, 178, 191)]  # fmt: skip
THEME = TerminalTheme((30, 33, 39), (220, 223, 228), _NORMAL, [(92, 99, 112), *_NORMAL[1:]])


def draw(name: str, title: str, picture: RenderableType) -> None:
    """Write what a terminal would show as `NAME.svg`, in whatever monospaced font the reader has."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(picture)
    svg = console.export_svg(title=title, theme=THEME, unique_id=name)
    svg = re.sub(r"@font-face \{.*?\}\n", "", svg, flags=re.DOTALL)  # nothing is fetched from elsewhere
    (HERE / f"{name}.svg").write_text(re.sub(r" +$", "", svg, flags=re.MULTILINE) + "\n")


def main() -> None:
    """Sweep digits, stop in the middle for a picture, then babysit the best trial and steer it."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        study = caviar.create_study("digits")
        shown = []
        study.sweep(n_trials=64, n_workers=0, on_progress=shown.append)
        middle = next(progress for progress in shown if progress.n_complete >= 40)
        draw("sweep", "caviar sweep digits --trials 64", block(middle, study.spec.metric))

        display = PandaDisplay(Console(file=io.StringIO(), force_terminal=True, width=WIDTH, height=HEIGHT))
        trial = study.trials(sort="-val_accuracy")[32]
        with (
            study.panda(trial, epochs=80, on_event=display.tell) as panda,
            display.watch(panda, n_examples=len(study.data.train)),
        ):
            rate = panda.params["learning_rate"]
            for report in panda:
                went_back = any(past.kind == "rollback" for past in panda.interventions)
                if report.epoch == 40 and not went_back:
                    panda.set(learning_rate=100 * rate)  # too bold
                elif report.epoch == 48 and not went_back:
                    panda.rollback(epochs=8, learning_rate=8 * rate)
                elif report.epoch == 72:
                    break
            draw("panda", f"caviar panda start {trial.name} --epochs 80", display.picture())


if __name__ == "__main__":
    main()
