"""Data sets for training: by name, or from a user's own files."""

from caviar.data.load import load_dataset
from caviar.data.sources import default_source, resolve

__all__ = ["default_source", "load_dataset", "resolve"]
