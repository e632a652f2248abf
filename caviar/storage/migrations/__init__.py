"""Migrations of the trial database, run by `caviar db upgrade`."""
