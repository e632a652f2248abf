"""Data sets for training: by name, or from a user's own files."""

from caviar.data.load import load_dataset, load_prepared
from caviar.data.preparation import Preparation
from caviar.data.sources import NAMES, default_source, has_columns, resolve

__all__ = ["NAMES", "Preparation", "default_source", "has_columns", "load_dataset", "load_prepared", "resolve"]
