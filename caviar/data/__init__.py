"""Data sets for training: by name, or from a user's own files."""

from caviar.data.load import load_dataset, load_prepared
from caviar.data.preparation import Preparation
from caviar.data.sources import NAMES, default_source, is_there, resolve

__all__ = ["NAMES", "Preparation", "default_source", "is_there", "load_dataset", "load_prepared", "resolve"]
