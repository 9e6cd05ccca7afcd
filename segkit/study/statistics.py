"""Statistics of a study: arrays in, dataclasses out.

Two things make a difference uncertain: training again gives another model (seeds), and other patients are other
patients. The verdict accounts for both at once. Seeds are random "readers" and patients random "cases" of two
"treatments" (multi-reader multi-case analysis: Obuchowski and Rockette 1995; Hillis 2007); seeds of two variants are
not paired. With s_A, s_B the standard deviations of the seeds' means and s_D that of the patients' differences

    SE^2 = s_A^2 / n_A + s_B^2 / n_B + s_D^2 / patients

and difference / SE is compared with Student's t with the degrees of freedom of Satterthwaite (1946). The noise of a
single seed in a single patient is in both parts, so SE is slightly too large. With three patients or two seeds a
deviation may be small by chance. Therefore, first, none counts as less than the median of the study's, and second, the
difference must stand out from the seeds alone (Welch's t) and from the patients alone (paired t) as well. Wilcoxon's
test and the bootstrap interval, both over patients, ignore training noise and are shown beside the verdict.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.float64]

LEVEL = 0.05
"""Family-wise error rate of the headline's comparisons: the chance of any false "better" or "worse"."""
LEVEL_OTHERS = 0.01
"""The same for all other metrics and channels together, which are many and exploratory."""
POWER = 0.8
RESAMPLES = 9999
MANY = 500
"""The number of patients above which the bootstrap interval is computed without resampling."""


@dataclass(frozen=True)
class Pair:
    """A variant and the reference: values (..., seeds, patients) of the same patients, none undefined."""

    variant: Table
    reference: Table

    @property
    def testable(self) -> bool:
        """Whether the noise of both seeds and patients can be estimated."""
        return bool(min(self.variant.shape[-2], *self.reference.shape[-2:]) >= 2)


@dataclass(frozen=True)
class Comparison:
    """The difference of a variant from the reference; numbers, or arrays over the leading axes of a `Pair`.

    Attributes:
        difference: variant minus reference, mean over patients of the means over seeds.
        error: its standard error from seeds and patients together.
        freedom: the degrees of freedom of `error`.
        p: of the difference against both together.
        p_seeds, p_patients: against each alone.
        alone: standard error and degrees of freedom of each of the two alone.
    """

    difference: Table
    error: Table
    freedom: Table
    p: Table
    p_seeds: Table
    p_patients: Table
    alone: tuple[tuple[Table, Table], tuple[Table, Table]]

    def found(self, corrected: Table | float, level: float) -> NDArray[np.bool_]:
        """Return whether the difference is significant, given `p` corrected for the study's comparisons."""
        return (corrected < level) & (self.p_seeds < LEVEL) & (self.p_patients < LEVEL)

    def interval(self) -> tuple[float, float]:
        """Return the 95 % interval of the difference from seeds and patients together, not corrected."""
        half = float(_quantile(0.975, self.freedom) * self.error)
        return float(self.difference) - half, float(self.difference) + half

    def smallest(self, comparisons: int, level: float) -> float:
        """Return the smallest true difference that this study detects with a power of 80 %.

        (t(1 - level / 2 / comparisons) + t(0.8)) * SE for both sources together, and with level 5 % and no correction
        for each alone; the largest of the three.
        """
        parts = [(self.error, self.freedom, level / comparisons), *((*alone, LEVEL) for alone in self.alone)]
        return max(float((_quantile(1 - a / 2, df) + _quantile(POWER, df)) * se) for se, df, a in parts)


def compare(pairs: Sequence[Pair]) -> list[Comparison]:
    """Compare each variant of a study with its reference; all pairs must be `testable`."""
    if not pairs:
        return []
    seeds = [_variance(pair.variant.mean(axis=-1)) for pair in pairs]
    references = [_variance(pair.reference.mean(axis=-1)) for pair in pairs]
    patients = [_variance(pair.variant.mean(axis=-2) - pair.reference.mean(axis=-2)) for pair in pairs]
    typical = np.median([references[0], *seeds], axis=0), np.median(patients, axis=0)
    return [_compare(pair, typical) for pair in pairs]


def _variance(values: Table) -> Table:
    return np.asarray(values.var(axis=-1, ddof=1))


def _compare(pair: Pair, typical: tuple[Table, Table]) -> Comparison:
    from scipy import stats

    means, others = pair.variant.mean(axis=-1), pair.reference.mean(axis=-1)
    differences = pair.variant.mean(axis=-2) - pair.reference.mean(axis=-2)
    raw = [_variance(means), _variance(others), _variance(differences)]
    counts = [means.shape[-1], others.shape[-1], differences.shape[-1]]
    floors = (typical[0], typical[0], typical[1])
    parts = [np.maximum(v, floor) / n for v, floor, n in zip(raw, floors, counts, strict=True)]
    error, freedom = _satterthwaite(parts, counts)
    difference = np.asarray(differences.mean(axis=-1))
    with warnings.catch_warnings():  # scipy warns of constant samples, which are decided below
        warnings.simplefilter("ignore", RuntimeWarning)
        p_seeds = stats.ttest_ind(means, others, axis=-1, equal_var=False).pvalue
        p_patients = stats.ttest_1samp(differences, 0.0, axis=-1).pvalue
        p = 2 * stats.t.sf(np.abs(difference) / error, freedom)
    return Comparison(
        difference=difference,
        error=error,
        freedom=freedom,
        p=_decided(p, difference),
        p_seeds=_decided(p_seeds, difference),
        p_patients=_decided(p_patients, difference),
        alone=(_satterthwaite(parts[:2], counts[:2]), _satterthwaite(parts[2:], counts[2:])),
    )


def _decided(p: Table, difference: Table) -> Table:
    """Return p with 0 / 0 resolved: without any noise, p is 1 for no difference and 0 for any."""
    return np.where(np.isnan(p), np.where(difference == 0, 1.0, 0.0), p)


def _satterthwaite(parts: Sequence[Table], counts: Sequence[int]) -> tuple[Table, Table]:
    """Return the standard error of a sum of independent parts and its degrees of freedom (Satterthwaite 1946)."""
    total = np.asarray(sum(parts))
    below = np.asarray(sum(part**2 / (count - 1) for part, count in zip(parts, counts, strict=True)))
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = np.where(below > 0, total**2 / below, min(counts) - 1.0)
    return np.sqrt(total), freedom


def _quantile(probability: float, freedom: Table) -> Table:
    from scipy.special import stdtrit

    return np.asarray(stdtrit(freedom, probability))


def holm(p: Table) -> Table:
    """Return p-values along the first axis corrected for their number; NaN stays and does not count.

    The k-th smallest of m is multiplied by m - k + 1; none may be below a smaller one's (Holm 1979, Scand. J. Stat.
    6, p. 67; scipy has only the correction of the false discovery rate).
    """
    p = np.asarray(p, dtype=np.float64)
    order = np.argsort(p, axis=0)
    ranked = np.take_along_axis(p, order, axis=0)
    count = np.sum(~np.isnan(p), axis=0)
    steps = count - np.arange(len(p)).reshape(-1, *[1] * (p.ndim - 1))
    stepped = np.minimum(1.0, np.maximum.accumulate(ranked * steps, axis=0))
    corrected = np.empty_like(p)
    np.put_along_axis(corrected, order, stepped, axis=0)
    return corrected


def wilcoxon(differences: Table) -> float:
    """Return the two-sided p of Wilcoxon's signed-rank test over patients; 1 where no patient differs."""
    from scipy import stats

    if not differences.size:
        return math.nan
    if not differences.any():
        return 1.0
    with warnings.catch_warnings():  # small samples with ties
        warnings.simplefilter("ignore")
        return float(stats.wilcoxon(differences).pvalue)


def bootstrap(differences: Table) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of the mean; patients are resampled, from a fixed seed.

    Above `MANY` patients nothing is drawn: the ends are those of the same distribution by its expansion to the order
    of its skewness (Cornish and Fisher 1938), as near to it as the draws would be.
    """
    count = differences.size
    if count < 2:
        return math.nan, math.nan
    mean = float(differences.mean())
    centred = differences - mean
    if count <= MANY:
        low, high = np.percentile(_resampled(count) @ centred, (2.5, 97.5)) / count
        return mean + float(low), mean + float(high)
    spread = math.sqrt(float((centred**2).mean()))
    skewness = float((centred**3).mean()) / spread**3 if spread else 0.0
    z = float(_quantile(0.975, np.asarray(math.inf)))
    shift = (z * z - 1) * skewness / (6 * math.sqrt(count))
    error = spread / math.sqrt(count)
    return mean + (shift - z) * error, mean + (shift + z) * error


@functools.lru_cache(maxsize=1)
def _resampled(count: int) -> Table:
    """Return (RESAMPLES, patients): the number of times each patient is in each resample."""
    return np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), RESAMPLES).astype(np.float64)
