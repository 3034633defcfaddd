"""``make chaos ARGS="[FAULT …] [--faults N] [--small] [--seed S] [--json FILE]"``."""

import argparse
import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

from tests.chaos.scenarios import FAULTS
from tests.chaos.verdicts import Plan, Servers, Verdict
from tests.common.servers import Run, start_postgres

_COLUMNS = (
    "fault",
    "injected",
    "planned",
    "lost",
    "duplicated",
    "unknown",
    "unknown_undelivered",
    "bound",
    "recovery_s_max",
)
_AUDIENCE, _SMALL_AUDIENCE = 4_000, 1_600
_FEW = 4  # kills of each further fault with --small


def main() -> int:
    """Run the named faults, or all; exit 1 when one of them did harm."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("fault", nargs="*", choices=[*FAULTS, []], help="default: all")
    parser.add_argument("--faults", type=int, default=20, help="how often each strikes")
    parser.add_argument("--small", action="store_true", help="every fault, but only the first one --faults times")
    parser.add_argument("--audience", type=int, help="leads; default: 200 per kill, 4000 at least")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    least = _SMALL_AUDIENCE if options.small else _AUDIENCE
    plan = Plan(options.faults, options.audience or max(least, 200 * options.faults), options.seed)
    fewer = replace(plan, faults=min(_FEW, plan.faults), small=True) if options.small else plan
    first, verdicts = next(iter(FAULTS)), []
    with Run.open(durable=True) as run:
        cluster = start_postgres(run)
        print(f"PostgreSQL {cluster.version} ({cluster.origin}), seed {plan.seed}", flush=True)
        print("  ".join(f"{name:>12}" for name in _COLUMNS), flush=True)
        for name in options.fault or FAULTS:
            begun = time.monotonic()
            verdicts.append(FAULTS[name](Servers(run, cluster), plan if name == first else fewer))
            _print(verdicts[-1], time.monotonic() - begun)
    if options.json:
        rows = [{name: asdict(verdict)[name] for name in _COLUMNS} for verdict in verdicts]
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return 0 if all(verdict.ok for verdict in verdicts) else 1


def _print(verdict: Verdict, seconds: float) -> None:
    figures = "  ".join(f"{getattr(verdict, name)!s:>12}" for name in _COLUMNS)
    print(f"{figures}  {seconds:9.1f} s", flush=True)
    for complaint in verdict.complaints:
        print(f"  HARM: {complaint}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
