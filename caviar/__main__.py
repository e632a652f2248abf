"""`python -m caviar`: the command line, where no `caviar` is on the path."""

from __future__ import annotations

from caviar.cli.main import main

main()
