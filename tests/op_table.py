"""The table of ops in the README, from what the tests ran: `python tests/op_table.py [--check] OUTCOMES ...`.

`pytest --outcomes FILE` writes what passed and failed, by test, op, device and dtype; several files are taken together
(of the ordinary build, of the emulated one, of a GPU). A property is stated where its test ran and did not fail.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import defaultdict
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"
MARKERS = re.compile(r"(<!-- ops -->\n)(.*?)(<!-- /ops -->)", re.DOTALL)
DTYPES = {"float32": "f32", "float64": "f64", "bfloat16": "bf16", "float16": "f16"}
PROPERTIES = {
    "double backward": "test_gradgradcheck",
    "forward AD": "test_jvp",
    "vmap": "test_vmap",
    "torch.compile": "test_compile",
    "autocast": "test_autocast",
    "deterministic": "test_bit_equal_runs",
}
NO = "-"


class Outcomes:
    """What became of the tests, of several runs together."""

    def __init__(self, rows: list[dict[str, str]]) -> None:
        self._rows: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
        for row in rows:
            self._rows[row["test"], row["op"]].append(row)
        self.ops = sorted({row["op"] for row in rows if row["test"] == "test_forward"})

    def passed(self, test: str, op: str, device: str = "") -> list[dict[str, str]]:
        """The rows of a test on devices whose name begins so, or none if one of them failed."""
        rows = [row for row in self._rows[test, op] if row["device"].startswith(device)]
        return [] if any(row["outcome"] == "failed" for row in rows) else rows


def device_cell(outcomes: Outcomes, op: str) -> str:
    if outcomes.passed("test_forward", op, "cuda-emulated"):
        return "emulated"
    return "yes" if outcomes.passed("test_forward", op, "cuda") else NO


def table(outcomes: Outcomes) -> str:
    lines = [f"| op | CPU | CUDA | dtypes | {' | '.join(PROPERTIES)} |", f"|---|---|---|---|{'---|' * len(PROPERTIES)}"]
    for op in outcomes.ops:
        ran = {row["dtype"] for row in outcomes.passed("test_forward", op)}
        cells = [f"`{op}`", "yes" if outcomes.passed("test_forward", op, "cpu") else NO, device_cell(outcomes, op)]
        cells.append(" ".join(short for dtype, short in DTYPES.items() if dtype in ran) or NO)
        cells += ["yes" if outcomes.passed(test, op) else NO for test in PROPERTIES.values()]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("outcomes", type=Path, nargs="+")
    parser.add_argument("--readme", type=Path, default=README)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail if the table is not what the tests ran"
    )
    options = parser.parse_args(arguments)
    rows = [row for path in options.outcomes for row in json.loads(path.read_text())]
    text = options.readme.read_text(encoding="utf-8")
    new = MARKERS.sub(lambda match: match[1] + table(Outcomes(rows)) + match[3], text)
    if new == text:
        return 0
    if options.check:
        print(f"{options.readme.name}: the table of ops is not what the tests ran; `make op-table`", file=sys.stderr)
        return 1
    options.readme.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
