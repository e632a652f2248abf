"""Training one model: its state as a value, and the pure function that advances it."""
