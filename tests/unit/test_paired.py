# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verdicts on synthetic data whose difference and noise are known."""

from __future__ import annotations

import math
import random

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import paired

TRIALS = 900
# The seeds are fixed, so a right rule stays right.


def normal(chance: random.Random) -> float:
    return chance.gauss(0, 0.03)


def spiky(chance: random.Random) -> float:
    """A machine that is interrupted now and then."""
    return chance.gauss(0, 0.01) + (0.5 if chance.random() < 0.1 else 0)


def quantised(chance: random.Random) -> float:
    return round(chance.gauss(0, 0.02) / 0.02) * 0.02


def heavy(chance: random.Random) -> float:
    """Student's distribution with two degrees of freedom: its variance is infinite."""
    return 0.01 * chance.gauss(0, 1) / math.sqrt(chance.expovariate(1))


def two_modes(chance: random.Random) -> float:
    """A clock of two speeds, or two ways to lie in memory, on either side by itself."""
    return chance.gauss(0, 0.003) + (0.05 if chance.random() < 0.5 else 0)


def pairs(chance: random.Random, count: int, ratio: float, noise=normal) -> list[list[float]]:
    """Times of a machine that drifts by a third in the course of the run; the candidate is `ratio` times as fast."""
    made = []
    for turn in range(count):
        drift = 1 + turn / (3 * count)
        made.append([10 * drift * 2 ** noise(chance), 10 / ratio * drift * 2 ** noise(chance)])
    return made


def by_a_coarse_clock(chance: random.Random, count: int) -> list[list[float]]:
    """Equal times of which the clock tells the first digit behind the point."""
    return [[round(10.5 * 2 ** chance.gauss(0, 0.01), 1) for _side in range(2)] for _turn in range(count)]


def at_most(families: int) -> float:
    """The stated 5 %, and three standard deviations of so many families."""
    return 0.05 + 3 * (0.05 * 0.95 / families) ** 0.5


def false_verdicts(family: int, families: int, made) -> float:
    """The share of families of equal sides in which any verdict is false."""
    wrong = 0
    for _family in range(families):
        judged = paired.compare_family([entry(made()) for _one in range(family)])
        wrong += any(one["verdict"] != paired.EQUAL for one in judged)
    return wrong / families


def entry(values: list[list[float]], better: str = "lower") -> dict:
    return {"name": "x", "unit": "s", "better": better, "pairs": values}


@pytest.mark.parametrize("count", [5, 12])
@pytest.mark.parametrize("noise", [normal, spiky, quantised, heavy, two_modes])
def test_no_more_false_verdicts_than_stated(count, noise):
    chance = random.Random(f"{count} {noise.__name__}")  # noqa: S311 - synthetic noise
    assert false_verdicts(1, 2000, lambda: pairs(chance, count, 1, noise)) <= at_most(2000)


def test_drift_that_both_sides_share_is_no_verdict():
    """Not steady: a walk, whose steps are larger than the noise."""
    chance = random.Random(5)  # noqa: S311 - synthetic noise

    def walked() -> list[list[float]]:
        drift, made = 0.0, []
        for _turn in range(10):
            drift += chance.gauss(0, 0.1)
            made.append([10 * math.exp(drift + chance.gauss(0, 0.02)) for _side in range(2)])
        return made

    assert false_verdicts(1, 2000, walked) <= at_most(2000)


@pytest.mark.parametrize("count", [5, 20])
def test_what_it_takes_for_granted_is_that_pairs_are_independent(count):
    """No promise but its limit: ratios that follow one another give more false verdicts than stated."""
    chance = random.Random(count)  # noqa: S311 - synthetic noise

    def following() -> list[list[float]]:
        last, made = chance.gauss(0, 1), []
        for _turn in range(count):
            made.append([10.0, 10 * math.exp(0.02 * last)])
            last = 0.3 * last + chance.gauss(0, math.sqrt(1 - 0.3**2))
        return made

    assert at_most(2000) < false_verdicts(1, 2000, following) < 0.2


@pytest.mark.parametrize("family", [6, 9])
def test_no_more_false_verdicts_than_stated_in_a_family_by_a_coarse_clock(family):
    """Rounded values agree by chance, and a family is as wide as the document level's three sets and three workers."""
    chance = random.Random(family)  # noqa: S311 - synthetic noise
    assert false_verdicts(family, 2000, lambda: by_a_coarse_clock(chance, 5)) <= at_most(2000)
    assert false_verdicts(family, 2000, lambda: pairs(chance, 5, 1, quantised)) <= at_most(2000)


def starts(chance: random.Random, count: int, rounds: int) -> list[list[list[float]]]:
    """Five loads of two equal engines in `count` starts: 1 % from start to start, 0.3 % from round to round."""
    loads: list[list[list[float]]] = [[] for _load in range(5)]
    for _start in range(count):
        lies = [chance.gauss(0, 0.01), chance.gauss(0, 0.01)]
        for load in loads:
            logs = [[side + chance.gauss(0, 0.003) for side in lies] for _round in range(rounds)]
            load.append([10 * math.exp(sum(side) / rounds) for side in zip(*logs)])
    return loads


def test_what_starts_differ_by_is_no_verdict():
    """Rounds of one start as pairs would be: that is why each pair is a start."""
    chance = random.Random(11)  # noqa: S311 - synthetic noise
    families = 600

    def false(made: list[list[list[float]]]) -> bool:
        return any(one["verdict"] != paired.EQUAL for one in paired.compare_family([entry(load) for load in made]))

    assert sum(false(starts(chance, 5, 2)) for _family in range(families)) / families <= at_most(families)

    def within_one_start() -> list[list[list[float]]]:
        lies = [chance.gauss(0, 0.01), chance.gauss(0, 0.01)]
        return [
            [[10 * math.exp(side + chance.gauss(0, 0.003)) for side in lies] for _round in range(5)]
            for _load in range(5)
        ]

    assert sum(false(within_one_start()) for _family in range(families)) / families > 0.5


def test_ratios_that_agree_by_a_coarse_clock_are_no_difference():
    assert paired.compare_family([entry([[10.5, 10.4]] * 5)])[0]["verdict"] == paired.EQUAL
    by_more = [[10.5, 9.5], [10.6, 9.5], [10.5, 9.6], [10.5, 9.5], [10.4, 9.5]]
    assert paired.compare_family([entry(by_more)])[0]["verdict"] == paired.FASTER


@pytest.mark.parametrize("ratio", [1.25, 1.03, 1 / 1.1])
def test_the_interval_holds_the_truth_as_often_as_stated(ratio):
    chance = random.Random(ratio)  # noqa: S311 - synthetic noise
    found = [paired.compare_family([entry(pairs(chance, 6, ratio))])[0] for _trial in range(TRIALS)]
    missed = sum(not one["low"] <= ratio <= one["high"] for one in found) / TRIALS
    assert 0.05 - 3 * (0.05 * 0.95 / TRIALS) ** 0.5 <= missed <= at_most(TRIALS)


@pytest.mark.parametrize(
    ("ratio", "verdict"), [(1.25, paired.FASTER), (1 / 1.25, paired.SLOWER), (1.1, paired.FASTER), (0.9, paired.SLOWER)]
)
def test_a_difference_well_above_the_noise_is_found(ratio, verdict):
    chance = random.Random(ratio)  # noqa: S311 - synthetic noise
    found = [paired.compare_family([entry(pairs(chance, 6, ratio))])[0]["verdict"] for _trial in range(300)]
    assert found.count(verdict) / 300 > 0.95


def test_rates_are_better_when_higher():
    values = [[10.0, 12.0], [10.1, 12.2], [10.2, 12.1], [10.0, 12.1], [10.1, 12.1]]
    assert paired.compare_family([entry(values, "higher")])[0]["verdict"] == paired.FASTER
    assert paired.compare_family([entry(values, "lower")])[0]["verdict"] == paired.SLOWER


def test_what_has_no_pairs_keeps_its_reason_and_takes_no_share():
    alone, missing = paired.compare_family(
        [entry([[1, 2], [1.1, 2], [1, 2.1]]), {"name": "y", "unit": "s", "better": "lower", "reason": "no GPU"}]
    )
    assert alone["confidence"] == pytest.approx(0.95)
    assert missing == {"name": "y", "unit": "s", "better": "lower", "reason": "no GPU"}
    assert paired.sentence(missing) == "y: not run, no GPU"
    assert paired.sentence({**missing, "status": "failed", "reason": "it broke"}) == "y: failed, it broke"


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_too_few_pairs_give_no_verdict(count):
    assert (
        paired.compare_family([entry([[1.0, 2.0], [1.1, 2.0], [1.0, 2.1], [1.1, 2.1]][:count])])[0]["verdict"]
        == paired.TOO_FEW
    )


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


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {"verdict": "faster", "speedup": 1.2, "low": 1.1, "high": 1.31, "pairs": 5},
            "a: faster, +20.0 % (+10.0 to +31.0 %, 5 pairs)",
        ),
        (
            {"verdict": "slower", "speedup": 0.9, "low": 0.85, "high": 0.95, "pairs": 7},
            "a: slower, -10.0 % (-15.0 to -5.0 %, 7 pairs)",
        ),
        ({"verdict": paired.TOO_FEW, "low": None, "high": None, "pairs": 3}, f"a: {paired.TOO_FEW} (3)"),
        ({}, "a: not run, no reason was told"),
    ],
)
def test_a_comparison_in_words(more, said):
    assert paired.sentence({"name": "a", **more}) == said


@pytest.mark.parametrize(
    ("a", "b", "x", "expected"),
    [(0.5, 0.5, 0.5, 0.5), (1, 1, 0.25, 0.25), (2, 3, 0.4, 0.5248), (5, 2, 0.8, 0.65536)],
)
def test_the_incomplete_beta_function_by_the_tables(a, b, x, expected):
    assert paired._incomplete_beta(a, b, x) == pytest.approx(expected, abs=1e-4)


def test_no_finer_than_the_clock():
    assert paired.resolution([1.0, 1.0, 2.0, 4.0]) == pytest.approx(math.log(2))
    assert paired.resolution([3.0, 3.0]) == 0.0
    assert paired.resolution([1.0, 1.0 + 1e-12, 1.5]) == pytest.approx(math.log(1.5))
