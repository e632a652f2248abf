"""The `caviar` command. stdout is data, stderr is talk; exit 0 done, 1 an error of caviar, 2 usage, 130 interrupted."""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from caviar import __version__
from caviar.cli.arguments import Json, Storage, Text
from caviar.cli.panda import panda
from caviar.errors import CaviarError

app = App(
    name="caviar",
    help="Train many neural networks at once, and babysit one. A trial is named STUDY/NUMBER.",
    version=__version__,
    help_format="plaintext",
)
db = App(name="db", help="Look after the trial database.")
app.command(panda)
app.command(db)

#: What a write to stdout fails with: it is full, broken, or closed.
_OUTPUT_IS_LOST = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)

Format = Literal["table", "json", "csv", "parquet"]


@app.command
def sweep(
    study: str,
    /,
    *,
    data: str | None = None,
    target: str | None = None,
    space: Path | None = None,
    trials: int = 64,
    epochs: int | None = None,
    seed: int | None = None,
    metric: str | None = None,
    dtype: str | None = None,
    new_space: Annotated[bool, Parameter(negative="")] = False,
    workers: int | None = None,
    address: str | None = None,
    storage: Storage = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Train many models until STUDY holds --trials of them; run again to go on.

    Parameters
    ----------
    study
        Name of the study; made if there is none.
    data
        digits, iris, wine, breast_cancer, fashion-mnist, or a .csv, .parquet, .npz file or IDX folder.
    target
        Column to predict, for tables.
    space
        Search space in TOML; the lectures' where absent.
    trials
        Trials that the study holds in the end.
    epochs
        Epochs of each trial [20].
    seed
        Seed of the study [0].
    metric
        val_accuracy, val_loss or train_loss [val_accuracy].
    dtype
        float32 or float64 [float32].
    new_space
        Make --space the next version of the study's space, if it is another: trials to come are drawn from it.
    workers
        Models trained at a time; 0 trains in this process, without Ray [every core, where there is enough to do].
    address
        HOST:PORT of a running Ray cluster [CAVIAR_ADDRESS, else a Ray started for this].
    json
        Print one JSON object on stdout at the end.
    """
    from caviar.cli.sweep import run_sweep

    return run_sweep(
        study,
        data=data,
        target=target,
        space=space,
        n_trials=trials,
        epochs=epochs,
        seed=seed,
        metric=metric,
        dtype=dtype,
        new_space=new_space,
        n_workers=workers,
        address=address,
        storage=storage,
        as_json=json,
    )


@app.command
def studies(*, tag: str | None = None, format: Literal["table", "json"] = "table", storage: Storage = None) -> int:
    """List the studies of the database.

    Parameters
    ----------
    tag
        Only those with this tag.
    format
        How to print them.
    """
    from caviar.cli.query import print_studies

    return print_studies(tag, format, storage)


@app.command
def query(
    study: str,
    /,
    *,
    where: Text | None = None,
    sort: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    limit: int | None = None,
    format: Format = "table",
    storage: Storage = None,
) -> int:
    """List trials of STUDY.

    Parameters
    ----------
    study
        Name of the study.
    where
        Expression over params, metrics and columns, as "val_accuracy > 0.95 and layers = 2".
    sort
        Name to sort by; descending with a leading -, as in --sort -val_accuracy.
    limit
        At most so many.
    format
        How to print them; parquet needs stdout to be a file or pipe.
    """
    from caviar.cli.query import print_trials

    return print_trials(study, where, sort, limit, format, storage)


@app.command
def show(
    name: Annotated[str, Parameter(name="STUDY", help="A study, or STUDY/NUMBER, a trial.")],
    /,
    *,
    tree: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
    storage: Storage = None,
) -> int:
    """Show the state and the best trial of a study, or one trial with its curve.

    Parameters
    ----------
    tree
        Draw which trials go on from which others, from which epoch, and with which settings changed.
    """
    if tree:
        from caviar.cli.tree import print_tree

        return print_tree(name, json, storage)
    from caviar.cli.query import print_study_or_trial

    return print_study_or_trial(name, json, storage)


# Loaded when they are used.
app.command(
    "caviar.cli.database:sql", help="Run one SQL statement that reads, best over the views v_trials, v_best, ..."
)
app.command("caviar.cli.database:export", help="Write STUDY to a .jsonl, .parquet or .csv file.")
app.command("caviar.cli.database:import_", name="import", help="Read a study from such a file, or studies of Optuna.")
app.command("caviar.cli.database:dashboard", help="Show the database in optuna-dashboard, on this machine.")
app.command("caviar.cli.database:delete", help="Delete STUDY with all its trials.")
app.command("caviar.cli.database:rename", help="Give STUDY another name.")
app.command("caviar.cli.database:note", help="Print or replace the note of STUDY.")
app.command("caviar.cli.database:tag", help="Tag STUDY.")
app.command("caviar.cli.doctor:doctor", help="Look at this machine, the nodes of a cluster and the database.")


@db.command
def upgrade(*, storage: Storage = None) -> int:
    """Bring the database to the schema of this caviar."""
    from caviar.bootstrap import storage_url
    from caviar.storage import upgrade as run

    before, after = run(storage_url(storage))
    print(
        f"schema {after}: nothing to do" if before == after else f"schema {before or 'none'} -> {after}",
        file=sys.stderr,
    )
    return 0


def main() -> None:
    """Run the command line and exit."""
    if sys.stdout is None:  # closed by whoever started this: what would be printed goes nowhere
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a text of a trial may hold what no encoding does
    try:
        status = app(exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()  # the last that can fail
    except CaviarError as error:
        _say(str(error))
        status = 1
    except KeyboardInterrupt:
        _say("interrupted; run the same command to go on", kind="")
        status = 130
    except BrokenPipeError:
        # whoever read our output has seen enough
        _drop_output()
        status = 0
    except OSError as error:
        if error.filename is not None or error.errno not in _OUTPUT_IS_LOST:
            raise
        _drop_output()
        _say(f"cannot write the output: {error.strerror or error}; send it to another place")
        status = 1
    except Exception as error:
        if not type(error).__module__.startswith("cyclopts"):
            raise
        _say(f"{_one_line(error)}; see `caviar --help`", kind="usage: ")
        status = 2
    sys.exit(status if isinstance(status, int) else 0)


def _drop_output() -> None:
    """Let what is left of the output go nowhere; Python would complain of it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(message: str, kind: str = "error: ") -> None:
    print(f"caviar: {kind}{_without_passwords(message)}", file=sys.stderr)


def _without_passwords(message: str) -> str:
    """Hide the password of a URL that was typed where none was expected, and is quoted back."""
    message = re.sub(r"(:/+[^\s:/@'\"]*:)[^\s'\"]*@", r"\1***@", message)
    return re.sub(r"([?&]\w*pass\w*=)[^\s&'\"]*", r"\1***", message)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
