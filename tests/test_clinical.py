"""End-diastolic and end-systolic volumes and ejection fraction in a report, against loops over made-up patients."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segkit
from segkit.components.datasets.case import Case, Dataset
from segkit.plugins import isolated
from segkit.report import figures, render, tables
from segkit.study.clinical import Agreement, Clinical, clinical_measures
from segkit.study.summary import summarize
from tests import small
from tests.fake_runs import write_recipe, write_trial

CHANNELS, SEEDS = ("lv", "rv"), (1, 2, 3)
Volumes = dict[tuple[str, str], tuple[str, float]]  # by case and channel: patient and true volume


def truths(patients: int = 6, frames: tuple[str, ...] = ("1", "9")) -> Volumes:
    """Return a large first and a smaller last volume, but for patient 2, whose volumes come in the other order."""
    rng = np.random.default_rng(4)
    found: Volumes = {}
    for patient in range(patients):
        for channel in CHANNELS:
            sizes = sorted(rng.uniform(40, 160, len(frames)), reverse=patient != 2)
            for frame, size in zip(frames, sizes, strict=True):
                found[f"p{patient}/frame{frame}", channel] = f"p{patient}", float(size)
    return found


def tags_of(volumes: Volumes, phases: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the phase of each case by its frame."""
    return {case: {"phase": phases[case.partition("frame")[2]]} for case, _ in volumes}


def error(case: str, channel: str, variant: str, seed: int) -> float:
    """Return the error of a prediction in ml: another for each."""
    draw = np.random.default_rng([*case.encode(), *channel.encode(), *variant.encode(), seed])
    return float(draw.normal(8 if variant == "large" else 0, 5))


def study(
    run: Path,
    volumes: Volumes,
    tags: Mapping[str, Mapping[str, str]] | None = None,
    predicted: Mapping[tuple[str, int, str, str], float] | None = None,
) -> Path:
    """Write a run of two variants; `predicted` replaces volumes by variant, seed, case and channel."""
    write_recipe(run, ("none", "large"), SEEDS)
    for variant in ("none", "large"):
        for seed in SEEDS:
            rows = []
            for (case, channel), (patient, true) in volumes.items():
                key = variant, seed, case, channel
                found = (predicted or {}).get(key, true + error(case, channel, variant, seed))
                numbers = {"dice": 0.9, "volume_ml": found, "volume_difference_ml": found - true}
                rows += [
                    [case, patient, channel, metric, "validation", "" if math.isnan(value) else repr(value), 500, 480]
                    for metric, value in numbers.items()
                ]
            data = {"name": "made up", "cases": 12, "patients": 6} | ({"tags": tags} if tags else {})
            write_trial(run, variant, seed, epochs=3, pictures=False, rows=rows, info={"data": data})
    return run


def measures(run: Path) -> Clinical:
    found = clinical_measures(summarize(run))
    assert found is not None
    return found


def of(found: Clinical, variant: str, channel: str, measure: str) -> Agreement:
    (agreement,) = (a for a in found.agreements if (a.variant, a.channel, a.measure) == (variant, channel, measure))
    return agreement


def expected(volumes: Volumes, cases: Mapping[str, tuple[str, str]], variant: str, channel: str) -> dict[str, Any]:
    """Return (truth, prediction, bias, low, high) by measure, with loops; `cases` are ED and ES of each patient."""
    pairs: dict[str, list[tuple[float, float]]] = {"EDV (ml)": [], "ESV (ml)": [], "EF (%)": []}
    for diastole, systole in cases.values():
        true = [volumes[case, channel][1] for case in (diastole, systole)]
        found = [
            [volumes[case, channel][1] + error(case, channel, variant, seed) for case in (diastole, systole)]
            for seed in SEEDS
        ]
        for number, name in enumerate(("EDV (ml)", "ESV (ml)")):
            pairs[name].append((true[number], statistics.fmean(pair[number] for pair in found)))
        fractions = [100 * (ed - es) / ed for ed, es in found]
        pairs["EF (%)"].append((100 * (true[0] - true[1]) / true[0], statistics.fmean(fractions)))
    result = {}
    for name, values in pairs.items():
        differences = [found - true for true, found in values]
        bias, deviation = statistics.fmean(differences), statistics.stdev(differences)
        means = [statistics.fmean(column) for column in zip(*values, strict=True)]
        result[name] = (*means, bias, bias - 1.96 * deviation, bias + 1.96 * deviation)
    return result


def numbers(agreement: Agreement) -> tuple[float, ...]:
    return agreement.truth, agreement.prediction, agreement.bias, agreement.low, agreement.high


def test_tagged_phases_give_volumes_and_ejection_fraction(tmp_path: Path) -> None:
    volumes = truths()
    found = measures(study(tmp_path, volumes, tags_of(volumes, {"1": "ED", "9": "es"})))
    assert (found.tagged, found.patients, found.left_out, len(found.agreements)) == (True, 6, 0, 12)
    cases = {f"p{n}": (f"p{n}/frame1", f"p{n}/frame9") for n in range(6)}
    for variant in ("none", "large"):
        for channel in CHANNELS:
            for name, values in expected(volumes, cases, variant, channel).items():
                agreement = of(found, variant, channel, name)
                assert numbers(agreement) == pytest.approx(values, abs=1e-9)
                assert agreement.patients == 6


def test_without_tags_the_largest_and_the_smallest_true_volume_are_the_phases(tmp_path: Path) -> None:
    volumes = truths(frames=("1", "5", "9"))
    volumes |= {("alone/frame1", channel): ("alone", 99.0) for channel in CHANNELS}
    found = measures(study(tmp_path, volumes))
    assert (found.tagged, found.patients, found.left_out) == (False, 6, 1)
    cases = {f"p{n}": (f"p{n}/frame1", f"p{n}/frame9") for n in range(6)}
    cases["p2"] = ("p2/frame9", "p2/frame1")
    for name, values in expected(volumes, cases, "large", "rv").items():
        assert numbers(of(found, "large", "rv", name)) == pytest.approx(values, abs=1e-9)


def test_a_patient_without_exactly_one_volume_of_each_phase_is_left_out(tmp_path: Path) -> None:
    volumes = truths()
    tags = tags_of(volumes, {"1": "ED", "9": "ES"})
    tags["p0/frame9"]["phase"], tags["p1/frame9"]["phase"] = "ED", "mid"
    found = measures(study(tmp_path, volumes, tags))
    assert (found.patients, found.left_out) == (4, 2)
    assert {agreement.patients for agreement in found.agreements} == {4}


def test_what_is_undefined_in_one_training_is_not_averaged(tmp_path: Path) -> None:
    volumes = truths()
    nothing = {("none", 2, "p1/frame1", "lv"): 0.0}  # no end-diastolic volume: no ejection fraction
    found = measures(study(tmp_path, volumes, tags_of(volumes, {"1": "ED", "9": "ES"}), nothing))
    assert [of(found, "none", "lv", name).patients for name in ("EDV (ml)", "ESV (ml)", "EF (%)")] == [6, 6, 5]
    assert of(found, "large", "lv", "EF (%)").patients == 6
    said = render.markdown(summarize(tmp_path), {})
    assert "A patient without a value in truth or in one of the trials is not counted in that row." in said
    cases = {f"p{n}": (f"p{n}/frame1", f"p{n}/frame9") for n in range(6) if n != 1}
    assert numbers(of(found, "none", "lv", "EF (%)")) == pytest.approx(
        expected(volumes, cases, "none", "lv")["EF (%)"], abs=1e-9
    )


def test_one_patient_has_a_bias_but_no_limits(tmp_path: Path) -> None:
    found = measures(study(tmp_path, truths(patients=1)))
    agreement = of(found, "none", "lv", "EF (%)")
    assert agreement.patients == 1
    assert math.isfinite(agreement.bias)
    assert math.isnan(agreement.low)
    assert tables.clinical(found).rows[0][-1] == ""


@pytest.mark.parametrize("volumes", [truths(frames=("1",)), {key: (key[0], math.nan) for key in truths()}])
def test_single_volumes_and_2d_cases_have_no_clinical_measures(tmp_path: Path, volumes: Volumes) -> None:
    run = study(tmp_path, volumes)
    assert clinical_measures(summarize(run)) is None
    assert "Clinical measures" not in render.markdown(summarize(run), {})


def test_a_study_that_does_not_measure_volumes_has_no_clinical_measures(tmp_path: Path) -> None:
    write_recipe(tmp_path, ["none"], [1])
    write_trial(tmp_path, "none", 1, epochs=3, pictures=False)
    assert clinical_measures(summarize(tmp_path)) is None


def test_the_report_shows_the_table_and_says_which_rule_was_used(tmp_path: Path) -> None:
    volumes = truths(patients=3)
    tags = tags_of(volumes, {"1": "ED", "9": "ES"})
    del tags["p0/frame9"]
    said = render.markdown(summarize(study(tmp_path / "tagged", volumes, tags)), {})
    assert "## Clinical measures" in said
    assert "The phases are the cases' tags" in said
    assert "Left out: 1 patient without exactly one volume of each phase." in said
    plain = summarize(study(tmp_path / "plain", volumes))
    said = render.markdown(plain, {})
    assert "a patient's largest true volume counts as end-diastolic, the smallest as end-systolic" in said
    assert "Left out" not in said
    assert "No value of volume_ml, volume_difference_ml is better than another." in said
    assert "Volumes are in ml." in said
    row = next(line for line in said.splitlines() if "EF (%)" in line and "large" in line)
    agreement = of(measures(tmp_path / "plain"), "large", "lv", "EF (%)")
    assert [cell.strip() for cell in row.split("|")[5:9]] == [
        *(f"{value:.2f}" for value in (agreement.truth, agreement.prediction, agreement.bias)),
        f"{agreement.low:.2f} to {agreement.high:.2f}",
    ]
    page = render.html(plain, {})
    assert "<h2>Clinical measures</h2>" in page
    assert "95 % limits of agreement" in page


def test_an_undefined_volume_of_an_empty_structure_needs_no_best_value(tmp_path: Path) -> None:
    write_recipe(tmp_path, ["none", "marks"], [1, 2])
    for variant, pixels, dice in (("none", 0, ""), ("marks", 9, "0.0")):
        for seed in (1, 2):
            made = {"dice": dice, "volume_ml": ""}
            rows = [["p0/a", "p0", "lv", name, "validation", value, 0, pixels] for name, value in made.items()]
            write_trial(tmp_path, variant, seed, epochs=3, pictures=False, rows=rows)
    said = render.markdown(summarize(tmp_path), {})
    assert "(dice 1)" in said
    assert "no best value is declared" not in said


@pytest.mark.parametrize(("metric", "unit"), [("hd95", " (mm)"), ("dice", "")])
def test_axes_state_the_unit_of_the_headlines_metric(tmp_path: Path, metric: str, unit: str) -> None:
    write_recipe(tmp_path, ["none"], [1])
    write_trial(tmp_path, "none", 1, epochs=3, pictures=False, metrics=(metric,))
    figure = figures.distribution(summarize(tmp_path))
    assert figure is not None
    assert f" of a case{unit}, mean over" in figure.axes[0].get_xlabel()


def test_exact_predictions_have_no_bias(tmp_path: Path) -> None:
    volumes = truths(patients=3)
    exact = {
        (variant, seed, *key): true
        for variant in ("none", "large")
        for seed in SEEDS
        for key, (_, true) in volumes.items()
    }
    rows = tables.clinical(measures(study(tmp_path, volumes, predicted=exact))).rows
    assert {(row[6], row[7]) for row in rows} == {("0.00", "0.00 to 0.00")}


def volume_of(case: Case, phase: str) -> Case:
    """Return an image as a volume of one slice."""
    image, masks = case.read()
    assert masks is not None
    return Case(case.name, case.patient, image[None, None], masks[:, None], (8.0, 1.0, 1.0), tags={"phase": phase})


@pytest.fixture
def _tagged() -> Iterator[None]:
    def tagged() -> Dataset:
        """The discs, of two phases."""
        found = small.discs()
        cases = [volume_of(case, "ED" if n % 2 else "ES") for n, case in enumerate(found.cases)]
        return Dataset("tagged", found.channels, tuple(cases))

    with isolated():
        segkit.datasets.register("tagged")(tagged)
        yield


@pytest.mark.usefixtures("_tagged")
def test_a_trial_records_the_tags_of_the_cases_that_it_was_not_trained_on(tmp_path: Path) -> None:
    small.train(tmp_path / "a", "data=tagged", "train.epochs=1")
    small.train(tmp_path / "b", "train.epochs=1")
    with_tags, without = (json.loads((tmp_path / run / "only/seed-1/trial.json").read_text()) for run in "ab")
    assert set(with_tags["data"]["tags"]) == set(with_tags["split"]["validation"])
    phases = {case: tags["phase"] for case, tags in with_tags["data"]["tags"].items()}
    assert phases == {case: "ED" if int(case[-1]) % 2 else "ES" for case in phases}
    assert "tags" not in without["data"]
