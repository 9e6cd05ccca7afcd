"""What a report says, block by block, whatever it is rendered to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from segkit.components.metrics import direction
from segkit.errors import counted
from segkit.report import cases, prose
from segkit.study.summary import Line, Summary


@dataclass(frozen=True)
class Heading:
    """A section's heading."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """Plain text."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list of sentences; `alarming` ones are set off."""

    items: Sequence[str]
    alarming: bool = False


@dataclass(frozen=True)
class Alarm:
    """A warning that nobody may miss."""

    text: str


@dataclass(frozen=True)
class Table:
    """A table; numbers are text already. `folded` tables are long and open on request."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    folded: str = ""


@dataclass(frozen=True)
class Figures:
    """Figures by file name, each with its caption."""

    captions: dict[str, str]


@dataclass(frozen=True)
class Cases:
    """The chosen cases of every variant."""

    chosen: Sequence[cases.Chosen]
    variants: Sequence[str]


@dataclass(frozen=True)
class Code:
    """A file's text, opened on request."""

    title: str
    text: str


Block = Heading | Paragraph | Bullets | Alarm | Table | Figures | Cases | Code


def build(summary: Summary, drawn: Iterable[str]) -> list[Block]:
    """Return the report's blocks: the verdict first, then what it rests on, then what was run."""
    drawn = list(drawn)
    return [
        *_state(summary),
        *_verdict(summary),
        *_missing(summary),
        *_warnings(summary),
        *_figures(drawn),
        *_cases(summary),
        *_failures(summary),
        *_everything(summary),
        *_first_batch(summary),
        *_what_was_run(summary),
    ]


def _state(summary: Summary) -> list[Block]:
    finished = sum(len(summary.finished(variant)) for variant in summary.variants)
    total = counted(len(summary.trials), "trial")
    texts = [f"{counted(len(summary.variants), 'variant')}, {finished} of {total} finished."]
    texts += [prose.INCOMPLETE] if summary.missing else []
    texts += [prose.NO_TEST_SET] if summary.whole else []
    return [Paragraph(" ".join(texts)), *(Alarm(text) for text in summary.alarms)]


def _missing(summary: Summary) -> list[Block]:
    return [Heading("Missing"), Bullets(summary.missing, alarming=True)] if summary.missing else []


def _interval(cells: dict[str, str], low: str, high: str) -> str:
    return f"{cells[low]} to {cells[high]}" if cells[low] else ""


def verdict_table(summary: Summary) -> Table:
    """Return the headline's table; its numbers are those of summary.csv."""
    name = summary.headline[0].result.metric if summary.lines else "dice"
    head = ["variant", "verdict", "Dice" if name == "dice" else name, "patients", "SD seeds", "SD patients"]
    head += ["difference", prose.BOOTSTRAP, prose.BOTH, "p", prose.WILCOXON, prose.SHOWN, "trials"]
    rows = []
    for line in summary.headline:
        cells = line.cells()
        row = [*(cells[key] for key in ("variant", "verdict", "mean")), _patients(line)]
        row += [cells[key] for key in ("sd_seeds", "sd_patients", "difference")]
        row += [_interval(cells, "ci_low", "ci_high"), _interval(cells, "t_low", "t_high")]
        row += [cells[key] for key in ("p_holm", "p_wilcoxon_holm", "smallest_detectable")]
        planned = len(summary.of(line.result.variant))
        rows.append([*row, f"{line.trials} of {planned}"])
    return _filled(head, rows)


def _patients(line: Line) -> str:
    """Return how many patients a mean is of, and how many are compared where that is another number."""
    result = line.result
    others = result.patients_compared and result.patients_compared != result.patients
    return f"{result.patients} ({result.patients_compared} compared)" if others else str(result.patients)


def _filled(head: Sequence[str], rows: Sequence[Sequence[str]], folded: str = "") -> Table:
    """Return a table without the columns that say nothing in any row."""
    kept = [i for i in range(len(head)) if any(row[i] for row in rows)]
    return Table([head[i] for i in kept], [[row[i] for i in kept] for row in rows], folded)


def _verdict(summary: Summary) -> list[Block]:
    if not summary.lines:
        return []
    verdicts = [line.result.verdict for line in summary.headline]
    metric = summary.headline[0].result.metric
    named = {"dice": ("Dice", " (masks at one half, or arg max with exclusive classes)")}.get(metric, (metric, ""))
    table = verdict_table(summary)
    compared = len(summary.variants) > 1
    heading = f"Verdict: each variant against {summary.reference}" if compared else "Result"
    blocks: list[Block] = [Heading(heading), table]
    blocks += [Bullets(summary.notes)] if summary.notes else []
    least = min((line.result.seeds for line in summary.headline if line.result.seeds), default=0)
    blocks += [Paragraph({1: prose.ONE_SEED, 2: prose.TWO_SEEDS}[least])] if least in (1, 2) else []
    blocks += [Paragraph(prose.FEW_PATIENTS)] if any("fewer than" in verdict for verdict in verdicts) else []
    measured = prose.MEASURED.format(metric=named[0], hard=named[1])
    texts = [" ".join([measured, *_told(prose.COLUMNS, table)]), " ".join(_told(prose.BESIDE, table))]
    texts[1:1] = [prose.JUDGED] if "p" in table.head else []
    return [*blocks, *(Paragraph(text) for text in texts if text)]


def _told(texts: Mapping[str, str], table: Table) -> list[str]:
    return [text for column, text in texts.items() if column in table.head]


def _warnings(summary: Summary) -> list[Block]:
    """Return what the guards said, each text once with the trials it is about."""
    found: dict[str, list[str]] = {}
    for trial in summary.trials:
        for text in trial.info.get("warnings") or []:
            found.setdefault(str(text), []).append(trial.name)
    if not found:
        return []
    items = [f"{text} ({_shortened(names, len(summary.trials))})" for text, names in found.items()]
    return [Heading("Warnings"), Bullets(items, alarming=True)]


def _shortened(names: Sequence[str], total: int) -> str:
    if len(names) == total > 1:
        return "all trials"
    return "; ".join(names[:6]) + (f"; and {len(names) - 6} more" if len(names) > 6 else "")


def _figures(drawn: Sequence[str]) -> list[Block]:
    shown = {name: caption for name, caption in prose.CAPTIONS.items() if name in drawn}
    return [Heading("Figures"), Figures(shown)] if shown else []


def _cases(summary: Summary) -> list[Block]:
    chosen = cases.choose(summary)
    if not chosen:
        return []
    return [Heading("Cases"), Paragraph(prose.CASES), Cases(chosen, summary.variants)]


def _failures(summary: Summary) -> list[Block]:
    """Return how often something was missed or invented, a line for each variant and channel."""
    if not summary.lines:
        return []
    metric = summary.headline[0].result.metric
    lines = [line for line in summary.lines if line.result.metric == metric]
    keys = ("variant", "channel", "structures", "empty_truth", "missed", "false_positive_on_empty", "rightly_empty")
    head = ["variant", "channel", "cases x channels x trials", "empty truth", "missed", "false positive on empty truth"]
    head += ["rightly left empty"]
    return [
        Heading("Failures"),
        Paragraph(prose.FAILURES),
        Table([*head, f"{metric} undefined"], [_pick(line, (*keys, "undefined")) for line in lines]),
    ]


def _pick(line: Line, keys: Sequence[str]) -> list[str]:
    cells = line.cells()
    return [cells[key] for key in keys]


def _everything(summary: Summary) -> list[Block]:
    if len(summary.lines) <= len(summary.variants):
        return []
    keys = ("variant", "metric", "channel", "verdict", "mean")
    rows = []
    for line in summary.lines:
        cells = line.cells()
        row = [*(cells[key] for key in keys), _patients(line)]
        row += [
            *(cells[key] for key in ("sd_seeds", "sd_patients", "difference")),
            _interval(cells, "ci_low", "ci_high"),
        ]
        row += [_interval(cells, "t_low", "t_high"), cells["p_holm"], cells["p_wilcoxon_holm"]]
        rows.append([*row, cells["smallest_detectable"]])
    head = ["variant", "metric", "channel", "verdict", "mean", "patients", "SD seeds", "SD patients", "difference"]
    head += [prose.BOOTSTRAP, prose.BOTH, "p", prose.WILCOXON, prose.SHOWN]
    metrics = list(dict.fromkeys(line.result.metric for line in summary.lines))
    less = [metric for metric in metrics if direction(metric) == -1]
    texts = [prose.OTHERS] if len(summary.variants) > 1 else []
    texts += [prose.LESS_IS_BETTER.format(metrics=", ".join(less))] if less else []
    texts += [prose.DISTANCES] if prose.IN_MM & set(metrics) else []
    told: list[Block] = [Paragraph(" ".join(texts))] if texts else []
    return [Heading("All metrics and channels"), *told, _filled(head, rows, counted(len(rows), "row"))]


def _first_batch(summary: Summary) -> list[Block]:
    rows = []
    for variant in summary.variants:
        terms: list[dict[str, object]]
        terms = next((t.info["first_batch"] for t in summary.of(variant) if t.info.get("first_batch")), [])
        rows += [[variant, str(t["term"]), _number(t.get("value")), _share(t.get("gradient_share"))] for t in terms]
    if not rows:
        return []
    return [
        Heading("First batch"),
        Paragraph(prose.FIRST_BATCH),
        Table(["variant", "term", "value", "share of the gradient"], rows),
    ]


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "not finite"


def _share(value: object) -> str:
    return f"{100 * value:.1f} %" if isinstance(value, int | float) else ""


def _what_was_run(summary: Summary) -> list[Block]:
    """Return data, hardware, versions, time and the recipe; where trials differ, every value with its count."""
    infos = [trial.info for trial in summary.trials if trial.info]
    rows = []
    for name in ("name", "cases", "patients", "fingerprint"):
        rows.append([f"data: {name}", _values(info.get("data", {}).get(name) for info in infos)])
    for name in ("train", "validation"):
        rows.append([f"{name} cases", _values(len(info.get("split", {}).get(name, [])) for info in infos)])
    rows += [
        [name, _values(info.get(name) for info in infos)] for name in ("hardware", "device", "precision", "threads")
    ]
    versions = list(dict.fromkeys(name for info in infos for name in info.get("versions", {})))
    rows += [[name, _values(info.get("versions", {}).get(name) for info in infos)] for name in versions]
    seconds = sum(float(info.get("seconds") or 0) for info in infos)
    rows.append(["training time, all trials", f"{seconds / 60:.1f} minutes"])
    blocks: list[Block] = [Heading("What was run"), Table(["", ""], rows)] if infos else [Heading("What was run")]
    recipe = summary.run / "recipe.toml"
    if recipe.is_file():
        blocks.append(Code("The recipe, filled in", recipe.read_text(encoding="utf-8", errors="replace")))
    return blocks


def _values(values: Iterable[object]) -> str:
    counts = Counter(str(value) for value in values if value is not None)
    if len(counts) == 1:
        return next(iter(counts))
    return "; ".join(f"{value} ({counted(count, 'trial')})" for value, count in counts.most_common())
