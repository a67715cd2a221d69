# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare two series that were measured in turn on one machine, and say no more than they bear out.

Each pair is one measurement of the baseline and one of the candidate, taken right after one another, so that drift
of the machine hits both. What is judged is the ratio within the pairs: the mean of its logarithms, with Student's
interval. The verdict is `faster` or `slower` only when that interval leaves out "equal". With several comparisons in
a family each one's interval is widened (Bonferroni), so the chance that *any* verdict of the family is false is at
most 1 - confidence.

That holds where the pairs are independent of each other. Where a pair's ratio follows the one before (an
autocorrelation of 0.3, as where something slows one side for several pairs), 11 to 27 % of families have a false
verdict, and nothing here tells.

What the interval covers is the spread between pairs. A difference between two starts of the same program is constant
within one start and invisible to it: each pair must be a new start of both sides.
"""

from __future__ import annotations

import functools
import math
import statistics

# Over fewer, coarse values agree by chance too often, and then seem to have no spread.
LEAST_PAIRS = 5

FASTER, SLOWER, EQUAL, TOO_FEW = "faster", "slower", "no difference found", "too few pairs"
UNFAIR = "not comparable"  # the side that would be the faster left more of the work undone


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function, by Lentz's continued fraction (Numerical Recipes, 6.4)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(b, a, 1 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(1 - x))
    fraction, c, d = 1.0, 1.0, 0.0
    for step in range(400):
        half = step // 2
        if step == 0:
            term = 1.0
        elif step % 2 == 0:
            term = half * (b - half) * x / ((a + step - 1) * (a + step))
        else:
            term = -(a + half) * (a + b + half) * x / ((a + step - 1) * (a + step))
        d = 1 / (1 + term * d or 1e-300)
        c = 1 + term / c or 1e-300
        fraction *= c * d
        if abs(c * d - 1) < 1e-13:
            break
    return front * (fraction - 1) / a


@functools.cache
def student_quantile(confidence: float, freedom: int) -> float:
    """How many standard errors to either side hold `confidence` of Student's distribution."""
    low, high = 0.0, 1e6
    for _turn in range(60):
        middle = (low + high) / 2
        outside = _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + middle * middle))
        low, high = (middle, high) if outside > 1 - confidence else (low, middle)
    return (low + high) / 2


def summary(values: list[float]) -> dict:
    """Median and spread; the spread is the distance between the quartiles."""
    if not values:
        return {"median": None, "spread": None, "count": 0}
    quartiles = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return {
        "median": statistics.median(values),
        "spread": quartiles[2] - quartiles[0],
        "count": len(values),
    }


def resolution(values: list[float]) -> float:
    """The smallest step between distinct values, as a logarithm: no finer did the clock tell them apart.

    Values of a fine clock come so close to one another that this is next to nothing beside their spread.
    """
    logs = sorted(map(math.log, values))
    return min((above - below for below, above in zip(logs, logs[1:]) if above - below > 1e-9), default=0.0)


def compare(baseline: list[float], candidate: list[float], *, better: str, confidence: float = 0.95) -> dict:
    """The verdict over pairs, `better` being `lower` (times) or `higher` (rates). All values must be above 0."""
    if len(baseline) != len(candidate):
        raise ValueError(f"expected pairs, found {len(baseline)} and {len(candidate)} values")
    if any(not value > 0 or math.isinf(value) for value in [*baseline, *candidate]):
        raise ValueError("expected values above 0")
    found: dict = {
        "baseline": summary(baseline),
        "candidate": summary(candidate),
        "pairs": len(baseline),
        "confidence": confidence,
        "speedup": None,
        "low": None,
        "high": None,
        "verdict": TOO_FEW,
    }
    pairs = zip(baseline, candidate) if better == "lower" else zip(candidate, baseline)
    logs = [math.log(above / below) for above, below in pairs]
    if logs:
        found["speedup"] = math.exp(statistics.fmean(logs))
    if len(logs) < LEAST_PAIRS:
        return found
    # Ratios that agree by chance, since a coarse clock rounds, are no proof of a machine without noise.
    spread = max(statistics.stdev(logs), resolution([*baseline, *candidate]))
    reach = student_quantile(confidence, len(logs) - 1) * spread / math.sqrt(len(logs))
    middle = statistics.fmean(logs)
    found["low"], found["high"] = math.exp(middle - reach), math.exp(middle + reach)
    found["verdict"] = FASTER if middle > reach else SLOWER if middle < -reach else EQUAL
    return found


def compare_family(measured: list[dict], confidence: float = 0.95) -> list[dict]:
    """`compare` for each entry that has values; the confidence holds for all of the family's verdicts together."""
    share = (1 - confidence) / max(1, sum(bool(entry.get("pairs")) for entry in measured))
    judged = []
    for entry in measured:
        pairs = entry.get("pairs") or []
        kept = {name: value for name, value in entry.items() if name != "pairs"}
        if not pairs:
            judged.append(kept)
            continue
        baseline, candidate = (list(side) for side in zip(*pairs))
        verdict = compare(baseline, candidate, better=entry["better"], confidence=1 - share)
        judged.append({**kept, "values": {"baseline": baseline, "candidate": candidate}, **verdict})
    return judged


def sentence(entry: dict) -> str:
    """One comparison in words."""
    if entry.get("verdict") is None:
        how = "failed" if entry.get("status") == "failed" else "not run"
        return f"{entry['name']}: {how}, {entry.get('reason', 'no reason was told')}"
    if entry["low"] is None:
        return f"{entry['name']}: {entry['verdict']} ({entry['pairs']})"
    change, low, high = (100 * (entry[name] - 1) for name in ("speedup", "low", "high"))
    told = f"{entry['name']}: {entry['verdict']}, {change:+.1f} % ({low:+.1f} to {high:+.1f} %, {entry['pairs']} pairs)"
    unread = entry.get("failed_pages") or {}
    if any(unread.values()):
        told += f"; pages not read: {', '.join(f'{side} {pages}' for side, pages in unread.items())}"
    return told
