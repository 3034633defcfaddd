"""``make bench ARGS="[NAME …] [--list] [--small] [--json FILE]"``: exit 1 when a target is missed."""

import argparse
import importlib
import json
import os
import pkgutil
import platform
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

import benchmarks
from benchmarks.common import Options, Result
from tests.common.servers import Run
from tests.common.servers.versions import postgres_line, redis_line

Benchmark = Callable[[Options], Result | Sequence[Result]]


def discover() -> dict[str, Benchmark]:
    """Every benchmark of this package by name, in the order of the names."""
    found: dict[str, Benchmark] = {}
    for module_info in pkgutil.iter_modules(benchmarks.__path__):
        if module_info.name in {"__main__", "common"}:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of libraries at import, see setup.cfg
            module = importlib.import_module(f"benchmarks.{module_info.name}")
        for name, function in getattr(module, "BENCHMARKS", {}).items():
            if name in found:
                raise ValueError(f"two benchmarks are called {name!r}, one of them in {module.__name__}")
            found[name] = function
    return dict(sorted(found.items()))


def select(found: Mapping[str, Benchmark], names: Sequence[str]) -> dict[str, Benchmark]:
    """The benchmarks asked for; ``segments`` asks for every ``segments.…``."""
    chosen = {
        name: function
        for name, function in found.items()
        if not names or any(name == asked or name.startswith(f"{asked}.") for asked in names)
    }
    unknown = [asked for asked in names if not any(name == asked or name.startswith(f"{asked}.") for name in found)]
    if unknown:
        raise SystemExit(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(found)}")
    return chosen


def run_all(chosen: Mapping[str, Benchmark], *, small: bool, seed: int) -> tuple[list[Result], list[str]]:
    """Run the benchmarks one after the other; answers results and the names of those that broke."""
    results: list[Result] = []
    broken: list[str] = []
    with Run.open(durable=True) as run, tempfile.TemporaryDirectory(prefix="nexus-bench-") as folder:
        for name, function in chosen.items():
            own_folder = Path(folder) / name
            own_folder.mkdir()
            begun = time.monotonic()
            try:
                answer = function(Options(small, run, own_folder, seed))
            except Exception:  # noqa: BLE001 - one broken benchmark must not hide the others
                traceback.print_exc()
                broken.append(name)
                continue
            results += [answer] if isinstance(answer, Result) else answer
            print(f"{name}: {time.monotonic() - begun:.1f} s", file=sys.stderr, flush=True)
    return results, broken


def table(results: Sequence[Result]) -> Table:
    """The report for people."""
    report = Table(title="ours against a hand-written reference of the same work; lower is better")
    for column, justify in (
        ("benchmark", "left"),
        ("ours", "right"),
        ("reference", "right"),
        ("ratio", "right"),
        ("target", "right"),
        ("", "left"),
        ("runs", "right"),
        ("notes", "left"),
    ):
        report.add_column(column, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for result in results:
        verdict = "met" if result.met else "[bold red]MISSED[/]"
        report.add_row(
            result.name,
            f"{result.ours:.4g} {result.unit}",
            f"{result.reference:.4g} {result.unit}",
            f"{result.ratio:.3f}x",
            f"<= {result.target:g}x",
            verdict,
            str(result.repetitions),
            str(result.row()["notes"]),
        )
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    """Run benchmarks and print the report; 0 when every target is met."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("name", nargs="*", help="a benchmark or the first part of its name; default: all")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    parser.add_argument("--small", action="store_true", help="small data: shows that it runs, not how fast it is")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results as a JSON array")
    options = parser.parse_args(arguments)
    chosen = select(discover(), options.name)
    if options.list:
        print("\n".join(chosen))
        return 0
    if not chosen:
        raise SystemExit("there are no benchmarks")
    print(f"Python {platform.python_version()} on {os.cpu_count()} cores, {postgres_line()}, {redis_line()}")
    results, broken = run_all(chosen, small=options.small, seed=options.seed)
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table(results))
    for name in broken:
        console.print(f"BROKEN: {name}")
    if options.json:
        options.json.write_text(json.dumps([result.row() for result in results], indent=2) + "\n", encoding="utf-8")
    missed = [result.name for result in results if not result.met]
    if options.small:
        # Fixed costs weigh too much on small data for a ratio to be judged.
        return 1 if broken else 0
    return 1 if broken or missed else 0


if __name__ == "__main__":
    sys.exit(main())
