"""Data sets for training: by name, or from a user's own files."""

from caviar.data.load import load_dataset
from caviar.data.sources import NAMES, resolve

__all__ = ["NAMES", "load_dataset", "resolve"]
