"""The methods section and the checklists say what ran, no more, and name everything once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from nigradat.evaluation.comparison import Comparison, compare
from nigradat.evaluation.predictions import FitRecord
from nigradat.models.registry import METHODS
from nigradat.report.checklists import CLAIM, TRIPOD_AI, Item, claim, tripod_ai
from nigradat.report.methods_text import (
    BY_AUTHORS,
    REFERENCES,
    StudyFacts,
    cohort_command,
    gather_facts,
    joined,
    methods_text,
    number_citations,
)
from small_studies import write_fits

Made = tuple[StudyFacts, Comparison]


def made(folder: Path, **how: Any) -> Made:
    records, plan = write_fits(folder, **how)
    return gather_facts(records, plan), compared(records)


def compared(records: tuple[FitRecord, ...]) -> Comparison:
    return compare(records, level=0.9, threshold=2.56, scale=6.84, resamples=100)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Made:
    methods = {"vgg-small": 0.9, "sym-vgg": 0.7}
    return made(tmp_path_factory.mktemp("small"), splits=1, seeds=1, kind="patients", methods=methods)


def test_only_methods_that_ran_are_mentioned(small: Made) -> None:
    text = methods_text(*small)
    assert "- VGG-small: " in text
    assert "- Sym. VGG: " in text
    for name, method in METHODS.items():
        if name not in ("vgg-small", "sym-vgg"):
            assert f"- {method.title}: " not in text
    for absent in (
        "MONAI",
        "ViT",
        "Oracle",
        "ensemble",
        "Nadeau",
        "phantom",
        "log-normal",
        "running average of nothing",
    ):
        assert absent not in text, absent
    assert "squared error of both sides." in text  # lambda is 0 in both


def test_numbers_are_those_of_configuration_and_plan(study: Made) -> None:
    text = methods_text(*study)
    config = study[0].configs["sym-vgg-plus"]
    for words in (
        f"learning rate {config['learning_rate']} ({config['schedule']})",
        f"At most {config['epochs']} epochs",
        f"dropout {config['head_dropout']} before the output layer",
        "The four widths are 2, 2, 4, 4 for all of them",
        "Sym. VGG+ 0.1",
        "70 training, 8 stopping, 7 calibration and 30 test",
        "50 passes with dropout left on",
        "20 networks were trained (training seeds 1, 2)",
        "1 fit failed",
        "100 resamples of patients",
        "Intervals at 90 %",
        "SBR below 2.56",
        "torch 2.0",
        "nigradat simulate cohort --patients 100 --preset easy --seed 7",
        "--methods vgg16,vgg-small,vgg-left,sym-vgg,sym-vgg-plus --design repeated --splits 2 --seeds 2",
        "--level 0.9 --threshold 2.56 --seed 1",
    ):
        assert words in text, words
    assert "Phantom results: they say nothing about patients." in text
    assert "reconstruction" in text


def test_a_recipe_that_differs_between_methods_says_both_values(study: Made) -> None:
    facts, comparison = study
    configs = {name: dict(config) for name, config in facts.configs.items()}
    configs["sym-vgg"]["learning_rate"] = 0.123
    text = methods_text(StudyFacts(**{**vars(facts), "configs": configs}), comparison)
    usual = facts.configs["sym-vgg-plus"]["learning_rate"]
    assert f"learning rate {usual} or 0.123 (" in text


def test_fresh_draws_are_said_and_have_no_seed_of_the_given_cohort(tmp_path: Path) -> None:
    facts, comparison = made(tmp_path, methods={"sym-vgg-plus": 0.5, "vgg-small": 0.6}, fresh=30)
    text = methods_text(facts, comparison)
    assert "2 phantom cohorts were drawn independently" in text
    assert "ordinary t intervals" in text
    assert "Nadeau" not in text
    assert "(preset easy)" in text


@pytest.mark.parametrize("which", ["study", "small"])
def test_citations_are_numbered_in_order_and_all_listed(which: str, request: pytest.FixtureRequest) -> None:
    text = methods_text(*request.getfixturevalue(which))
    body, listed = text.split("## References")
    cited = [int(n) for group in re.findall(r"\[(\d+(?:, \d+)*)\]", body) for n in group.split(", ")]
    assert list(dict.fromkeys(cited)) == list(range(1, len(set(cited)) + 1))
    assert [int(n) for n in re.findall(r"^(\d+)\. ", listed, flags=re.MULTILINE)] == sorted(set(cited))
    assert "[@" not in text


def test_citations_by_hand() -> None:
    text = number_citations("a [@holm] b [@bca,holm].")
    assert text.startswith("a [1] b [1, 2].\n\n## References\n\n1. Holm")
    assert number_citations("nothing") == "nothing"
    with pytest.raises(KeyError):
        number_citations("[@unknown]")
    assert len(set(REFERENCES.values())) == len(REFERENCES)


def test_a_list_in_words() -> None:
    assert [joined(parts) for parts in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]


def test_a_card_that_is_missing_adds_nothing(tmp_path: Path) -> None:
    records, plan = write_fits(tmp_path, splits=1, seeds=1, methods={"sym-vgg": 0.7})
    (tmp_path / "fits" / "split-1" / "sym-vgg-seed1" / "card.json").write_text("{half")
    facts = gather_facts(records, plan)
    assert facts.cards == facts.configs == {}
    assert "## Training" not in methods_text(facts, compared(records))
    assert cohort_command(facts).endswith("--seed 7")


# -- Checklists ---------------------------------------------------------------------------------------------------


def rows(text: str) -> dict[str, str]:
    lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("|")][2:]
    found = [(cells[0].strip(), cells[3].strip()) for cells in lines]
    assert len(dict(found)) == len(found)
    return dict(found)


@pytest.mark.parametrize(("make", "items"), [(tripod_ai, TRIPOD_AI), (claim, CLAIM)])
def test_every_item_stands_once_and_none_is_left_blank(make: Any, items: tuple[Item, ...], study: Made) -> None:
    text = make(study[0], {"accuracy", "fits", "splits"})
    found = rows(text)
    assert list(found) == [item.number for item in items]
    assert all(found.values())
    assert "to be checked against the published checklist" in text
    answered = sum(not answer.startswith(f"**{BY_AUTHORS}**") for answer in found.values())
    assert f"{answered} of {len(items)} items are answered" in text


def test_the_lists_have_as_many_items_as_the_published_ones() -> None:
    assert [item.number for item in CLAIM] == [str(i) for i in range(1, 43)]
    assert len({re.sub(r"\D", "", item.number) for item in TRIPOD_AI}) == 27


@pytest.mark.parametrize("make", [tripod_ai, claim])
def test_no_table_is_referred_to_that_is_not_there(make: Any, study: Made) -> None:
    always = {"accuracy", "fits", "splits"}
    more = {"binary", "bland-altman", "contrast-tests", "variation", "ablation", "extensions"}
    bare, full = (set(re.findall(r"tables/([\w-]+)\.csv", make(study[0], names))) for names in (always, always | more))
    assert bare <= always
    assert bare < full <= always | more


def test_people_are_left_to_the_authors_and_phantoms_have_none(study: Made, small: Made) -> None:
    phantom, own = (rows(tripod_ai(facts, {"accuracy"})) for facts, _ in (study, small))
    for item in ("5b", "6a", "6b", "6c", "17"):
        assert BY_AUTHORS not in phantom[item]
        assert own[item].startswith(f"**{BY_AUTHORS}**")
    for item in ("18a", "18b", "25"):
        assert phantom[item].startswith(f"**{BY_AUTHORS}**")
    assert "nigradat simulate" in phantom["18e"]
    assert own["18e"].startswith(f"**{BY_AUTHORS}**")
