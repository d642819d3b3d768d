"""Intervals of shares, and a paired test of two candidates."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from core.evaluation.checks import Verdict
from core.units import counted

Z = 1.959963984540054
"""Quantile of the normal distribution for an interval of 95 %."""
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Share:
    """A share of passed cases with its Wilson interval (Wilson, 1927), 95 %."""

    passed: int
    n: int
    """Cases with a verdict; errors have none."""
    share: float | None
    """0 to 1; None without a case."""
    low: float
    high: float


@dataclass(frozen=True)
class Paired:
    """Exact McNemar test of two candidates on the same cases."""

    n: int
    """Cases that both passed or failed."""
    only_first: int
    """Cases that only the first passed."""
    only_second: int
    p: float
    """Two-sided, from the binomial distribution of the cases in which they differ."""

    @property
    def differ(self) -> bool:
        """Whether the difference is significant at 5 %."""
        return self.p < SIGNIFICANT

    @property
    def sentence(self) -> str:
        """What the test says about the second candidate, compared with the first."""
        if not self.n:
            return "No case has a verdict for both."
        counts = f"+{self.only_second} −{self.only_first}, p = {self.p:.2g}"
        if not self.differ:
            return f"Cannot be told apart with {counted(self.n, 'case')} ({counts})."
        return f"{'Better' if self.only_second > self.only_first else 'Worse'} ({counts})."


def share_of(verdicts: Iterable[Verdict | None]) -> Share:
    """Return the share of passes among passes and failures."""
    counted = [verdict for verdict in verdicts if verdict in (Verdict.PASS, Verdict.FAIL)]
    passed, n = counted.count(Verdict.PASS), len(counted)
    low, high = wilson(passed, n)
    return Share(passed, n, passed / n if n else None, low, high)


def wilson(passed: int, n: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a share, (0, 1) without a case."""
    if not n:
        return 0.0, 1.0
    share, z2 = passed / n, Z * Z
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # Rounding must not exclude the share itself.
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def paired(first: Iterable[Verdict | None], second: Iterable[Verdict | None]) -> Paired:
    """Compare the verdicts of two candidates on the same cases, in the same order."""
    both = [
        (one is Verdict.PASS, other is Verdict.PASS)
        for one, other in zip(first, second, strict=True)
        if {one, other} <= {Verdict.PASS, Verdict.FAIL}
    ]
    only_first, only_second = both.count((True, False)), both.count((False, True))
    return Paired(len(both), only_first, only_second, mcnemar(only_first, only_second))


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p-value of McNemar's test, 0 to 1."""
    n, fewer = only_first + only_second, min(only_first, only_second)
    tail = sum(math.comb(n, k) for k in range(fewer + 1))
    return min(1.0, float(2 * tail / 2**n)) if n else 1.0
