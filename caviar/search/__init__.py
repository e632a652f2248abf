"""Choosing params: the only folder that imports optuna's samplers."""
