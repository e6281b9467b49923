"""Reporting checklists, filled where the program knows the answer: TRIPOD+AI and CLAIM.

What an item asks is said in our own words, and neither words nor numbers were checked against the published lists: the
written files say so. What only the authors can know is marked for them; nothing is
guessed.

Sources: TRIPOD+AI, Collins et al., BMJ 2024, 385, e078378 (doi:10.1136/bmj-2023-078378); CLAIM, Mongan, Moy and Kahn,
Radiology: Artificial Intelligence 2020, 2(2), e200029 (doi:10.1148/ryai.2020200029).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from nigradat import __version__
from nigradat.models.weights import INTENDED_USE
from nigradat.report.methods_text import BY_AUTHORS, StudyFacts, cohort_command, design_sentence, parts_sentence


@dataclass(frozen=True)
class Item:
    """One line of a checklist: its number there, the part of the manuscript, and what it asks in our words."""

    number: str
    part: str
    asks: str


@dataclass(frozen=True)
class Answer:
    """What the program knows, and what is left to the authors; ``left`` alone makes an item theirs."""

    known: str = ""
    left: str = ""

    @property
    def text(self) -> str:
        """As it stands in the file."""
        todo = f"**{BY_AUTHORS}**{f': {self.left}' if self.left else ''}."
        if not self.known:
            return todo
        return f"{self.known} {todo}" if self.left else self.known


TRIPOD_AI: Final = tuple(
    Item(*line)
    for line in (
        ("1", "Title", "development or evaluation of a prediction model, its population and outcome"),
        ("2", "Abstract", "structured summary"),
        ("3a", "Introduction", "healthcare context and reason for the model, existing models"),
        ("3b", "Introduction", "target population, place in the care pathway, intended users"),
        ("3c", "Introduction", "known health inequalities between groups"),
        ("4", "Introduction", "objectives; development, evaluation or both"),
        ("5a", "Methods", "sources of the data and how representative they are"),
        ("5b", "Methods", "dates of the data"),
        ("6a", "Methods", "setting, number and place of centres"),
        ("6b", "Methods", "eligibility"),
        ("6c", "Methods", "treatments received"),
        ("7", "Methods", "preparation and quality checks of the data"),
        ("8a", "Methods", "the outcome and how it was measured"),
        ("8b", "Methods", "who assessed the outcome, where it takes judgement"),
        ("8c", "Methods", "blinding of the assessment of the outcome"),
        ("9a", "Methods", "choice of predictors"),
        ("9b", "Methods", "definition and measurement of predictors"),
        ("9c", "Methods", "who assessed predictors, where it takes judgement"),
        ("10", "Methods", "how the sample size was arrived at"),
        ("11", "Methods", "missing data"),
        ("12a", "Methods", "how the data were used and divided"),
        ("12b", "Methods", "how predictors enter the model"),
        ("12c", "Methods", "type of model, how it was built and tuned, internal validation"),
        ("12d", "Methods", "heterogeneity between clusters, for example hospitals"),
        ("12e", "Methods", "measures of performance and how models were compared"),
        ("12f", "Methods", "updating of the model after evaluation"),
        ("12g", "Methods", "how predictions were calculated for the evaluation"),
        ("13", "Methods", "class imbalance"),
        ("14", "Methods", "approaches to fairness"),
        ("15", "Methods", "output of the model, thresholds"),
        ("16", "Methods", "differences between development and evaluation data"),
        ("17", "Methods", "ethical approval and consent"),
        ("18a", "Open science", "funding"),
        ("18b", "Open science", "conflicts of interest"),
        ("18c", "Open science", "study protocol"),
        ("18d", "Open science", "registration"),
        ("18e", "Open science", "sharing of data"),
        ("18f", "Open science", "sharing of code"),
        ("19", "Public involvement", "involvement of patients and the public"),
        ("20a", "Results", "flow of participants"),
        ("20b", "Results", "characteristics of participants"),
        ("20c", "Results", "comparison of development and evaluation data"),
        ("21", "Results", "numbers of participants and events in each analysis"),
        ("22", "Results", "the full model, so that others can use it"),
        ("23a", "Results", "performance with confidence intervals, key subgroups"),
        ("23b", "Results", "heterogeneity of performance"),
        ("24", "Results", "results of updating"),
        ("25", "Discussion", "interpretation, fairness included"),
        ("26", "Discussion", "limitations"),
        ("27a", "Discussion", "what is done with poor or missing input"),
        ("27b", "Discussion", "whether users must interact, and with what expertise"),
        ("27c", "Discussion", "next steps for research"),
    )
)

CLAIM: Final = tuple(
    Item(*line)
    for line in (
        ("1", "Title, abstract", "named as a study of artificial intelligence, with the kind of it"),
        ("2", "Title, abstract", "structured summary"),
        ("3", "Introduction", "scientific and clinical background, intended use"),
        ("4", "Introduction", "objectives and hypotheses"),
        ("5", "Study design", "prospective or retrospective"),
        ("6", "Study design", "goal of the study"),
        ("7", "Data", "sources"),
        ("8", "Data", "eligibility: how, where and when cases were found"),
        ("9", "Data", "pre-processing"),
        ("10", "Data", "selection of subsets, for example parts of an image"),
        ("11", "Data", "definitions of data elements"),
        ("12", "Data", "de-identification"),
        ("13", "Data", "missing data"),
        ("14", "Ground truth", "definition of the reference standard"),
        ("15", "Ground truth", "reason for choosing it"),
        ("16", "Ground truth", "source of annotations, qualification of annotators"),
        ("17", "Ground truth", "tools of annotation"),
        ("18", "Ground truth", "variability within and between raters"),
        ("19", "Data partitions", "intended sample size and how it was determined"),
        ("20", "Data partitions", "how data were assigned to partitions"),
        ("21", "Data partitions", "level at which partitions are disjoint"),
        ("22", "Model", "architecture, inputs and outputs"),
        ("23", "Model", "software"),
        ("24", "Model", "initial values of the parameters"),
        ("25", "Training", "augmentation, hyper-parameters, number of models"),
        ("26", "Training", "how the final model was selected"),
        ("27", "Training", "ensembling"),
        ("28", "Evaluation", "measures of performance"),
        ("29", "Evaluation", "statistical measures of significance and uncertainty"),
        ("30", "Evaluation", "robustness or sensitivity analysis"),
        ("31", "Evaluation", "explainability"),
        ("32", "Evaluation", "validation on external data"),
        ("33", "Results: data", "flow of cases"),
        ("34", "Results: data", "demographic and clinical characteristics by partition"),
        ("35", "Results: performance", "performance of the models on the partitions"),
        ("36", "Results: performance", "estimates of accuracy with their precision"),
        ("37", "Results: performance", "analysis of failures"),
        ("38", "Discussion", "limitations"),
        ("39", "Discussion", "implications for practice"),
        ("40", "Other information", "registration"),
        ("41", "Other information", "where protocol, data and code can be had"),
        ("42", "Other information", "funding"),
    )
)


def tripod_ai(facts: StudyFacts, tables: Collection[str]) -> str:
    """TRIPOD+AI as Markdown; each of its items stands there once.

    Args:
        facts: see :func:`~nigradat.report.methods_text.gather_facts`.
        tables: names of the study's tables; no other is referred to.
    """
    return _checklist(
        "TRIPOD+AI", "Collins et al., BMJ 2024, 385, e078378", TRIPOD_AI, _tripod_answers(facts, tables), facts
    )


def claim(facts: StudyFacts, tables: Collection[str]) -> str:
    """CLAIM (42 items of 2020) as Markdown; each item stands there once. Arguments as :func:`tripod_ai`."""
    return _checklist(
        "CLAIM",
        "Mongan, Moy and Kahn, Radiology: Artificial Intelligence 2020, 2(2), e200029",
        CLAIM,
        _claim_answers(facts, tables),
        facts,
    )


def _checklist(name: str, source: str, items: Sequence[Item], answers: Mapping[str, Answer], facts: StudyFacts) -> str:
    filled = sum(1 for item in items if answers.get(item.number, Answer()).known)
    head = [
        f"# {name} checklist of this study",
        "",
        f"Source: {source}. The wording of the items is ours; **wording and numbers are to be checked against the "
        f"published checklist before this goes to a journal.** {filled} of {len(items)} items are answered, wholly or "
        f"in part, from the study's own data; the others are marked '{BY_AUTHORS}'.",
        "",
        *([f"The data are a {facts.cohort_phrase}: no statement here is about patients.", ""] if facts.label else []),
        "| Item | Part | Asks for | Answer |",
        "|---|---|---|---|",
    ]
    lines = [
        f"| {item.number} | {item.part} | {item.asks} | {_in_table(answers.get(item.number, Answer()).text)} |"
        for item in items
    ]
    return "\n".join([*head, *lines]) + "\n"


def _in_table(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


# -- Answers that both lists share --------------------------------------------------------------------------------


def _no_patients(facts: StudyFacts, known: str, left: str) -> Answer:
    """An item about people and places: answered for a phantom, which has none."""
    return Answer(known) if facts.is_phantom else Answer(left=left)


def _data(facts: StudyFacts) -> Answer:
    if facts.is_phantom:
        return Answer(
            f"Simulated: {facts.cohort_phrase}, {facts.patients:,} patients{' a draw' if facts.is_drawn else ''}."
        )
    return Answer(
        f"Own cohort, {facts.patients:,} patients, SHA-256 {facts.cohort.get('sha256')}.",
        "origin of the scans and how representative they are",
    )


def _outcome(facts: StudyFacts) -> Answer:
    scale = facts.sbr_scale
    known = "Striatal binding ratio (SBR) of the right and the left striatum, a plain ratio"
    met = [f"{name.replace('_', ' ')} {', '.join(map(str, scale[name]))}" for name in _SCALE if scale.get(name)]
    if met:
        known += f" ({'; '.join(met)})"
    if scale.get("min") is not None and scale.get("max") is not None:
        known += f", {float(scale['min']):.2f} to {float(scale['max']):.2f} in this cohort"
    return Answer(f"{known}.", "" if facts.is_phantom else "reference region and reconstruction of the SPECT")


_SCALE: Final = ("tracer", "spect_device", "spect_software")


def _preparation() -> Answer:
    return Answer(
        "Patches of 50 x 50 x 20 voxels (0.5 x 0.5 x 1 mm) around nigrosome-1, one a side; each divided by its own "
        "mean; the right one mirrored so that both sides look alike to a network. Images without a usable orientation "
        "are refused."
    )


def _partitions(facts: StudyFacts) -> Answer:
    return Answer(f"{design_sentence(facts)} Names and SHA-256 of the splits: tables/splits.csv.")


def _measures() -> Answer:
    return Answer("See methods.md, Statistics; numbers in tables/*.csv.")


def _training(facts: StudyFacts) -> Answer:
    return Answer(
        f"See methods.md, Training; {len(facts.ended)} of {len(facts.records)} fits, baselines and derived "
        "predictors ended; the resolved configuration lies beside each fit and in tables/fits.csv are its epochs."
    )


def _ethics(facts: StudyFacts) -> Answer:
    return _no_patients(facts, "No human data: the images are simulated.", "approval and consent")


def _code() -> Answer:
    return Answer(f"nigradat {__version__}, Apache-2.0.", "where this study's code and weights can be had")


def _data_sharing(facts: StudyFacts) -> Answer:
    command = cohort_command(facts)
    return Answer(f"Anybody can make the data again: `{command}`.") if command else Answer(left="availability of data")


_LIMITS: Final = Answer("A start is in report.html, Limitations.", "limitations of this cohort and its labels")
_FLOW: Final = Answer("Numbers of patients by part and split: tables/splits.csv.", "who was approached and left out")
_DETECTABLE: Final = " The smallest differences that could be detected are in tables/contrast-tests.csv."
_BY_GROUP: Final = (
    "`nigradat intervals FIT COHORT OUT` gives coverage and error by age, sex, thirds of the SBR, asymmetry and image "
    "quality."
)
_NO_EXTERNAL: Final = "None: training and test patients are of one cohort and differ only by chance."


# -- TRIPOD+AI ----------------------------------------------------------------------------------------------------


def _tripod_answers(facts: StudyFacts, tables: Collection[str]) -> dict[str, Answer]:
    def where(table: str, text: str) -> str:
        return text if table in tables else ""

    models = ", ".join(facts.titles("model").values()) or "none"
    same = "The same generator and preset" if facts.is_drawn else "The same cohort, divided at random by patient"
    return {
        "1": Answer("Development and internal evaluation of regression models for the SBR.", "the title"),
        "3b": Answer(INTENDED_USE, "place in the care pathway"),
        "4": Answer(
            "Development and internal evaluation: the methods of the paper's tables on the same patients, and its two "
            "claims (error of the symmetric regressor; sharpness of its interval)."
        ),
        "5a": _data(facts),
        "5b": _no_patients(facts, "None: simulated.", "dates of scans and SPECT"),
        "6a": _no_patients(facts, "None: simulated.", "setting and centres"),
        "6b": _no_patients(facts, "None: every simulated patient is in the cohort.", "eligibility"),
        "6c": _no_patients(facts, "None: simulated.", "treatments, drugs that act on the transporter among them"),
        "7": _preparation(),
        "8a": _outcome(facts),
        "8b": _no_patients(facts, "None: the label is simulated.", "who drew the regions of the SPECT"),
        "8c": _no_patients(facts, "Does not apply: the label is simulated.", "blinding to the MRI"),
        "9a": Answer("The two image patches alone; no clinical variable enters a network."),
        "9b": _preparation(),
        "9c": _no_patients(facts, "None: the centre of a patch is simulated, with an error.", "who placed the centres"),
        "10": Answer(
            f"{parts_sentence(facts)}{where('contrast-tests', _DETECTABLE)}",
            "" if facts.label else "how the size was arrived at",
        ),
        "11": Answer(
            "A cohort with missing labels is refused; nothing is imputed."
            + (" Readings that were not made are left out and counted." if facts.ran("observer") else "")
        ),
        "12a": _partitions(facts),
        "12b": Answer("As image patches, without selection or transformation other than item 7."),
        "12c": Answer(f"Models: {models}. {_training(facts).known}"),
        "12d": Answer("Not modelled.", "clusters such as scanners, where there are several")
        if not facts.label
        else Answer("Does not apply: one simulated scanner."),
        "12e": _measures(),
        "12f": Answer("None."),
        "12g": Answer("One deterministic pass with dropout off; predictions.tsv beside each fit."),
        "13": Answer(
            "The outcome is continuous; splits are stratified by the patients' mean SBR."
            + where("binary", " Prevalence of low uptake is in the report, below the table of low uptake.")
        ),
        "14": Answer(f"Not in the study's own tables. {_BY_GROUP}", "performance by the groups that matter"),
        "15": Answer(
            "The SBR of both sides with intervals calibrated on patients kept for that alone."
            + where("binary", f" Low uptake: SBR below {facts.plan.get('threshold')}.")
        ),
        "16": Answer(f"{same}: no difference but chance."),
        "17": _ethics(facts),
        "18e": _data_sharing(facts),
        "18f": _code(),
        "20a": _FLOW,
        "20b": _no_patients(facts, "Age, sex and SBR lie in each cohort's participants.tsv.", "characteristics"),
        "20c": Answer("Splits are stratified by mean SBR.", "" if facts.label else "comparison of the parts"),
        "21": Answer(parts_sentence(facts)),
        "22": Answer("Weights (safetensors) with a card, their SHA-256 and the resolved configuration lie in fits/."),
        "23a": Answer(f"tables/accuracy.csv, intervals over patients. Subgroups: {_BY_GROUP}", "key subgroups"),
        "23b": Answer(where("variation", "SD between fits (seeds, splits): tables/variation.csv."), "other clusters"),
        "24": Answer("None."),
        "26": _LIMITS,
        "27a": Answer("Images that are truncated, without orientation or outside the field of view are refused."),
        "27b": Answer("The centres of nigrosome-1 must be given or found.", "the expertise that this takes"),
    }


# -- CLAIM --------------------------------------------------------------------------------------------------------


def _claim_answers(facts: StudyFacts, tables: Collection[str]) -> dict[str, Answer]:
    def where(table: str, text: str) -> str:
        return text if table in tables else ""

    models = ", ".join(facts.titles("model").values()) or "none"
    versions = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    selection = "The epoch with the least MSE on the stopping patients of the same split; no choice by test patients."
    return {
        "1": Answer("Deep learning on MRI (regression).", "the title"),
        "3": Answer(INTENDED_USE, "background"),
        "4": Answer(
            "Does the symmetric regressor lower the error against one regressor a side, and does symmetric MC dropout "
            "sharpen its intervals? Answers with intervals in report.html."
        ),
        "5": _no_patients(facts, "Neither: simulated.", "prospective or retrospective"),
        "6": Answer("Comparison of methods under one protocol."),
        "7": _data(facts),
        "8": _no_patients(facts, "None: every simulated patient is in the cohort.", "eligibility"),
        "9": _preparation(),
        "10": Answer("One patch a side around nigrosome-1; nothing else of the image is used."),
        "11": _outcome(facts),
        "12": _no_patients(
            facts,
            "Nobody to identify: simulated.",
            "de-identification (the tables of a study hold no identifier, but predictions.tsv does)",
        ),
        "13": Answer("A cohort with missing labels is refused; nothing is imputed."),
        "14": _outcome(facts),
        "15": _no_patients(
            facts,
            "The phantom's label has the spread and range that the paper states.",
            "why this SPECT measure is the reference",
        ),
        "16": _no_patients(facts, "Simulated.", "who measured the SBR"),
        "17": _no_patients(facts, "Simulated.", "software of the SBR"),
        "18": _no_patients(facts, "Simulated, with label noise.", "test-retest of the SBR"),
        "19": Answer(
            f"{parts_sentence(facts)}{where('contrast-tests', _DETECTABLE)}",
            "" if facts.label else "how the size was determined",
        ),
        "20": _partitions(facts),
        "21": Answer("Patients: both sides and all visits of a patient are in one part."),
        "22": Answer(f"{models}. Sources and sizes: methods.md, Models; tables/fits.csv."),
        "23": Answer(f"{versions}."),
        "24": Answer("From scratch, by seed; see methods.md, Training."),
        "25": _training(facts),
        "26": Answer(selection),
        "27": Answer(f"Mean of fits that differ in their seed alone{where('extensions', '; tables/extensions.csv')}.")
        if facts.ran("ensemble")
        else Answer("None."),
        "28": _measures(),
        "29": _measures(),
        "30": Answer(
            where("ablation", "Ablation: tables/ablation.csv.")
            or where("variation", "tables/variation.csv (seeds, splits)."),
            "robustness to scanners and to centring",
        ),
        "31": Answer("Not part of this study."),
        "32": Answer(_NO_EXTERNAL),
        "33": _FLOW,
        "34": _no_patients(
            facts, "Age, sex and SBR lie in each cohort's participants.tsv.", "characteristics by partition"
        ),
        "35": Answer("tables/accuracy.csv (test patients)."),
        "36": Answer(
            f"tables/accuracy.csv{where('binary', ' and, for low uptake, tables/binary.csv')}, with intervals over "
            "patients."
        ),
        "37": Answer(
            f"Fits that failed: {len(facts.failed)} (reasons in tables/fits.csv). Bland-Altman figures"
            f"{where('bland-altman', ' and tables/bland-altman.csv')} show how far off single cases are.",
            "what the cases far off have in common",
        ),
        "38": _LIMITS,
        "41": Answer(" ".join(a.text for a in (_code(), _data_sharing(facts)))),
    }
