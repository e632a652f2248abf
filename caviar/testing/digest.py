"""A study as one short text, to see whether two of them hold the same bits."""

from __future__ import annotations

import hashlib

from caviar.storage import Storage


def study_digest(storage: Storage, study: str) -> str:
    """Hash all that must not depend on how a study was swept: params, metrics and reports of each trial.

    What is measured on the test part is left out: it belongs to whichever trials were best when a sweep ended.
    """
    text = hashlib.sha256()
    for trial in storage.trials(study):
        reports = storage.reports(study, trial.number)
        metrics = {name: trial.metrics[name] for name in sorted(trial.metrics) if not name.startswith("test_")}
        params = sorted(trial.params.items())
        text.update(repr((trial.number, trial.state, trial.epoch, trial.value, params, metrics)).encode())
        text.update(repr((reports.first_epoch, sorted(reports.metrics))).encode())
        for name in sorted(reports.metrics):
            text.update(reports.values[:, reports.metrics.index(name)].tobytes())
    return text.hexdigest()
