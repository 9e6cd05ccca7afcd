from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from segkit.study.scores import rightly_empty
from segkit.study.statistics import LEVEL, Pair, Table, bootstrap, compare, holm, wilcoxon
from segkit.study.verdicts import APART, Measure, judge

SEED_NOISE = 0.01
PATIENTS_APART = 0.08


def simulate(
    rng: np.random.Generator,
    studies: int,
    variants: int,
    seeds: int,
    patients: int,
    *,
    interaction: float = 0.0,
    residual: float = 0.01,
    draw: Callable[[tuple[int, ...]], Table] | None = None,
) -> Table:
    """Null studies: (variants, studies, seeds, patients) Dice.

    Patients differ, each training has luck, each patient responds to a variant in its own way (interaction, zero on
    average), and each training has its luck with each patient (residual).
    """
    draw = draw or rng.standard_normal
    base = 0.8 + PATIENTS_APART * draw((1, studies, 1, patients))
    training = SEED_NOISE * draw((variants, studies, seeds, 1))
    response = interaction / math.sqrt(2) * draw((variants, studies, 1, patients))
    return base + training + response + residual * draw((variants, studies, seeds, patients))


def found(tables: Table) -> NDArray[np.bool_]:
    """Whether each variant is told from the first, (variants - 1, studies): the verdict's own rule, many at once."""
    comparisons = compare([Pair(table, tables[0]) for table in tables[1:]])
    corrected = holm(np.stack([comparison.p for comparison in comparisons]))
    return np.stack([comparison.found(p, LEVEL) for comparison, p in zip(comparisons, corrected, strict=True)])


def measure(
    tables: Table | Sequence[Table], metric: str = "dice", channel: str = "all", direction: int | None = 1
) -> Measure:
    return Measure(metric, channel, direction, {f"v{i}": np.asarray(table, float) for i, table in enumerate(tables)})


def verdicts(tables: Table | Sequence[Table], **words: Any) -> list[str]:
    return [result.verdict for result in judge([measure(tables, **words)], [f"v{i}" for i in range(len(tables))], "v0")]


@pytest.mark.parametrize("variants", [2, 3, 6])
@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("patients", [2, 3, 5, 16])
def test_at_most_one_null_study_in_twenty_has_a_false_verdict(variants: int, seeds: int, patients: int) -> None:
    rng = np.random.default_rng([variants, seeds, patients])
    studies = 3000
    heavy = lambda shape: rng.standard_t(3, shape) / math.sqrt(3)  # noqa: E731
    words: dict[str, Any]
    for words in (
        {"residual": 0.0},
        {"residual": 0.01},
        {"residual": 0.03},
        {"interaction": 0.01},
        {"interaction": 0.05},
        {"interaction": 0.01, "draw": heavy},
    ):
        rate = found(simulate(rng, studies, variants, seeds, patients, **words)).any(axis=0).mean()
        assert rate <= 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / studies), words


def test_the_rate_over_all_kinds_of_null_studies_is_at_most_one_in_twenty() -> None:
    rng = np.random.default_rng(0)
    rates = [
        found(simulate(rng, 400, variants, seeds, patients, interaction=interaction)).any(axis=0).mean()
        for variants in (2, 4, 6)
        for seeds in (2, 3, 5)
        for patients in (3, 5, 10, 16)
        for interaction in (0.0, 0.01, 0.02)
    ]
    assert np.mean(rates) <= 0.05


@pytest.mark.parametrize("variants, patients, power", [(2, 3, 0.95), (2, 10, 0.99), (6, 3, 0.9), (6, 10, 0.99)])
def test_a_planted_difference_of_five_hundredths_is_found_with_five_seeds(
    variants: int, patients: int, power: float
) -> None:
    tables = simulate(np.random.default_rng(1), 2000, variants, 5, patients)
    tables[1] += 0.05
    assert found(tables)[0].mean() >= power


def test_most_patients_reacting_differently_costs_power_not_trust() -> None:
    tables = simulate(np.random.default_rng(2), 2000, 2, 5, 3, interaction=0.03)
    assert found(tables).mean() <= 0.055
    tables[1] += 0.05
    assert found(tables).mean() < 0.6


def test_identical_configurations_under_two_names_cannot_be_told_apart() -> None:
    rng = np.random.default_rng(3)
    tables = simulate(rng, 1, 2, 5, 16)[:, 0]
    assert verdicts(tables)[1] == APART
    assert verdicts([tables[0], tables[0]])[1] == APART  # the very same trainings


def test_a_planted_difference_is_better_or_worse() -> None:
    tables = list(simulate(np.random.default_rng(4), 1, 2, 5, 16)[:, 0])
    assert verdicts([tables[0], tables[1] + 0.05]) == ["reference", "better"]
    assert verdicts([tables[0], tables[1] - 0.05]) == ["reference", "worse"]
    assert verdicts([tables[0], tables[1] + 0.05], direction=-1)[1] == "worse"
    assert verdicts([tables[0], tables[1] + 0.05], direction=None)[1] == "higher"
    assert verdicts([tables[0], tables[1] - 0.05], direction=None)[1] == "lower"


def test_the_verdict_says_one_seed_and_few_patients() -> None:
    tables = simulate(np.random.default_rng(5), 1, 2, 5, 16)[:, 0]
    tables[1] += 0.3
    assert verdicts(tables[:, :1])[1] == f"one seed: {APART}"
    assert verdicts(tables[:, :, :4])[1] == "fewer than five patients: better"
    assert verdicts(tables[:, :1, :4])[1] == f"one seed, fewer than five patients: {APART}"
    assert verdicts([tables[0], tables[1][:1]])[1] == f"one seed: {APART}"
    assert verdicts(tables[:, :, :1])[1] == f"fewer than five patients: {APART}"


def test_variants_and_references_without_trials_are_named() -> None:
    tables = simulate(np.random.default_rng(6), 1, 2, 3, 5)[:, 0]
    assert verdicts([tables[0], tables[1][:0]]) == ["reference", "no finished trial"]
    assert verdicts([tables[0][:0], tables[1]]) == ["no finished trial", "nothing to compare with"]


def test_training_noise_alone_is_no_finding_however_many_patients_agree() -> None:
    """Every patient gains the same, all of it one lucky seed: Wilcoxon is sure, the verdict is not."""
    base = np.linspace(0.6, 0.9, 12)
    tables = [base + np.array([[0.0], [0.02]]), base + np.array([[0.03], [0.0]])]
    result = judge([measure(tables)], ["v0", "v1"], "v0")[1]
    assert result.p_wilcoxon < 0.001
    assert result.ci_low > 0
    assert result.verdict == APART


def test_means_and_the_two_spreads() -> None:
    table = np.array([[0.5, 0.7, 0.9], [0.6, 0.8, 1.0]])
    reference, result = judge([measure([table - [[0.1, 0.1, 0.4]], table])], ["v0", "v1"], "v0")
    assert result.mean == pytest.approx(0.75)
    assert result.sd_seeds == pytest.approx(np.std([0.7, 0.8], ddof=1))
    assert result.sd_patients == pytest.approx(np.std([0.55, 0.75, 0.95], ddof=1))
    assert result.difference == pytest.approx(0.2)
    assert result.difference == pytest.approx(result.mean - reference.mean)
    assert (result.seeds, result.patients, result.patients_compared) == (2, 3, 3)


def test_the_combined_error_is_that_of_the_formula() -> None:
    rng = np.random.default_rng(7)
    reference, variant = 0.8 + 0.05 * rng.standard_normal((3, 6)), 0.8 + 0.05 * rng.standard_normal((5, 6))
    (comparison,) = compare([Pair(variant, reference)])
    a, b = variant.mean(1).var(ddof=1), reference.mean(1).var(ddof=1)
    typical = np.median([a, b])  # no training counts as luckier than the study's typical one
    parts = np.array([max(a, typical) / 5, max(b, typical) / 3, (variant.mean(0) - reference.mean(0)).var(ddof=1) / 6])
    assert comparison.error == pytest.approx(math.sqrt(parts.sum()))
    freedom = parts.sum() ** 2 / (parts**2 / [4, 2, 5]).sum()
    assert comparison.freedom == pytest.approx(freedom)
    assert comparison.p == pytest.approx(2 * stats.t.sf(abs(comparison.difference) / comparison.error, freedom))
    assert comparison.p_seeds == pytest.approx(stats.ttest_ind(variant.mean(1), reference.mean(1), equal_var=False)[1])
    assert comparison.p_patients == pytest.approx(stats.ttest_rel(variant.mean(0), reference.mean(0))[1])
    low, high = comparison.interval()
    assert (low + high) / 2 == pytest.approx(comparison.difference)
    assert high - low == pytest.approx(2 * stats.t.ppf(0.975, freedom) * comparison.error)


def test_three_against_three_seeds_of_the_first_study_could_have_shown_three_hundredths() -> None:
    """Run-to-run standard deviation 0.010: a difference of 0.031 can be seen (normal power, not corrected)."""
    seeds = np.array([[-0.01], [0.0], [0.01]])
    (comparison,) = compare([Pair(seeds + np.zeros(500), seeds + 1e-9 * np.arange(500))])
    assert comparison.smallest(1, LEVEL) == pytest.approx(0.031, abs=0.001)
    assert comparison.smallest(5, LEVEL) > comparison.smallest(1, LEVEL)


def test_the_smallest_detectable_difference_is_detected_four_times_in_five() -> None:
    rng = np.random.default_rng(8)
    tables = simulate(rng, 3000, 2, 5, 8)
    (comparison,) = compare([Pair(tables[1], tables[0])])
    smallest = np.median([compare([Pair(tables[1][i], tables[0][i])])[0].smallest(1, LEVEL) for i in range(0, 300)])
    tables[1] += smallest
    assert comparison.p.shape == (3000,)
    assert 0.7 < found(tables).mean() < 0.95


def test_holm_against_known_values() -> None:
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.5, 0.9])) == pytest.approx([1.0, 1.0])
    assert holm(np.array([0.02])) == pytest.approx([0.02])
    assert holm(np.zeros(0)).shape == (0,)


def test_holm_leaves_out_what_was_not_tested() -> None:
    corrected = holm(np.array([math.nan, 0.01, 0.04]))
    assert math.isnan(corrected[0])
    assert corrected[1:] == pytest.approx([0.02, 0.04])


def test_holm_works_along_the_first_axis() -> None:
    p = np.random.default_rng(9).random((6, 4))
    assert holm(p) == pytest.approx(np.stack([holm(column) for column in p.T], axis=1))


def test_wilcoxon_is_scipys_and_defined_without_differences() -> None:
    values = np.array([0.1, -0.02, 0.3, 0.05, 0.07, 0.11])
    assert wilcoxon(values) == pytest.approx(stats.wilcoxon(values).pvalue)
    assert wilcoxon(np.zeros(4)) == 1.0
    assert wilcoxon(np.array([0.1, 0.2, 0.3])) == pytest.approx(0.25)  # three patients can reach no less
    assert math.isnan(wilcoxon(np.zeros(0)))


def test_bootstrap_resamples_patients_repeatably() -> None:
    values = np.random.default_rng(10).normal(0.1, 0.05, 40)
    low, high = bootstrap(values)
    assert (low, high) == bootstrap(values)
    half = 1.96 * values.std() / math.sqrt(40)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.003)
    assert bootstrap(np.full(3, 0.2)) == pytest.approx((0.2, 0.2))
    assert all(math.isnan(end) for end in bootstrap(np.array([0.2])))


def test_a_difference_without_any_noise_is_certain_and_no_difference_is_none() -> None:
    flat = np.full((3, 4), 0.5)
    certain, none = compare([Pair(flat - 0.5, flat), Pair(flat, flat)])
    assert (certain.p, none.p) == (0.0, 1.0)  # type: ignore[comparison-overlap]
    assert (certain.p_seeds, certain.p_patients) == (0.0, 0.0)  # type: ignore[comparison-overlap]


def test_patients_undefined_in_a_trial_are_left_out_of_the_difference_and_counted() -> None:
    tables = simulate(np.random.default_rng(11), 1, 2, 3, 6)[:, 0]
    tables[1][2, 5] = math.nan
    tables[0][:, 0] = math.nan
    reference, result = judge([measure(tables)], ["v0", "v1"], "v0")
    assert (reference.patients, result.patients, result.patients_compared) == (5, 6, 4)
    assert result.difference == pytest.approx((tables[1][:, 1:5] - tables[0][:, 1:5]).mean())
    assert not math.isnan(result.mean)


def test_nothing_defined_is_no_verdict_and_no_warning() -> None:
    result = judge([measure(np.full((2, 3, 4), math.nan))], ["v0", "v1"], "v0")[1]
    assert result.verdict == "nothing to compare with"
    assert math.isnan(result.mean)


def test_other_measures_are_corrected_apart_from_the_headline_and_more_strictly() -> None:
    tables = list(simulate(np.random.default_rng(12), 1, 3, 5, 16)[:, 0])
    tables[1] = tables[1] + 0.05
    others = [measure(tables, "iou"), measure(tables, "dice", "wall"), measure(tables, "hd95", direction=-1)]
    results = judge([measure(tables), *others], ["v0", "v1", "v2"], "v0")
    assert len(results) == 12
    headline, rest = results[:3], results[3:]
    assert [r.p_holm for r in headline[1:]] == pytest.approx(list(holm(np.array([r.p for r in headline[1:]]))))
    assert [r.verdict for r in headline] == ["reference", "better", APART]
    for variant in ("v1", "v2"):  # the headline tells v1 apart: its other measures are a family of their own
        told = [r for r in rest if r.variant == variant]
        assert [r.p_holm for r in told] == pytest.approx(list(holm(np.array([r.p for r in told]))))
    assert {r.verdict for r in rest if r.metric == "hd95" and r.variant == "v1"} == {"worse"}
    assert rest[1].smallest_detectable > headline[1].smallest_detectable


@pytest.mark.slow
def test_false_verdicts_over_all_measures_of_a_study() -> None:
    """Six correlated measures of each variant: the whole report of a null study rarely says anything."""
    rng, wrong, studies = np.random.default_rng(13), 0, 60
    for _ in range(studies):
        tables = simulate(rng, 1, 3, 3, 5)[:, 0]
        noisy = [measure(tables + 0.01 * rng.standard_normal(tables.shape), str(i)) for i in range(5)]
        results = judge([measure(tables), *noisy], ["v0", "v1", "v2"], "v0")
        wrong += any(r.verdict not in ("reference", APART) for r in results)
    assert wrong <= stats.binom.ppf(0.99, studies, 0.05)


def healthy_study(
    rng: np.random.Generator, variants: int, seeds: int, sick: int, healthy: int, chances: Sequence[float]
) -> Table:
    """A study in which some patients have no structure: (variants, seeds, patients) Dice as the tables count it.

    Each patient without structure tempts all trainings alike; a training of a variant marks something in it with the
    variant's chance at most.
    """
    tables = simulate(rng, 1, variants, seeds, sick + healthy)[:, 0]
    tempting = rng.random(healthy)
    predicted = np.ones(tables.shape, bool)
    predicted[..., sick:] = rng.random((variants, seeds, healthy)) < np.array(chances)[:, None, None] * tempting
    truth = np.broadcast_to(np.arange(sick + healthy) < sick, tables.shape)
    tables[~truth] = np.where(predicted[~truth], 0.0, math.nan)
    flat = [array.reshape(-1, sick + healthy) for array in (truth, predicted)]
    tables[rightly_empty(np.ones_like(flat[0]), *flat).reshape(tables.shape)] = 1.0
    return tables


def told(tables: Table) -> list[str]:
    return [word.split(": ")[-1] for word in verdicts(tables)[1:]]


@pytest.mark.parametrize("variants, seeds, sick, healthy", [(2, 3, 5, 5), (2, 5, 8, 8), (4, 3, 10, 4), (3, 2, 0, 8)])
@pytest.mark.parametrize("chance", [0.1, 0.5, 1.0])
def test_healthy_patients_cause_no_more_false_verdicts(
    variants: int, seeds: int, sick: int, healthy: int, chance: float
) -> None:
    rng, studies, wrong = np.random.default_rng([variants, seeds, sick, int(10 * chance)]), 150, 0
    for _ in range(studies):
        tables = healthy_study(rng, variants, seeds, sick, healthy, [chance] * variants)
        defined = ~np.isnan(tables).any(axis=(0, 1))
        assert (defined == ~np.isnan(tables).all(axis=(0, 1))).all(), "a patient is compared in all trials or in none"
        if defined.sum() >= 2:
            wrong += bool(found(tables[:, None, :, defined]).any())
    assert wrong <= stats.binom.ppf(0.99, studies, 0.05)


@pytest.mark.slow
def test_marking_something_in_healthy_patients_is_worse() -> None:
    rng, found_harm = np.random.default_rng(14), 0
    for _ in range(50):
        tables = healthy_study(rng, 2, 3, 5, 5, [0.05, 50.0])
        verdict = told(tables)
        found_harm += verdict == ["worse"]
        assert verdict != ["better"]
    assert found_harm >= 45


def test_bootstrap_of_many_patients_is_that_of_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    from segkit.study import statistics

    values = np.random.default_rng(15).exponential(1.0, 800)
    computed = bootstrap(values)
    monkeypatch.setattr(statistics, "MANY", 1000)
    drawn = bootstrap(values)
    assert computed == pytest.approx(drawn, abs=0.05 * (drawn[1] - drawn[0]))
    assert bootstrap(np.full(2000, 0.2)) == pytest.approx((0.2, 0.2))
