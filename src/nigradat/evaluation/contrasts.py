"""One method against another over the same patients: differences, tests and what may be said of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, Literal, Protocol

import numpy as np
import numpy.typing as npt

from nigradat.evaluation import published
from nigradat.evaluation.draws import Means
from nigradat.evaluation.weighted import Array
from nigradat.metrics import (
    CorrectedT,
    Estimate,
    PermutationTest,
    PerSide,
    holm,
    minimum_detectable_difference,
    nadeau_bengio,
    paired_permutation,
)

Answer = Literal["lower", "higher", "unclear"]
Permuted = Literal["absolute_error", "interval_score", ""]


@dataclass(frozen=True)
class Breakdown(PerSide["Estimate | None"]):
    """One score of each side, their average, and two other ways to count; None for what does not exist.

    Attributes:
        right, left: of that side's visits.
        average: mean of the two values, as in the paper's tables; None for a one-sided method.
        pooled: of both sides' visits as if each were a case of its own (the interval still draws patients).
        patient: of the means over both sides of each visit. Scores that only exist for a pair (asymmetry) stand here.
    """

    pooled: Estimate | None = None
    patient: Estimate | None = None

    @property
    def headline(self) -> Estimate | None:
        """The average, or what there is: the one answered side, or the patients."""
        return self.average or self.right or self.left or self.patient


@dataclass(frozen=True)
class Pair:
    """A question about two methods that is asked before the data are looked at.

    Attributes:
        first, second: registry names; every difference is first less second.
        question: what the difference answers, for people.
        primary: the score that the verdict rests on.
        modes: of the spreads that are compared, first and second; None compares no spreads.
        published: the paper's own number for it, in ``published_unit``; None where it has none.
        published_unit: ``relative`` (share of the second's score) or ``absolute`` (of the primary score).
        claim: 1 or 2 for the paper's two claims, else 0.
        extension: first goes beyond the paper and must earn its place.
        wanted: a gain that was asked for in advance, in units of the primary score; None for none.
    """

    first: str
    second: str
    question: str
    primary: Literal["mae", "rmse", "pearson_r", "sharpness_at_cp"] = "mae"
    modes: tuple[str, str] | None = ("mc", "mc")
    published: float | None = None
    published_unit: Literal["relative", "absolute"] = "absolute"
    claim: int = 0
    extension: bool = False
    wanted: float | None = None

    @property
    def name(self) -> str:
        """For files and machines; the modes are named where the question is about them."""
        if self.primary == "sharpness_at_cp" and self.modes is not None:
            return f"{self.first}/{self.modes[0]} vs {self.second}/{self.modes[1]}"
        return f"{self.first} vs {self.second}"


PROPOSED: Final = "sym-vgg-plus"
FAMILY: Final = (
    Pair(
        PROPOSED,
        "vgg-small",
        "The paper's first claim: a lower error than one regressor per side",
        published=published.MAE_REDUCTION,
        published_unit="relative",
        claim=1,
    ),
    Pair(
        PROPOSED,
        "vgg-small",
        "The paper's second claim: symmetric MC on the proposed net is sharper than MC on one regressor per side",
        "sharpness_at_cp",
        ("s1", "mc"),
        published=published.SHARPNESS_GAIN,
        claim=2,
    ),
    Pair(
        PROPOSED, PROPOSED, "Symmetric MC against plain MC, same net", "sharpness_at_cp", ("s1", "mc"), published=0.03
    ),
    Pair(PROPOSED, "sym-vgg", "The symmetric term of the loss (lambda)"),
    Pair(PROPOSED, "sym-vgg-plus-unmirrored", "Mirroring the right patch"),
    Pair("sym-vgg", "vgg-small", "One tower shared by both sides"),
    Pair("vit", PROPOSED, "ViT in place of the proposed net"),
    Pair("mobilenetv3", PROPOSED, "MobileNetV3 in place of the proposed net"),
    Pair("resnet18", PROPOSED, "ResNet-18 in place of the proposed net"),
    Pair("vgg16", PROPOSED, "VGG-16 in place of the proposed net"),
    Pair(
        "fused",
        PROPOSED,
        "Extension: the other side's prediction used at inference",
        "pearson_r",
        ("s7", "s1"),
        extension=True,
        wanted=0.029,
    ),
    Pair(
        "sym-vgg-log",
        PROPOSED,
        "Extension: a spread that grows with SBR (log-normal head)",
        "sharpness_at_cp",
        ("s1", "s1"),
        extension=True,
    ),
    Pair("ensemble", PROPOSED, "Extension: mean of several trainings", extension=True),
    Pair(PROPOSED, "ridge", "The proposed net against six hand-made features", modes=None),
)
"""The comparisons of a study, fixed in advance; those whose methods are both there make the family of Holm's test."""


@dataclass(frozen=True)
class Contrast:
    """Two methods on the same patients; every difference is first less second.

    Intervals and the permutation test take the trained networks as given and draw patients; ``replicates`` asks what
    other splits and trainings would have given.

    Attributes:
        pair: the question.
        titles: of both methods, for people.
        differences: ``mae``, ``rmse``, ``pearson_r`` (0 where a net is compared with itself), and where both have
            the spreads ``sharpness_at_cp``, and ``interval_score`` of the calibrated intervals (SBR, lower is better).
            Those that some of the splits lack are left out.
        relative_mae: difference in MAE over the second's MAE, a share: -.12 is "12 % lower".
        permutation: sign flips of the patients' mean differences in ``permuted``; None where there is nothing to flip.
        permuted: ``absolute_error`` (SBR, mean of sides, visits and fits) or, where the question is about spreads,
            ``interval_score`` of the calibrated intervals; empty with no test.
        p_holm: the permutation's p after Holm over the family; nan with no test.
        replicates: t interval of the primary score's difference (average of sides) over splits; None below two.
        replicates_are: ``overlapping`` (splits of one cohort: Nadeau and Bengio's correction) or ``independent``
            (newly drawn cohorts: ordinary t); empty with none.
        sd: standard deviation of the patients' differences in ``permuted``, SBR; nan with no test.
        detectable: the least mean difference in ``permuted`` that so many patients show with a power of .8, SBR.
        n_patients: distinct patients; an independently drawn cohort's patients are others.
        n_splits: splits on which both were fitted.
        answer: what the primary difference's intervals allow to be said: first is ``lower``, ``higher``, or
            ``unclear``. ``lower`` and ``higher`` need an interval without zero, of the patients and, where they were
            computed, of the replicates, and p_holm below 1 - confidence where the test is about the primary score.
        better: first is better than second in the primary score (lower error, or higher R or Sharpness), as far as
            ``answer`` goes; never True for ``unclear``.
        verdict: the same in words with its numbers.
    """

    pair: Pair
    titles: tuple[str, str]
    differences: Mapping[str, Breakdown]
    relative_mae: Breakdown
    permutation: PermutationTest | None
    permuted: Permuted
    p_holm: float
    replicates: CorrectedT | None
    replicates_are: Literal["overlapping", "independent", ""]
    sd: float
    detectable: float
    n_patients: int
    n_splits: int
    answer: Answer
    better: bool
    verdict: str

    @property
    def primary(self) -> Estimate | None:
        """The difference that the verdict rests on: the average of both sides, or the one side that there is."""
        found = self.differences.get(self.pair.primary)
        return None if found is None else found.headline


@dataclass(frozen=True)
class Earned:
    """Whether an extension is worth its place.

    Attributes:
        method, title: the extension.
        gain: over the proposed net in ``score``, positive when better.
        score: the primary score of its pair.
        earned: the gain's interval lies above zero.
        wanted_reached: the gain is also as large as was asked for in advance; None where nothing was asked for.
        reason: in words, with the numbers.
    """

    method: str
    title: str
    gain: Estimate
    score: str
    earned: bool
    wanted_reached: bool | None
    reason: str


@dataclass(frozen=True)
class Skill:
    """A method against the phantom's oracles on the same patients, averaged over the splits.

    Attributes:
        method: registry name.
        r_ratio: R / R of the oracle that sees its own side only.
        excess_mse: MSE less that oracle's, SBR^2.
        headroom: (R - R_single) / (R_pair - R_single): the part of what the other side could add that was used;
            negative for a method below the one-sided oracle. Only a method that uses the other side at inference can
            exceed 0.
    """

    method: str
    r_ratio: Breakdown
    excess_mse: Breakdown
    headroom: Breakdown


# -- Gathered split by split --------------------------------------------------------------------------------------

PARTS: Final = ("right", "left", "average", "pooled", "patient")
ABSOLUTE_ERROR: Final = "absolute_error"
COMPARED: Final = ("mae", "rmse", "pearson_r")
EstimateOf = Callable[[Array], Estimate]


class EstimateTested(Protocol):
    """A vector, and the patients that it rests on, to an estimate."""

    def __call__(self, vector: Array, tested: npt.NDArray[np.bool_]) -> Estimate:
        """See :meth:`nigradat.evaluation.draws.Draws.estimate`."""
        ...


def breakdown(vectors: Mapping[str, Array], name: str, estimate: EstimateOf) -> Breakdown:
    """A score of which there are vectors ``name/part``."""
    keys = (f"{name}/{part}" for part in PARTS)
    return Breakdown(*(estimate(vectors[k]) if k in vectors else None for k in keys))


@dataclass(frozen=True, eq=False)
class SplitMean:
    """One method on one split, averaged over its seeds.

    Attributes:
        title: for people.
        vectors: scores by ``name/part``, see :class:`nigradat.evaluation.draws.Draws`; a mode's are called
            ``mode:name/part``.
        losses: ``absolute_error`` and ``mode:interval_score`` of each visit and side, ``(n, 2)`` SBR; nan without an
            answer.
        n_train: training patients.
    """

    title: str
    vectors: Mapping[str, Array]
    losses: Mapping[str, Array]
    n_train: int


@dataclass
class ContrastTally:
    """A pair's differences, gathered over the splits on which both methods were fitted.

    Attributes:
        pair: the question.
        n_patients: of all splits together.
        titles: of both methods.
        differences: first less second, of :data:`COMPARED` and of the pair's modes.
        second_mae: what the relative difference is relative to.
        tested: ``(n_patients,)``, who was tested on both.
        loss_sum, loss_count: ``(n_patients,)``: differences of the visits' losses, and how many.
        of_splits: the primary score's difference on each split.
        n_train, n_test: patients of each split.
    """

    pair: Pair
    n_patients: int
    titles: tuple[str, str] = ("", "")
    differences: Means = field(default_factory=Means)
    second_mae: Means = field(default_factory=Means)
    of_splits: list[float] = field(default_factory=list)
    n_train: list[int] = field(default_factory=list)
    n_test: list[int] = field(default_factory=list)
    tested: npt.NDArray[np.bool_] = field(init=False)
    loss_sum: Array = field(init=False)
    loss_count: Array = field(init=False)

    def __post_init__(self) -> None:
        self.tested = np.zeros(self.n_patients, dtype=np.bool_)
        self.loss_sum, self.loss_count = np.zeros(self.n_patients), np.zeros(self.n_patients)

    def add(self, first: SplitMean, second: SplitMean, patient_of_visit: npt.NDArray[np.intp]) -> None:
        """Count a split, unless the primary score cannot be compared on it.

        Args:
            first, second: on the same visits.
            patient_of_visit: ``(n,)``, among all patients.
        """
        sides = _answered_alike(first, second)
        parts = PARTS if len(sides) == 2 else tuple(PARTS[side] for side in sides)
        found = {f"{name}/{part}": _difference(first, second, name, name, part) for name in COMPARED for part in parts}
        if self.pair.modes is not None:
            one, two = self.pair.modes
            for name in ("sharpness_at_cp", "interval_score"):
                for part in parts:
                    found[f"{name}/{part}"] = _difference(first, second, f"{one}:{name}", f"{two}:{name}", part)
        differences = {name: vector for name, vector in found.items() if vector is not None}
        primary = [differences[key] for key in _headline_keys(self.pair.primary) if key in differences]
        if not primary:
            return
        self.titles = _titles(self.pair, first.title, second.title)
        self.differences.add(differences)
        self.second_mae.add({k: second.vectors[k] for k in (f"mae/{part}" for part in parts) if k in second.vectors})
        self.of_splits.append(float(primary[0][0]))
        self.n_train.append(first.n_train)
        self.n_test.append(len(np.unique(patient_of_visit)))
        self.tested[patient_of_visit] = True
        one, two = self.loss_names
        if one in first.losses and two in second.losses:
            lost = (first.losses[one] - second.losses[two])[:, list(sides)]
            answered = np.isfinite(lost).all(axis=1)
            np.add.at(self.loss_sum, patient_of_visit[answered], lost[answered].mean(axis=1))
            np.add.at(self.loss_count, patient_of_visit[answered], 1.0)

    @property
    def loss_names(self) -> tuple[str, str]:
        """Whose difference is permuted: the errors, or where the question is about spreads their interval scores."""
        if self.pair.primary == "sharpness_at_cp" and self.pair.modes is not None:
            return f"{self.pair.modes[0]}:interval_score", f"{self.pair.modes[1]}:interval_score"
        return ABSOLUTE_ERROR, ABSOLUTE_ERROR

    @property
    def patient_losses(self) -> Array:
        """Mean difference in loss of each patient who has one."""
        known = self.loss_count > 0
        return self.loss_sum[known] / self.loss_count[known]


def settle(
    tallies: Sequence[ContrastTally],
    estimate: EstimateTested,
    *,
    confidence: float,
    independent: bool,
    seed: int,
) -> tuple[Contrast, ...]:
    """The contrasts of a family; those without a common split are left out.

    Args:
        tallies: in the family's order.
        estimate: see :meth:`nigradat.evaluation.draws.Draws.estimate`.
        confidence: level of every interval.
        independent: the splits are newly drawn cohorts.
        seed: of the permutations.
    """
    compared = [tally for tally in tallies if tally.of_splits]
    tests = [
        paired_permutation(tally.patient_losses, seed=seed) if tally.loss_count.any() else None for tally in compared
    ]
    adjusted = holm({str(i): math.nan if test is None else test.p for i, test in enumerate(tests)})
    made = (
        _contrast(tally, test, p, partial(estimate, tested=tally.tested), confidence, independent)
        for tally, test, p in zip(compared, tests, adjusted.values(), strict=True)
    )
    return tuple(contrast for contrast in made if contrast.primary is not None)


def _contrast(
    tally: ContrastTally,
    permutation: PermutationTest | None,
    p_holm: float,
    estimate: EstimateOf,
    confidence: float,
    independent: bool,
) -> Contrast:
    pair, n_splits = tally.pair, len(tally.of_splits)
    # a score that some of the splits lack would be a difference on other patients
    means = {k: v for k, v in tally.differences.means().items() if tally.differences.counts[k] == n_splits}
    names = (*COMPARED, "sharpness_at_cp", "interval_score")
    differences = {name: found for name in names if (found := breakdown(means, name, estimate)).headline is not None}
    second = tally.second_mae.means()
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = {k: means[k] / second[k] for k in means if k in second}
    losses = tally.patient_losses
    sd = float(np.std(losses, ddof=1)) if len(losses) > 1 else math.nan
    permuted: Permuted = "absolute_error" if tally.loss_names[0] == ABSOLUTE_ERROR else "interval_score"
    replicates = None
    if n_splits > 1:
        n_train, n_test = round(np.mean(tally.n_train)), round(np.mean(tally.n_test))
        replicates = nadeau_bengio(tally.of_splits, n_train, 0 if independent else n_test, confidence)
    contrast = Contrast(
        pair=pair,
        titles=tally.titles,
        differences=differences,
        relative_mae=breakdown(relative, "mae", estimate),
        permutation=permutation,
        permuted="" if permutation is None else permuted,
        p_holm=p_holm,
        replicates=replicates,
        replicates_are="" if replicates is None else ("independent" if independent else "overlapping"),
        sd=sd,
        detectable=minimum_detectable_difference(sd, len(losses), level=confidence),
        n_patients=int(np.count_nonzero(tally.tested)),
        n_splits=n_splits,
        answer="unclear",
        better=False,
        verdict="",
    )
    answer, doubts = _answer(contrast, confidence)
    higher_is_better = pair.primary in _HIGHER_IS_BETTER
    better = answer == ("higher" if higher_is_better else "lower")
    return replace(contrast, answer=answer, better=better, verdict=_verdict(contrast, answer, doubts))


def _answered_alike(first: SplitMean, second: SplitMean) -> tuple[int, ...]:
    """The sides on which both methods answer the same visits."""
    one, two = (np.isfinite(method.losses[ABSOLUTE_ERROR]) for method in (first, second))
    return tuple(i for i in range(2) if one[:, i].any() and (one[:, i] == two[:, i]).all())


def _difference(first: SplitMean, second: SplitMean, one: str, two: str, part: str) -> Array | None:
    a, b = first.vectors.get(f"{one}/{part}"), second.vectors.get(f"{two}/{part}")
    if a is None or b is None:
        return None
    with np.errstate(invalid="ignore"):  # no Sharpness on either side of a hopeless resample
        # what rounding leaves of two equal scores must not pass for a difference
        return np.where(np.abs(a - b) > 1e-12 * np.maximum(np.abs(a), np.abs(b)), a - b, 0.0 * (a - b))


def _headline_keys(score: str) -> tuple[str, str, str]:
    return f"{score}/average", f"{score}/right", f"{score}/left"


def _titles(pair: Pair, first: str, second: str) -> tuple[str, str]:
    """With the way to look at the samples where the question is about spreads, as the paper names it."""
    if pair.primary != "sharpness_at_cp" or pair.modes is None:
        return first, second
    one, two = (_MODE_TITLES.get(mode, mode.upper()) for mode in pair.modes)
    return f"{one} + {first}", f"{two} + {second}"


# -- In words -----------------------------------------------------------------------------------------------------

_MODE_TITLES: Final = {"mc": "MC", "s1": "Symmetric MC"}
_HIGHER_IS_BETTER: Final = ("pearson_r", "sharpness_at_cp")
_WORDS: Final = {"mae": "MAE", "rmse": "RMSE", "pearson_r": "R", "sharpness_at_cp": "Sharpness @ CP"}


def _answer(contrast: Contrast, confidence: float) -> tuple[Answer, tuple[str, ...]]:
    """What may be said, and what speaks against saying more."""
    difference = contrast.primary
    if difference is None or not (difference.low > 0 or difference.high < 0):
        return "unclear", ()
    doubts = []
    about_primary = contrast.permuted == "absolute_error" and contrast.pair.primary == "mae"
    if about_primary and not contrast.p_holm < 1 - confidence:
        doubts.append(f"p is {_shown(contrast.p_holm)} after Holm")
    over = contrast.replicates
    if over is not None and over.low <= 0 <= over.high:
        kind = "newly drawn cohorts" if contrast.replicates_are == "independent" else "splits"
        doubts.append(f"over {over.replicates} {kind} the interval is {_span(over.low, over.high)}")
    if doubts:
        return "unclear", tuple(doubts)
    return ("lower" if difference.high < 0 else "higher"), ()


def _verdict(contrast: Contrast, answer: Answer, doubts: Sequence[str]) -> str:
    """One sentence, never stronger than the intervals allow."""
    pair, difference = contrast.pair, contrast.primary
    word = _WORDS[pair.primary]
    if difference is None or not math.isfinite(difference.low):
        return f"Cannot be said: the interval of the difference in {word} is undefined."
    if not (difference.low > 0 or difference.high < 0):
        paper = _of_paper(pair)
        return (
            f"Not shown: difference in {word} {_shown(difference.value)} ({_span(difference.low, difference.high)})"
            + (f"; {paper}." if paper else ".")
        )
    text = f"{word} {'lower' if difference.high < 0 else 'higher'} by {_size(difference)}"
    relative = contrast.relative_mae.headline
    if pair.primary == "mae" and relative is not None and math.isfinite(relative.low):
        text += f", {_size(relative, percent=True)} of that of {contrast.titles[1]}"
    if doubts:
        text += f", but not shown: {' and '.join(doubts)}"
    paper = _of_paper(pair)
    return f"{text}; {paper}." if paper else f"{text}."


def _of_paper(pair: Pair) -> str:
    if pair.published is None:
        return ""
    size, way = abs(pair.published), "lower" if pair.published < 0 else "higher"
    return (
        f"the paper: {100 * size:.1f} % {way}" if pair.published_unit == "relative" else f"the paper: {size:.3f} {way}"
    )


def _size(difference: Estimate, percent: bool = False) -> str:
    """A difference that excludes zero, without its sign: ``0.031 (0.010 to 0.052)``, ``4.1 % (1.3 to 7.0)``."""
    factor, digits, unit = (100.0, 1, " %") if percent else (1.0, 3, "")
    low, high = sorted(abs(factor * end) for end in (difference.low, difference.high))
    return f"{_shown(abs(factor * difference.value), digits)}{unit} ({_span(low, high, digits)})"


def _span(low: float, high: float, digits: int = 3) -> str:
    return f"{_shown(low, digits)} to {_shown(high, digits)}"


def _shown(value: float, digits: int = 3) -> str:
    """Rounded, but never to a zero that it is not: an interval must not seem to touch it."""
    text = f"{value:.{digits}f}"
    return text if float(text) or not value else f"{value:.1g}"


# -- What an extension must show ----------------------------------------------------------------------------------


def earn_their_place(contrasts: Sequence[Contrast]) -> tuple[Earned, ...]:
    """For each extension: does the interval of its gain over the proposed net exclude zero in the right direction?

    The gain is of the pair's primary score, over the patients and with the trained networks as given; what the
    replicates say against it is added to the reason.
    """
    return tuple(_earned(contrast) for contrast in contrasts if contrast.pair.extension)


def _earned(contrast: Contrast) -> Earned:
    pair, difference = contrast.pair, contrast.primary
    assert difference is not None  # a contrast without its primary score is not made
    gain = difference
    if pair.primary not in _HIGHER_IS_BETTER:
        gain = replace(difference, value=-difference.value, low=-difference.high, high=-difference.low)
    earned = gain.low > 0
    reached = None if pair.wanted is None else bool(earned and gain.value >= pair.wanted)
    answer = (
        "Earned its place on these patients" if earned else "Not shown to help; its rows stand for the record alone"
    )
    reason = f"{answer}. {contrast.verdict}"
    if pair.wanted is not None:
        reason += (
            f" Asked for in advance: a gain of {pair.wanted:.3f} or more; {'reached' if reached else 'not reached'}."
        )
    return Earned(pair.first, contrast.titles[0], gain, pair.primary, earned, reached, reason)


# -- Against the phantom's oracles --------------------------------------------------------------------------------

ORACLE_SINGLE, ORACLE_PAIR = "oracle-single", "oracle-pair"


@dataclass
class SkillTally:
    """A method's R and MSE and the oracles', gathered over the splits that have all three."""

    means: Means = field(default_factory=Means)

    def add(self, method: SplitMean, single: SplitMean, pair: SplitMean) -> None:
        """Count a split."""
        sources = (method, single, pair)
        for part in PARTS:
            if all(f"pearson_r/{part}" in source.vectors for source in sources):
                named = zip(("method", "single", "pair"), sources, strict=True)
                self.means.add(
                    {
                        f"{who}:{name}/{part}": source.vectors[f"{name}/{part}"]
                        for who, source in named
                        for name in ("pearson_r", "mse")
                    }
                )

    def skill(self, method: str, estimate: EstimateOf) -> Skill:
        """Ratios of means over splits, not means of ratios."""
        mean = self.means.means()
        ratio, excess, headroom = {}, {}, {}
        for part in PARTS:
            if f"method:pearson_r/{part}" not in mean:
                continue
            r, single, pair = (mean[f"{who}:pearson_r/{part}"] for who in ("method", "single", "pair"))
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio[f"/{part}"] = r / single
                headroom[f"/{part}"] = (r - single) / (pair - single)
            excess[f"/{part}"] = mean[f"method:mse/{part}"] - mean[f"single:mse/{part}"]
        return Skill(method, *(breakdown(vectors, "", estimate) for vectors in (ratio, excess, headroom)))
