"""Run all benchmarks, each in a process of its own, and keep the results: `make bench`.

The file that is written, and read again by compare.py, holds the machine and, by program, the rows of `measuring.Row`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from measuring import ONE_THREAD, machine

HERE = Path(__file__).parent
RESULTS = HERE / "results"

#: Program and arguments, in the order in which they run. Each takes --json FILE and its share of 15 minutes.
PROGRAMS: tuple[tuple[str, ...], ...] = (
    ("training_step.py",),
    ("sweep.py", "--rounds", "4"),
    ("coordinator.py",),
    ("storage_write.py", "--rounds", "5", "--late", "20000"),
    ("storage_read.py", "--rounds", "5", "--trials", "50000"),
    ("storage_crowd.py", "--rounds", "5", "--seconds", "20"),
    ("panda.py",),
)
#: These would choose other matrix products than the machine's own.
_UNWANTED = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "CAVIAR_KERNEL", "CAVIAR_STORAGE")


def main() -> None:
    """Run what is asked for, or all; exit 1 where a program failed."""
    wanted = set(sys.argv[1:])
    environment = {name: value for name, value in os.environ.items() if name not in _UNWANTED} | ONE_THREAD
    programs, failed, start = {}, [], time.monotonic()
    for name, *options in PROGRAMS:
        if wanted and name.removesuffix(".py") not in wanted:
            continue
        print(f"\n=== {name}", flush=True)
        with tempfile.TemporaryDirectory(prefix="caviar-benchmark-") as folder:
            path = Path(folder) / "rows.json"
            command = [sys.executable, str(HERE / name), *options, "--json", str(path)]
            if subprocess.run(command, env=environment, check=False).returncode or not path.exists():
                failed.append(name)
                continue
            programs[name.removesuffix(".py")] = json.loads(path.read_text())
    RESULTS.mkdir(exist_ok=True)
    made_at = datetime.now(UTC)
    path = RESULTS / f"{made_at:%Y%m%dT%H%M%S}.json"
    path.write_text(json.dumps({"made_at": made_at.isoformat(), "machine": machine(), "programs": programs}, indent=1))
    print(f"\n{path} written after {time.monotonic() - start:.0f} s")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
