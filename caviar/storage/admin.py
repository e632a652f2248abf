"""What is done to a whole study: another name, another space, notes and tags, and its end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete as delete_from
from sqlalchemy import func, insert, select, update
from sqlalchemy.engine import Connection

from caviar.errors import SettingsError
from caviar.records import TrainableSpec
from caviar.storage import bulk, codec, schema
from caviar.storage.base import StudyNotes

_LONGEST_TAG = 100


def add_space(connection: Connection, study_id: int, space: str) -> int:
    """Add a version of a study's space, as JSON; return its number."""
    versions = schema.spaces.c
    last = connection.execute(select(func.max(versions.version)).where(versions.study_id == study_id)).scalar() or 0
    connection.execute(
        insert(schema.spaces).values(study_id=study_id, version=last + 1, space=space, created_at=datetime.now(UTC))
    )
    return int(last) + 1


def spaces(connection: Connection, study_id: int) -> list[dict[str, Any]]:
    """Return the versions of a study's space, oldest first."""
    versions = schema.spaces.c
    found = connection.execute(select(versions.space).where(versions.study_id == study_id).order_by(versions.version))
    return [json.loads(space) for space in found.scalars()]


def move_data(connection: Connection, study_id: int, source: str, target: str | None) -> None:
    """Note where the data of a study lies now."""
    values = {"data_source": codec.encode_text(source), "data_target": codec.encode_text(target)}
    connection.execute(update(schema.studies).where(schema.studies.c.id == study_id).values(**values))


def move_trainable(connection: Connection, study_id: int, trainable: TrainableSpec) -> None:
    """Note where the code is that trains a study, and its text."""
    study = schema.studies.c
    settings = json.loads(connection.execute(select(study.settings).where(study.id == study_id)).scalar_one())
    settings["trainable"] = asdict(trainable)
    values = {"settings": codec.encode_json(settings)}
    connection.execute(update(schema.studies).where(study.id == study_id).values(**values))


def rename(connection: Connection, study_id: int, name: str) -> None:
    """Give a study another name, also where trials name it as their parent's."""
    connection.execute(update(schema.studies).where(schema.studies.c.id == study_id).values(name=name))
    trials = schema.trials.c
    children = connection.execute(
        select(trials.id, trials.parent_id).where(trials.parent_id.between(*schema.trial_ids(study_id)))
    ).all()
    for child in children:
        parent = f"{name}/{child.parent_id % schema.NUMBERS}"
        connection.execute(update(schema.trials).where(trials.id == child.id).values(parent=codec.encode_text(parent)))


def delete(connection: Connection, study_id: int) -> None:
    """Delete a study and all that belongs to it."""
    first, last = schema.trial_ids(study_id)
    connection.execute(delete_from(schema.reports).where(schema.reports.c.trial_id.between(first, last)))
    connection.execute(delete_from(schema.trials).where(schema.trials.c.id.between(first, last)))
    connection.execute(delete_from(schema.studies).where(schema.studies.c.id == study_id))


def notes(connection: Connection, study_id: int) -> StudyNotes:
    """Return note and tags of a study."""
    note = connection.execute(select(schema.studies.c.note).where(schema.studies.c.id == study_id)).scalar()
    tags = connection.execute(select(schema.study_tags.c.tag).where(schema.study_tags.c.study_id == study_id)).scalars()
    return StudyNotes(codec.decode_text(note), tuple(sorted(tags)))


def check_tag(tag: str) -> str:
    """Return a tag that a study may have.

    Raises:
        SettingsError: it is empty, too long, or holds spaces, commas or control characters.
    """
    if not tag or len(tag) > _LONGEST_TAG or "," in tag or not tag.isprintable() or any(map(str.isspace, tag)):
        raise SettingsError(
            f"a tag must be a word of 1 to {_LONGEST_TAG} characters without spaces and commas, found {tag[:200]!r}"
        )
    return tag


def annotate(
    connection: Connection, study_id: int, note: str | None, add_tags: Sequence[str], remove_tags: Sequence[str]
) -> None:
    """Change note and tags of a study."""
    if note is not None:
        connection.execute(
            update(schema.studies).where(schema.studies.c.id == study_id).values(note=codec.encode_text(note) or None)
        )
    tags = schema.study_tags
    if add_tags:
        new = bulk.insert_into(tags, connection.dialect.name).on_conflict_do_nothing()
        connection.execute(new, [{"study_id": study_id, "tag": tag} for tag in add_tags])
    if remove_tags:
        connection.execute(delete_from(tags).where(tags.c.study_id == study_id, tags.c.tag.in_(remove_tags)))
