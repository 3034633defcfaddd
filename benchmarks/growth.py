"""``growth``: what a lead costs as there are ten times and a hundred times as many; drawn into ``build/growth.svg``.

A ratio of 1 is a straight line through the origin: time per lead at the largest size against the middle one.
"""

import math
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import Options, Result
from benchmarks.leads import write_file
from benchmarks.segments import run_as_owner
from nexus_marketing.core.actors import SYSTEM
from nexus_marketing.db.queries.leads import leads_after
from nexus_marketing.runtime import Runtime
from nexus_marketing.services.imports.intake import import_leads
from nexus_marketing.services.leads.exports import export_leads
from nexus_marketing.services.leads.records import update_lead
from nexus_marketing.services.segments.records import create_segment
from nexus_marketing.services.segments.refresh import refresh
from nexus_marketing.services.segments.upkeep import keep_segments
from tests.common import databases
from tests.common.factories import make_tenant

_RULE = "country in ['DE', 'FR'] AND metadata.plan == 'a' AND created_at < now() + 1 days"
#: Measure → (whether it is time per lead, the largest ratio that passes, the name of its unit).
_MEASURES: Mapping[str, tuple[bool, float, str]] = {
    "import": (True, 1.5, "us a lead"),
    "segment": (True, 1.5, "us a lead"),
    "refresh": (True, 1.5, "us a lead"),
    "export": (True, 1.5, "us a lead"),
    "change": (False, 1.5, "ms"),
}
_CHANGES = 21
_MEMORY_MIB = 40.0
_OUT = Path("build/growth.svg")


def growth(options: Options) -> list[Result]:
    """Every measure at three sizes, each in a database of its own."""
    sizes = (10_000, 100_000, 1_000_000) if not options.small else (500, 2_000, 8_000)
    found: dict[str, list[float]] = {name: [] for name in _MEASURES}
    peaks = []
    for size in sizes:
        for name, taken in _measure(options, size).items():
            found[name].append(taken)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    _OUT.parent.mkdir(exist_ok=True)
    _OUT.write_text(_drawing(sizes, found), encoding="utf-8")
    grown = peaks[-1] - peaks[-2]
    flat = () if options.small or grown < _MEMORY_MIB else (f"{grown:.0f} MiB more memory for ten times the leads",)
    return [_result(name, sizes, values, flat) for name, values in found.items()]


def _measure(options: Options, size: int) -> dict[str, float]:
    """Seconds of each measure, of those of a million leads as of a few."""
    path = options.folder / f"{size}.csv"
    write_file(path, size, options)
    with databases.postgres_runtime(options.cluster, options.folder / str(size)) as runtime:
        tenant_id = make_tenant(runtime)
        taken = {"import": _timed(lambda: import_leads(runtime, tenant_id, path, actor=SYSTEM))}
        run_as_owner(runtime, "VACUUM ANALYZE marketing_leads")
        with runtime.work(tenant_id, SYSTEM) as ctx:
            segment_id = create_segment(ctx, {"name": "s", "conditions": _RULE}).id
        for name in ("segment", "refresh"):
            taken[name] = _timed(lambda: refresh(runtime, tenant_id, segment_id))
        while keep_segments(runtime):
            continue
        run_as_owner(runtime, "VACUUM ANALYZE marketing_segment_members")
        with options.cluster.connect() as connection:
            connection.execute("CHECKPOINT")  # what a million rows left to do is not the cost of one change
        taken["change"] = _one_change(runtime, tenant_id)
        with (options.folder / "out.csv").open("w", encoding="utf-8", newline="") as out:
            taken["export"] = _timed(lambda: export_leads(runtime, tenant_id, out, actor=SYSTEM))
    path.unlink()
    return taken


def _one_change(runtime: Runtime, tenant_id: int) -> float:
    """The median of moving a lead into the segment or out of it, until its membership says so."""
    with runtime.work(tenant_id, SYSTEM, mode="read") as ctx:
        ids = [row["id"] for row in leads_after(ctx.session, ("id",), 0, _CHANGES)]
    times = []
    for number, lead_id in enumerate(ids):
        begun = time.perf_counter()
        with runtime.work(tenant_id, SYSTEM) as ctx:
            update_lead(ctx, lead_id, {"country": "US" if number % 2 else "DE", "metadata": {"plan": "a"}})
        while keep_segments(runtime):
            continue
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _result(name: str, sizes: Sequence[int], values: Sequence[float], flat: tuple[str, ...]) -> Result:
    per_lead, target, unit = _MEASURES[name]
    shown = [taken / size * 1e6 if per_lead else taken * 1e3 for taken, size in zip(values, sizes, strict=True)]
    notes = ", ".join(f"{size}: {value:.3g}" for size, value in zip(sizes, shown, strict=True))
    return Result(f"growth.{name}", shown[-1], shown[-2], unit, target, 1, notes, flat)


def _drawing(sizes: Sequence[int], found: Mapping[str, Sequence[float]]) -> str:
    """Seconds over leads, both by powers of ten, as SVG."""
    width, height, margin = 640, 420, 60
    low, high = -3.5, 2.0

    def x(size: int) -> float:
        first, last = math.log10(sizes[0]), math.log10(sizes[-1])
        return margin + (math.log10(size) - first) / (last - first) * (width - 2 * margin - 60)

    def y(seconds: float) -> float:
        return height - margin - (math.log10(seconds) - low) / (high - low) * (height - 2 * margin)

    colours = ("#1b6ca8", "#c0392b", "#2e8b57", "#8e44ad", "#b8860b")
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">']
    parts += [f'<text x="{x(size):.0f}" y="{height - 35}" font-size="12">{size:,}</text>' for size in sizes]
    for power in range(math.ceil(low), math.floor(high) + 1):
        at = y(10.0**power)
        parts.append(f'<line x1="{margin}" y1="{at:.0f}" x2="{width - margin}" y2="{at:.0f}" stroke="#ddd"/>')
        parts.append(f'<text x="5" y="{at + 4:.0f}" font-size="12">{10.0**power:g} s</text>')
    for colour, (name, values) in zip(colours, found.items(), strict=True):
        points = " ".join(f"{x(size):.0f},{y(taken):.0f}" for size, taken in zip(sizes, values, strict=True))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        label = f'<text x="{x(sizes[-1]) + 6:.0f}" y="{y(values[-1]) + 4:.0f}" font-size="12" fill="{colour}">'
        parts.append(f"{label}{name}</text>")
    return "\n".join([*parts, "</svg>"]) + "\n"


BENCHMARKS: dict[str, Any] = {"growth": growth}
