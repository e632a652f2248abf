"""Panda mode: one model, a person or rules that steer it, and an exact record of what was done."""
