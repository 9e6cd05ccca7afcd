"""The sentences that every report says."""

from __future__ import annotations

from collections.abc import Sequence


def listed(names: Sequence[str], most: int = 6) -> str:
    """Return names as a list in a sentence, the first few of many."""
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


MEASURED = (
    "{metric} is computed for every validation case and channel at native resolution{hard}. A patient's cases are "
    "averaged first, so that each patient counts once."
)
COLUMNS = {
    "patients": "Patients: how many the mean is of, and how many of them are compared where that is another number.",
    "SD seeds": "SD seeds: what training again changes (standard deviation of the seeds' means).",
    "SD patients": "SD patients: how unlike patients are.",
    "difference": "The difference is paired by patient.",
}
BOOTSTRAP, BOTH = "95 % (patients, bootstrap)", "95 % (patients and seeds)"
WILCOXON, SHOWN = "p (Wilcoxon)", "could have shown"
JUDGED = (
    "A variant is called better or worse only if its difference stands out from training noise and patients together "
    "(p, corrected by Holm's method for all comparisons of this table, below 0.05), and also from the seeds alone and "
    "from the patients alone (each below 0.05). Of simulated studies in which nothing differs, at most one in twenty "
    "then has a false verdict."
)
BESIDE = {
    WILCOXON: "Wilcoxon's signed-rank test and the bootstrap interval know nothing of training noise: they stand "
    "beside the verdict and do not make it.",
    SHOWN: "Could have shown: the smallest true difference that this study finds four times in five.",
}
ONE_SEED = (
    "One seed cannot show training noise, so that no difference is told from it: set study.seeds to at least three, "
    "better five."
)
TWO_SEEDS = (
    "Two seeds show little of the training noise: with three, better five, much smaller differences are told apart."
)
FEW_PATIENTS = "With fewer than five patients the result holds for these patients and says little about others."
INCOMPLETE = "This study is not complete: what is missing stands below the verdict."
CASES = (
    "Cases at the 5th, 25th, 50th and 95th percentile of the reference, the same for each variant. Truth: solid blue; "
    "prediction: dashed orange. The number is that of the pictured trial."
)
NO_TEST_SET = (
    "There is no test set: the epoch of each checkpoint was chosen on the very cases that are reported here, so that "
    "all values are somewhat better than new patients would give."
)
FAILURES = (
    "Counted once for each case, channel and finished trial. A missed structure and a false positive on empty truth "
    "are the worst value (an overlap of 0, a distance of the image's diagonal). A structure that is neither there nor "
    "predicted is undefined and not averaged where no trial marks it; where another trial does, it was rightly left "
    "empty and counts as the metric's best value."
)
OTHERS = (
    "Other metrics and single channels are judged after the headline: those of variants that the headline tells apart "
    "together at 5 %, those of all others together at 1 %, each corrected by Holm's method."
)
LESS_IS_BETTER = "Smaller is better for {metrics}."
IN_MM = {"hausdorff", "hd95", "assd"}
DISTANCES = "Distances are in mm; in pixels where the data have no spacing."
FIRST_BATCH = (
    "What each term of the loss weighs before anything is learned: its value and its share of the gradient's norm."
)
_BAND = "Line: mean over trials; band: from the least to the largest."
CAPTIONS = {
    "effect": "Difference from the reference. Where the thin line crosses zero, noise alone explains it; without a "
    "thin line, training noise is not known.",
    "distribution": "Every validation case. Box: first to third quartile and median; whiskers: 5th and 95th "
    "percentile.",
    "val_dice": f"Dice on the validation cases after each epoch, the mean over cases. {_BAND}",
    "val_loss": f"Validation loss. {_BAND}",
    "train_loss": f"Training loss. {_BAND}",
    "learning_rate": "Learning rate of each epoch.",
}
