"""Where caviar's training runs: the only package that imports Ray."""
