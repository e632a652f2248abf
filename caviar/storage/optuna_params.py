"""Which params a study of Optuna has, and their distributions, which must not change from trial to trial."""

from __future__ import annotations

from optuna.distributions import BaseDistribution, check_distribution_compatibility, distribution_to_json
from sqlalchemy import select, update
from sqlalchemy.engine import Connection

from caviar.storage import bulk, codec, optuna_view, schema

_names = schema.study_names


class ParamBook:
    """Remembers the distributions that are in the database already, so that most trials need not look."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, str], BaseDistribution] = {}

    def forget(self, study_id: int) -> None:
        """Forget a study."""
        self._known = {key: known for key, known in self._known.items() if key[0] != study_id}

    def is_known(self, study_id: int, name: str, distribution: BaseDistribution) -> bool:
        """Return whether a param is known to the database, and this distribution goes with it."""
        known = self._known.get((study_id, name))
        try:
            if known is not None:
                check_distribution_compatibility(known, distribution)
        except ValueError:
            return False
        return known is not None

    def learn(
        self, connection: Connection, study_id: int, name: str, distribution: BaseDistribution, *, check: bool = True
    ) -> None:
        """Note the distribution of a param of a study, or check that it goes with the one there is.

        Raises:
            ValueError: it does not.
            StorageError: the name cannot be stored.
        """
        known = self._known.get((study_id, name))
        if known is None:
            codec.check_name("param", name)
            mine = (_names.c.study_id == study_id, _names.c.kind == "param", _names.c.name == name)
            row = connection.execute(select(_names.c.distribution).where(*mine)).first()
            text = distribution_to_json(distribution)
            if row is None:
                n_names = connection.execute(select(_names.c.position).where(_names.c.study_id == study_id)).all()
                connection.execute(
                    bulk.insert_into(_names, connection.dialect.name)
                    .values(study_id=study_id, kind="param", name=name, position=len(n_names), distribution=text)
                    .on_conflict_do_nothing()
                )
                return
            if row.distribution is None:
                connection.execute(update(_names).where(*mine).values(distribution=text))
                return
            known = optuna_view.distribution_of(row.distribution)
            self._known[study_id, name] = known
        if check:
            check_distribution_compatibility(known, distribution)
