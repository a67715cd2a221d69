# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verdicts on synthetic data whose difference and noise are known."""

from __future__ import annotations

import random

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import paired

TRIALS = 900
# Three standard deviations above 5 % of that many trials. The seeds are fixed, so a right rule stays right.
AT_MOST = 0.05 + 3 * (0.05 * 0.95 / TRIALS) ** 0.5


def normal(chance: random.Random) -> float:
    return chance.gauss(0, 0.03)


def spiky(chance: random.Random) -> float:
    """A machine that is interrupted now and then."""
    return chance.gauss(0, 0.01) + (0.5 if chance.random() < 0.1 else 0)


def quantised(chance: random.Random) -> float:
    return round(chance.gauss(0, 0.02), 2)


def pairs(chance: random.Random, count: int, ratio: float, noise=normal) -> list[list[float]]:
    """Times of a machine that drifts by a third in the course of the run; the candidate is `ratio` times as fast."""
    made = []
    for turn in range(count):
        drift = 1 + turn / (3 * count)
        made.append([10 * drift * 2 ** noise(chance), 10 / ratio * drift * 2 ** noise(chance)])
    return made


def entry(values: list[list[float]], better: str = "lower") -> dict:
    return {"name": "x", "unit": "s", "better": better, "pairs": values}


@pytest.mark.parametrize("count", [3, 5, 12])
@pytest.mark.parametrize("noise", [normal, spiky, quantised])
@pytest.mark.parametrize("family", [1, 6])
def test_no_more_false_verdicts_than_stated(count, noise, family):
    chance = random.Random(f"{count} {noise.__name__} {family}")  # noqa: S311 - synthetic noise
    wrong = 0
    for _trial in range(TRIALS // family):
        judged = paired.compare_family([entry(pairs(chance, count, 1, noise)) for _one in range(family)])
        wrong += any(one["verdict"] != paired.EQUAL for one in judged)
    assert wrong / (TRIALS // family) <= 0.05 + 3 * (0.05 * 0.95 / (TRIALS // family)) ** 0.5


@pytest.mark.parametrize("ratio", [1.25, 1.03, 1 / 1.1])
def test_the_interval_holds_the_truth_as_often_as_stated(ratio):
    chance = random.Random(ratio)  # noqa: S311 - synthetic noise
    found = [paired.compare_family([entry(pairs(chance, 6, ratio))])[0] for _trial in range(TRIALS)]
    missed = sum(not one["low"] <= ratio <= one["high"] for one in found) / TRIALS
    assert 0.05 - 3 * (0.05 * 0.95 / TRIALS) ** 0.5 <= missed <= AT_MOST


@pytest.mark.parametrize(
    ("ratio", "verdict"), [(1.25, paired.FASTER), (1 / 1.25, paired.SLOWER), (1.1, paired.FASTER), (0.9, paired.SLOWER)]
)
def test_a_difference_well_above_the_noise_is_found(ratio, verdict):
    chance = random.Random(ratio)  # noqa: S311 - synthetic noise
    found = [paired.compare_family([entry(pairs(chance, 6, ratio))])[0]["verdict"] for _trial in range(300)]
    assert found.count(verdict) / 300 > 0.95


def test_rates_are_better_when_higher():
    values = [[10.0, 12.0], [10.1, 12.2], [10.2, 12.1], [10.0, 12.1]]
    assert paired.compare_family([entry(values, "higher")])[0]["verdict"] == paired.FASTER
    assert paired.compare_family([entry(values, "lower")])[0]["verdict"] == paired.SLOWER


def test_what_has_no_pairs_keeps_its_reason_and_takes_no_share():
    alone, missing = paired.compare_family(
        [entry([[1, 2], [1.1, 2], [1, 2.1]]), {"name": "y", "unit": "s", "better": "lower", "reason": "no GPU"}]
    )
    assert alone["confidence"] == pytest.approx(0.95)
    assert missing == {"name": "y", "unit": "s", "better": "lower", "reason": "no GPU"}
    assert paired.sentence(missing) == "y: not run, no GPU"


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_pairs_give_no_verdict(count):
    assert paired.compare_family([entry([[1.0, 2.0]] * count)])[0]["verdict"] == paired.TOO_FEW


@pytest.mark.parametrize("values", [[[0.0, 1.0]], [[1.0, -1.0]], [[float("inf"), 1.0]], [[float("nan"), 1.0]]])
def test_values_that_are_no_measurements_are_refused(values):
    with pytest.raises(ValueError, match="above 0"):
        paired.compare_family([entry(values)])


def test_median_and_spread():
    assert paired.summary([1, 2, 3, 4, 100]) == {"median": 3, "spread": 2, "count": 5}


@pytest.mark.parametrize(
    ("confidence", "freedom", "expected"),
    [(0.95, 1, 12.706), (0.95, 2, 4.3027), (0.95, 9, 2.2622), (0.99, 5, 4.0321), (0.95, 100, 1.9840)],
)
def test_student_by_the_tables(confidence, freedom, expected):
    assert paired.student_quantile(confidence, freedom) == pytest.approx(expected, rel=1e-4)
