"""Hold the latest results of `make bench` against earlier ones: `make bench-compare [WITH=FILE]`.

What is compared are the ratios, where there are any: both their sides ran in one run. Absolute figures differ with
whatever else the machine did.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
#: What changes by less is noise.
NOISE = 0.1


def main() -> None:
    """Print what changed, worst first; exit 1 where there is nothing to compare."""
    found = sorted(RESULTS.glob("*.json"))
    if not found or (len(found) < 2 and not sys.argv[1:]):
        sys.exit(f"expected two results in {RESULTS}, found {len(found)}; run `make bench` before and after a change")
    before_path, now_path = Path(sys.argv[1]) if sys.argv[1:] else found[-2], found[-1]
    before, now = (json.loads(path.read_text()) for path in (before_path, now_path))
    for name in sorted(before["machine"].keys() | now["machine"].keys()):
        one, other = before["machine"].get(name), now["machine"].get(name)
        if one != other:
            print(f"not the same {name}: {one} then, {other} now")
    changes = []
    old, new = _rows(before), _rows(now)
    for key in old.keys() & new.keys():
        gain = _gain(old[key], new[key])
        if abs(gain - 1) > NOISE:
            changes.append((gain, key))
    print(f"{before_path.name} -> {now_path.name}: {len(old.keys() & new.keys())} figures, {len(changes)} changed")
    for gain, key in sorted(changes):
        then, today = _figure(old[key]), _figure(new[key])
        print(f"  {'better' if gain > 1 else 'WORSE':7} {' / '.join(filter(None, key))}: {then:.4g} -> {today:.4g}")
    for key in sorted(old.keys() ^ new.keys()):
        print(f"  {'only then' if key in old else 'only now'}: {' / '.join(filter(None, key))}")


def _rows(results: dict[str, Any]) -> dict[tuple[str, str, str], dict[str, Any]]:
    rows = [(program, row) for program, rows in results["programs"].items() for row in rows]
    return {(program, row["case"], row["side"]): row for program, row in rows}


def _figure(row: dict[str, Any]) -> float:
    value: float = row["median"] if row["ratio"] is None else row["ratio"]
    return value


def _gain(then: dict[str, Any], now: dict[str, Any]) -> float:
    """Return how many times better a figure is now."""
    one, other = _figure(then), _figure(now)
    if not one or not other:
        return 1.0
    is_ratio = now["ratio"] is not None
    more_is_better = not (now["aim"] or "").startswith("at most") if is_ratio else now["higher_is_better"]
    return other / one if more_is_better else one / other


if __name__ == "__main__":
    main()
