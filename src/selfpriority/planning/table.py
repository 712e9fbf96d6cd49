"""A plan as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Json = dict[str, Any]

_NUMBERS = ("prompt_tokens", "forward_tokens", "new_tokens", "trained_tokens")
_GB = 1e9


def plan_text(plan: Json) -> str:
    """Steps, then memory, then what the numbers rest on."""
    parts = ["\n".join(_steps(plan)), "\n".join(_memory(plan))]
    if plan["training"]["choices"]:
        parts.append("\n".join(_choices(plan["training"])))
    return "\n\n".join([*parts, "\n".join(_grounds(plan))])


def _steps(plan: Json) -> list[str]:
    has_time, has_cost = plan["rates"] is not None, plan["total"]["cost"] is not None
    head = ["step", "requests", "prompt tokens", "one-pass tokens", "new tokens", "trained tokens"]
    rows = [head + ["time"] * has_time + ["cost"] * has_cost]
    for step in [*plan["steps"], {"name": "total", "at_most": True, **plan["total"]}]:
        row = [step["name"], ("<= " if step["at_most"] else "") + f"{step['requests']:,}" if step["requests"] else "-"]
        row += [f"{step[name]:,}" if step[name] else "-" for name in _NUMBERS]
        row += [_duration(step["seconds"])] * has_time + [f"{step['cost'] or 0:.2f}"] * has_cost
        rows.append(row)
    return _aligned(rows)


def _memory(plan: Json) -> list[str]:
    columns = ("weights", "cache", "passing", "total")
    has_peak = any(held["peak"] for held in plan["memory"].values())
    rows = [["memory by phase", "weights", "keys and values", "passing", "together"] + ["measured before"] * has_peak]
    for phase, held in plan["memory"].items():
        if held["weights"] is None:
            rows.append([phase, "unknown: a model's files are not on this machine", "", "", "", *[""] * has_peak])
        else:
            peak = [_size(held["peak"]) if held["peak"] else "-"] * has_peak
            rows.append([phase, *(_size(held[column]) for column in columns), *peak])
    if len(rows) == 1:
        rows.append(["no phase but align holds a model", "", "", "", ""])
    return _aligned(rows)


def _choices(training: Json) -> list[str]:
    columns = ("weights", "gradients", "optimizer", "average", "activations", "activations_checkpointed", "total")
    rows = [["memory of align", *columns[:5], "(checkpointed)", "total"]]
    for choice in training["choices"]:
        name = choice["choice"] + (" (this recipe)" if choice["is_chosen"] else "")
        rows.append([name, *(_size(choice[column]) if choice[column] else "-" for column in columns)])
    return _aligned(rows)


def _grounds(plan: Json) -> list[str]:
    lines = [f"tokens of {name}: {how}" for name, how in plan["tokens"].items()]
    lines.append("all tokens are at most: no prompt is lost and every answer is as long as it may be")
    if not plan["training"]["choices"]:
        lines.append("memory of align: unknown, the model's files are not on this machine; config.json would do")
    lines.append(
        "memory of align: of tensors alone; what an allocator adds, most with adapters on a CPU, is in docs/scaling.md"
    )
    lines.append(f"optimizer steps a round: at most {plan['training']['optimizer_steps']}")
    rates = plan["rates"]
    lines.append(
        f"time: from {rates}" if rates else "time: unknown before a first run; --rates prefill=N,generate=N,..."
    )
    return lines


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(1, len(rows[0]))]
    first = max(len(row[0]) for row in rows)
    if any(row[2:] and not any(row[2:]) for row in rows):  # a sentence in place of numbers runs on
        widths[0] = max(len(row[1]) for row in rows if any(row[2:]))
    lines = []
    for row in rows:
        cells = (f"{cell:>{width}}" for cell, width in zip(row[1:], widths, strict=True))
        lines.append("  ".join([f"{row[0]:{first}}", *cells]).rstrip())
    return lines


def _size(n_bytes: float) -> str:
    return f"{n_bytes / _GB:.2f} GB"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
