"""Data sets for training: by name, or from a user's own files."""

from caviar.data.load import load_dataset, load_prepared
from caviar.data.preparation import Preparation
from caviar.data.sources import default_source, resolve

__all__ = ["Preparation", "default_source", "load_dataset", "load_prepared", "resolve"]
