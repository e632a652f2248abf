"""The commands: what can be typed; the work is done elsewhere, and imported when it is needed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from caviar import __version__
from caviar.cli.arguments import Json, MaybeWhole, SortKey, Storage, Text, Whole

app = App(
    name="caviar",
    help="Train many neural networks at once, and babysit one. A trial is named STUDY/NUMBER.",
    version=__version__,
    help_format="plaintext",
)
db = App(name="db", help="Look after the trial database.")
app.command(db)

Format = Literal["table", "json", "csv", "parquet"]


@app.command
def sweep(
    study: str,
    /,
    *,
    data: str | None = None,
    target: str | None = None,
    space: Path | None = None,
    trials: Whole = 64,
    epochs: MaybeWhole = None,
    seed: MaybeWhole = None,
    metric: str | None = None,
    direction: str | None = None,
    trainable: str | None = None,
    dtype: str | None = None,
    prune: bool | None = None,
    new_space: Annotated[bool, Parameter(negative="")] = False,
    workers: MaybeWhole = None,
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
        val_accuracy, val_loss or train_loss [val_accuracy]; of a trainable, what it reports.
    dtype
        float32 or float64 [float32].
    direction
        maximize or minimize: which way the metric of a trainable is better [clear for accuracies and losses].
    trainable
        FILE.py:NAME of a function, or a class, that trains the trials instead of the built-in network.
    prune
        End trials early that are behind the best of those before them [no, or as the study was made].
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
        direction=direction,
        trainable=trainable,
        prune=prune,
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
    sort: SortKey | None = None,
    limit: MaybeWhole = None,
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
app.command("caviar.cli.panda:panda", name="panda")
app.command("caviar.cli.refine:refine")
app.command("caviar.cli.advise:advise")
app.command("caviar.cli.retest:retest")
app.command("caviar.cli.model:predict")
app.command("caviar.cli.database:import_", name="import")
for _name in ("sql", "export", "dashboard", "delete", "rename", "note", "tag"):
    app.command(f"caviar.cli.database:{_name}")
app.command("caviar.cli.doctor:doctor")


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
