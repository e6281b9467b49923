"""``methods.md``: the methods section of a study, written from what really ran.

Everything is read from the records of the fits, the resolved configuration and the card beside each fit, the plan and
the comparison; what did not run is not mentioned. Sentences are ours to be edited by authors; facts are the program's.
"""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from nigradat import __version__
from nigradat.errors import ConfigError
from nigradat.evaluation.comparison import Comparison
from nigradat.evaluation.predictions import FitRecord
from nigradat.evaluation.summary import PHANTOM_WARNING, phantom_phrase
from nigradat.io.pack import PHANTOM
from nigradat.models.registry import get_method
from nigradat.models.weights import CARD_NAME, INTENDED_USE
from nigradat.training.config import make_config
from nigradat.training.fit import CONFIG_NAME

BY_AUTHORS: Final = "To be filled by the authors"

# -- What is known ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StudyFacts:
    """All that a study's page and texts rest on.

    Attributes:
        plan: the resolved plan, as in ``study.json``.
        records: every fit, baseline, derived predictor and oracle.
        cohort: the plan's word on the cohort: ``sha256``, ``patients``, ``visits``, ``kind``, ``preset``, ``seed``.
        sbr_scale: tracers, devices, programs, smallest and largest label of all fits; empty where no card says it.
        configs: by method: the resolved training configuration of its first fit that ended.
        cards: by method: the model card of that fit.
        hardware: where the fits were trained, each machine once.
        versions: of the packages that computed; of torch all that trained.
    """

    plan: Mapping[str, Any]
    records: tuple[FitRecord, ...]
    cohort: Mapping[str, Any]
    sbr_scale: Mapping[str, Any]
    configs: Mapping[str, Mapping[str, Any]]
    cards: Mapping[str, Mapping[str, Any]]
    hardware: tuple[str, ...]
    versions: Mapping[str, str]

    @property
    def ended(self) -> tuple[FitRecord, ...]:
        """Records with predictions."""
        return tuple(r for r in self.records if not r.failed)

    @property
    def failed(self) -> tuple[FitRecord, ...]:
        """Records without."""
        return tuple(r for r in self.records if r.failed)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names, in order of appearance."""
        return tuple(dict.fromkeys(r.split for r in self.records))

    @property
    def is_drawn(self) -> bool:
        """Every split is a phantom cohort of its own."""
        return bool(self.plan.get("fresh"))

    @property
    def is_phantom(self) -> bool:
        """The images are simulated."""
        return bool(self.cohort.get("kind") == PHANTOM)

    @property
    def patients(self) -> int:
        """In the cohort that the study was given."""
        return int(self.cohort.get("patients", 0))

    @property
    def label(self) -> str:
        """What stands on every table and figure about the data; empty for patients."""
        return "digital phantom, not patients" if self.is_phantom else ""

    @property
    def cohort_phrase(self) -> str:
        """For a sentence: what these patients are. The seed of the given cohort is not that of the fresh draws."""
        if not self.is_phantom:
            return "cohort of patients"
        known = {k: v for k, v in self.cohort.items() if k != "seed" or not self.is_drawn}
        return f"digital phantom{phantom_phrase(known)}"

    def titles(self, role: str) -> dict[str, str]:
        """Title by name of the methods of a role that ran, in the plan's order."""
        found = {r.method: r.title for r in self.ended if r.role == role}
        planned = [name for name in self.plan.get("methods", ()) if name in found]
        return {name: found[name] for name in (*planned, *(name for name in found if name not in planned))}

    def ran(self, *methods: str) -> bool:
        """Whether any of these has predictions."""
        return any(r.method in methods for r in self.ended)


def gather_facts(records: Sequence[FitRecord], plan: Mapping[str, Any]) -> StudyFacts:
    """Read what lies beside the fits.

    Args:
        records: of the study.
        plan: the content of ``study.json``.

    Returns:
        The facts. A fit whose card or configuration is missing adds none.
    """
    configs: dict[str, Mapping[str, Any]] = {}
    cards: dict[str, Mapping[str, Any]] = {}
    hardware: dict[str, None] = {}
    scales: list[Mapping[str, Any]] = []
    torch: dict[str, None] = {}
    for record in records:
        if record.role != "model" or record.failed or record.folder is None:
            continue
        card = _read(record.folder / CARD_NAME)
        if not card:
            continue
        hardware[_hardware(card)] = None
        scales += [card["sbr_scale"]] if card.get("sbr_scale") else []
        torch |= {str(card["torch"]): None} if card.get("torch") else {}
        if record.method not in cards:
            cards[record.method] = card
            configs[record.method] = _read(record.folder / CONFIG_NAME).get("config", card.get("config", {}))
    versions = _versions(configs, plan)
    if torch:
        versions["torch"] = joined(torch)
    return StudyFacts(
        plan, tuple(records), plan.get("cohort", {}), _all_scales(scales), configs, cards, tuple(hardware), versions
    )


def _all_scales(scales: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the fits' cards say of their labels, together: draws have patients of their own."""
    found: dict[str, Any] = {}
    for scale in scales:
        for name, value in scale.items():
            if isinstance(value, list):
                found[name] = list(dict.fromkeys((*found.get(name, ()), *value)))
            elif name in ("min", "max"):
                found[name] = value if name not in found else (min if name == "min" else max)(found[name], value)
            else:
                found.setdefault(name, value)
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _versions(configs: Mapping[str, Mapping[str, Any]], plan: Mapping[str, Any]) -> dict[str, str]:
    """Those of the plan, and of the trainer; MONAI's only where one of its networks ran."""
    found = {str(name): str(version) for name, version in plan.get("versions", {}).items()}
    wanted = ["pytorch-lightning"] if configs else []
    wanted += ["monai"] if any(_uses_monai(name) for name in configs) else []
    for name in wanted:
        try:
            found.setdefault(name, metadata.version(name))
        except metadata.PackageNotFoundError:  # a page can be made again where nothing can be trained
            continue
    return found


def _uses_monai(method: str) -> bool:
    return "monai" in _source(method).lower()


def _source(method: str) -> str:
    """What the registry says about a method; empty for one that it does not know."""
    try:
        return get_method(method).source
    except ConfigError:
        return ""


# -- References ---------------------------------------------------------------------------------------------------

PAPER: Final = "paper"
REFERENCES: Final[Mapping[str, str]] = {
    PAPER: "Abdullah Al W, Yun ID, Bae YJ. Symmetric 3D convolutional network with uncertainty estimation for "
    "MRI-based striatal DaT-uptake assessment in Parkinson's disease. Applied Sciences 2025, 15(20), 10977. "
    "doi:10.3390/app152010977",
    "lsuv": "Mishkin D, Matas J. All you need is a good init. ICLR 2016. arXiv:1511.06422",
    "vgg": "Simonyan K, Zisserman A. Very deep convolutional networks for large-scale image recognition. ICLR 2015. "
    "arXiv:1409.1556",
    "resnet": "He K, Zhang X, Ren S, Sun J. Deep residual learning for image recognition. CVPR 2016. "
    "doi:10.1109/CVPR.2016.90",
    "mobilenet": "Howard A, et al. Searching for MobileNetV3. ICCV 2019. doi:10.1109/ICCV.2019.00140",
    "vit": "Dosovitskiy A, et al. An image is worth 16x16 words: transformers for image recognition at scale. ICLR "
    "2021. arXiv:2010.11929",
    "monai": "Cardoso MJ, et al. MONAI: an open-source framework for deep learning in healthcare. 2022. "
    "arXiv:2211.02701",
    "adam": "Kingma DP, Ba J. Adam: a method for stochastic optimization. ICLR 2015. arXiv:1412.6980",
    "adamw": "Loshchilov I, Hutter F. Decoupled weight decay regularization. ICLR 2019. arXiv:1711.05101",
    "he": "He K, Zhang X, Ren S, Sun J. Delving deep into rectifiers: surpassing human-level performance on ImageNet "
    "classification. ICCV 2015. doi:10.1109/ICCV.2015.123",
    "glorot": "Glorot X, Bengio Y. Understanding the difficulty of training deep feedforward neural networks. "
    "AISTATS 2010, PMLR 9, 249-256",
    "torch": "Paszke A, et al. PyTorch: an imperative style, high-performance deep learning library. NeurIPS 2019. "
    "arXiv:1912.01703",
    "lightning": "Falcon W, The PyTorch Lightning team. PyTorch Lightning. doi:10.5281/zenodo.3828935",
    "mc": "Gal Y, Ghahramani Z. Dropout as a Bayesian approximation: representing model uncertainty in deep learning. "
    "ICML 2016, PMLR 48, 1050-1059. arXiv:1506.02142",
    "ensemble": "Lakshminarayanan B, Pritzel A, Blundell C. Simple and scalable predictive uncertainty estimation "
    "using deep ensembles. NeurIPS 2017. arXiv:1612.01474",
    "beta-nll": "Seitzer M, Tavakoli A, Antic D, Martius G. On the pitfalls of heteroscedastic uncertainty estimation "
    "with probabilistic neural networks. ICLR 2022. arXiv:2203.09168",
    "conformal": "Vovk V, Gammerman A, Shafer G. Algorithmic learning in a random world. Springer 2005. "
    "doi:10.1007/b106715",
    "bca": "Efron B. Better bootstrap confidence intervals. J Am Stat Assoc 1987, 82(397), 171-185. "
    "doi:10.1080/01621459.1987.10478410",
    "nadeau": "Nadeau C, Bengio Y. Inference for the generalization error. Machine Learning 2003, 52, 239-281. "
    "doi:10.1023/A:1024068626366",
    "holm": "Holm S. A simple sequentially rejective multiple test procedure. Scand J Stat 1979, 6(2), 65-70",
    "clopper": "Clopper CJ, Pearson ES. The use of confidence or fiducial limits illustrated in the case of the "
    "binomial. Biometrika 1934, 26(4), 404-413. doi:10.1093/biomet/26.4.404",
    "wilson": "Wilson EB. Probable inference, the law of succession, and statistical inference. J Am Stat Assoc 1927, "
    "22(158), 209-212. doi:10.1080/01621459.1927.10502953",
    "bland": "Bland JM, Altman DG. Statistical methods for assessing agreement between two methods of clinical "
    "measurement. Lancet 1986, 327(8476), 307-310. doi:10.1016/S0140-6736(86)90837-8",
    "delong": "DeLong ER, DeLong DM, Clarke-Pearson DL. Comparing the areas under two or more correlated receiver "
    "operating characteristic curves: a nonparametric approach. Biometrics 1988; 44: 837-845.",
    "obuchowski": "Obuchowski NA. Nonparametric analysis of clustered ROC curve data. Biometrics 1997; 53: 567-578.",
    "bland2007": "Bland JM, Altman DG. Agreement between methods of measurement with multiple observations per "
    "individual. J Biopharm Stat 2007, 17(4), 571-582. doi:10.1080/10543400701329422",
    "lin": "Lin LI. A concordance correlation coefficient to evaluate reproducibility. Biometrics 1989, 45(1), "
    "255-268. doi:10.2307/2532051",
    "shrout": "Shrout PE, Fleiss JL. Intraclass correlations: uses in assessing rater reliability. Psychol Bull 1979, "
    "86(2), 420-428. doi:10.1037/0033-2909.86.2.420",
}
_CITED: Final = re.compile(r"\[@([\w-]+(?:,[\w-]+)*)\]")


def number_citations(text: str) -> str:
    """Replace ``[@key,key]`` by numbers in order of first use and append the list of what was cited.

    Raises:
        KeyError: a key that :data:`REFERENCES` does not have.
    """
    keys = dict.fromkeys(key for found in _CITED.findall(text) for key in found.split(","))
    numbers = {key: i for i, key in enumerate(keys, 1)}
    numbered = _CITED.sub(lambda m: f"[{', '.join(str(n) for n in sorted(numbers[k] for k in m[1].split(',')))}]", text)
    listed = "\n".join(f"{i}. {REFERENCES[key]}" for key, i in numbers.items())
    return f"{numbered.rstrip()}\n\n## References\n\n{listed}\n" if keys else numbered


# -- The section --------------------------------------------------------------------------------------------------


def methods_text(facts: StudyFacts, comparison: Comparison) -> str:
    """The methods section as Markdown, with numbered references.

    Args:
        facts: see :func:`gather_facts`.
        comparison: of the same records.

    Returns:
        One paragraph a subject. A method, statistic or package that did not run is not in it.
    """
    lines = ["# Methods", "", _notice(facts), ""]
    for title, text in _paragraphs(facts, comparison):
        lines += [f"## {title}", "", text, ""]
    return number_citations("\n".join(lines))


def _notice(facts: StudyFacts) -> str:
    start = f"Written by nigradat {__version__} from what ran; to be edited by the authors."
    return f"{start} {PHANTOM_WARNING if facts.is_phantom else ''} {INTENDED_USE}".replace("  ", " ")


def _paragraphs(facts: StudyFacts, comparison: Comparison) -> Iterator[tuple[str, str]]:
    yield "Data", _data_text(facts)
    if text := _models_text(facts):
        yield "Models", text
    if text := _others_text(facts):
        yield "Approaches without a network, derived predictors and bounds", text
    if facts.configs:
        yield "Training", _training_text(facts)
    if text := _intervals_text(facts, comparison):
        yield "Intervals", text
    yield "Design", _design_text(facts)
    yield "Statistics", _statistics_text(facts, comparison)
    yield "Software and hardware", _software_text(facts)
    yield "What is a reconstruction", _reconstruction_text(facts)


def joined(parts: Iterable[str], last: str = "and") -> str:
    """A list in words: ``a, b and c``; empty for nothing."""
    listed = list(parts)
    return listed[0] if len(listed) == 1 else f"{', '.join(listed[:-1])} {last} {listed[-1]}" if listed else ""


def count(n: int, one: str, many: str = "") -> str:
    """A number with its noun: ``1 fit``, ``2 fits``."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


# -- Data and design ----------------------------------------------------------------------------------------------


def cohort_command(facts: StudyFacts) -> str:
    """The command that renders the study's phantom again; empty for patients, and where preset or seed are unknown."""
    preset = facts.cohort.get("preset")
    name = preset.get("name") if isinstance(preset, Mapping) else preset
    seed = facts.cohort.get("seed")
    if not facts.is_phantom or not name or seed is None:
        return ""
    size = facts.cohort.get("visits", facts.patients)
    return f"nigradat simulate cohort --patients {size} --preset {name} --seed {seed}"


def study_command(facts: StudyFacts) -> str:
    """The command of the study itself."""
    plan = facts.plan
    said = [f"nigradat study cohort study --scale {plan.get('scale')} --methods {','.join(plan.get('methods', ()))}"]
    options = ("design", "splits", "seeds", "fresh", "level", "threshold", "seed")
    said += [f"--{name} {plan[name]}" for name in options if plan.get(name) or (name, plan.get(name)) == ("seed", 0)]
    recipe, usual = plan.get("recipe", {}), make_config().to_json()
    changed = [key for key in ("epochs", "sbr_max") if recipe.get(key, usual[key]) != usual[key]]
    said += [f"--{key.replace('_', '-')} {recipe[key]:g}" for key in changed]
    if plan.get("disease"):
        said.append(f"--disease {shlex.quote(','.join(plan['disease']))}")
    return " ".join(said)


def design_sentence(facts: StudyFacts) -> str:
    """How splits were made, in one or two sentences."""
    n, patients = len(facts.splits), f"{facts.patients:,} patients"
    if facts.is_drawn:
        drawn = f"{count(n, 'phantom cohort was', 'phantom cohorts were')} drawn independently"
        return f"{drawn}; within each, the methods were trained on one part and tested on fresh patients."
    known = {
        "kfold": f"The {patients} were divided into {count(n, 'fold')}; each fold was tested once.",
        "repeated": f"The {patients} were divided at random {count(n, 'time')} into training, validation and test "
        "parts.",
        "single": f"The {patients} were divided at random once into training, validation and test parts.",
    }
    start = known.get(str(facts.plan.get("design")), f"The {patients} were divided in {count(n, 'split')}.")
    return f"{start} Splits are by patient and stratified by the mean of both sides' SBR."


def parts_sentence(facts: StudyFacts) -> str:
    """How many patients trained, stopped, calibrated and were tested; ranges where splits differ."""
    parts: dict[str, list[int]] = {}
    for record in facts.ended:
        if record.role == "model":
            parts.setdefault("training", []).append(record.train_patients)
            parts.setdefault("test", []).append(record.test_patients)
    card = next(iter(facts.cards.values()), {})
    held = card.get("training", {}).get("patients", {})
    for part, name in (("stop", "stopping"), ("calibration", "calibration")):
        if held.get(part):
            parts[name] = [int(held[part])]
    if not parts:
        return "No network was trained."
    order = [name for name in ("training", "stopping", "calibration", "test") if name in parts]
    return f"Patients a fit: {joined(f'{_span(parts[name])} {name}' for name in order)}."


def _span(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _data_text(facts: StudyFacts) -> str:
    who = f"The study used a {facts.cohort_phrase} of {facts.patients:,} patients, both sides each"
    if facts.is_drawn:
        who = f"Each draw is a {facts.cohort_phrase} of the size of {facts.patients:,} patients and more to test"
    scale = facts.sbr_scale
    labels = ""
    if scale.get("min") is not None and scale.get("max") is not None:
        labels = f" (SBR {float(scale['min']):.2f} to {float(scale['max']):.2f})"
    made = (
        " Images and labels are simulated by one generator, whose range of SBR and whose reachable accuracy were set "
        "after the paper [@paper]; nothing about patients follows."
        if facts.is_phantom
        else f" Origin, eligibility and ethics: {BY_AUTHORS.lower()}."
    )
    return (
        f"{who}{labels}.{made} The input of a side is a patch of 50 x 50 x 20 voxels of 0.5 x 0.5 x 1 mm around "
        "nigrosome-1, divided by its own mean; the right patch is mirrored so that both look alike [@paper]. The "
        "target is the striatal binding ratio (SBR) of the same side."
    )


def _design_text(facts: StudyFacts) -> str:
    seeds = sorted({r.seed for r in facts.ended if r.role == "model"})
    fits = sum(r.role == "model" for r in facts.records)
    failed = sum(r.role == "model" for r in facts.failed)
    text = [
        design_sentence(facts),
        parts_sentence(facts),
        "Stopping patients choose the epoch, calibration patients make the intervals, test patients decide nothing. "
        "Every method saw the same patients in the same split.",
    ]
    if seeds:
        listed = ", ".join(map(str, seeds)) if len(seeds) <= 12 else f"{seeds[0]} to {seeds[-1]}"
        text.append(f"{count(fits, 'network')} {'was' if fits == 1 else 'were'} trained (training seeds {listed}).")
    if anew := sum((r.starts or 1) > 1 for r in facts.ended if r.role == "model"):
        text.append(
            f"{count(anew, 'training')} began anew from other weights, because most features of a tower were the same "
            "for every patch at the end of the warm-up; tables/fits.csv says which."
        )
    if failed:
        text.append(f"{count(failed, 'fit')} failed; the reason is in tables/fits.csv.")
    return " ".join(text)


# -- Models -------------------------------------------------------------------------------------------------------

_MODEL_CITATIONS: Final = {
    "vit": "vit",
    "mobilenetv3": "mobilenet",
    "resnet18": "resnet",
    "vgg16": "vgg",
    "vgg-small": PAPER,
    "vgg-left": PAPER,
    "sym-vgg": PAPER,
    "sym-vgg-plus": PAPER,
    "sym-vgg-log": "beta-nll",
}
_OTHERS: Final = {
    "ridge": "ridge regression on six hand-made features of a patch",
    "mean-intensity": "linear regression on the mean intensity of the nigral region (after Uchida 2020, our reading)",
    "n1-index": "linear regression on an automatic index of the hyperintensity of nigrosome-1",
    "observer": "the mean SBR of the training patients with the same reading of the nigral hyperintensity",
    "fused": "a linear fusion of both sides' predictions of Sym. VGG+, fitted on the stopping patients (extension, not "
    "of the paper: it uses the other side when it predicts)",
    "ensemble": "the mean of the Sym. VGG+ fits of one split that differ in their seed alone (extension) [@ensemble]",
    "oracle-single": "the best prediction that the phantom's latent numbers of one side allow (a bound, not a method)",
    "oracle-pair": "the best prediction that the phantom's latent numbers of both sides allow (a bound, not a method)",
}


def _models_text(facts: StudyFacts) -> str:
    """One clause a network that ran: title, source as the registry has it, size."""
    sizes = {r.method: r.parameters for r in reversed(facts.ended) if r.parameters}
    clauses = []
    for name, title in facts.titles("model").items():
        cited = f" [@{_MODEL_CITATIONS[name]}]" if name in _MODEL_CITATIONS else ""
        source = f": {_source(name)}" if _source(name) else ""
        size = f", {sizes[name]:,} parameters" if name in sizes else ""
        clauses.append(f"- {title}{source}{size}{cited}")
    if not clauses:
        return ""
    widths = _common(facts.configs, "widths")
    width = f" The four widths are {', '.join(map(str, widths))} for all of them." if widths else ""
    monai = " Some networks are MONAI's [@monai]." if "monai" in facts.versions else ""
    return (
        "All networks are three-dimensional and were trained from scratch on the same patches."
        f"{width}{monai}\n\n" + "\n".join(clauses)
    )


def _others_text(facts: StudyFacts) -> str:
    clauses = [
        f"- {title}: {_OTHERS.get(name, role)}"
        for role in ("baseline", "derived", "oracle")
        for name, title in facts.titles(role).items()
    ]
    return "\n".join(clauses)


def _common(configs: Mapping[str, Mapping[str, Any]], key: str) -> Any:
    """A value that all configurations share; None where they differ or there are none."""
    values = {json.dumps(config.get(key)) for config in configs.values()}
    return json.loads(values.pop()) if len(values) == 1 else None


def _training_text(facts: StudyFacts) -> str:
    """The recipe as the configurations have it; where methods differ, both values are said."""

    def of(key: str) -> str:
        values = Counter(json.dumps(config.get(key)) for config in facts.configs.values())
        return joined((value.strip('"') for value in values), "or")

    optimiser, schedule, start = of("optimiser"), of("schedule"), of("init")
    cited = " [@adamw]" if "adamw" in optimiser else " [@adam]" if "adam" in optimiser else ""
    text = [
        f"Weights were initialised after {start.capitalize()}{f' [@{start}]' if start in REFERENCES else ''} by seed"
        f"{', the output at the mean SBR of the training patients' if of('start_at_mean') == 'true' else ''}.",
        f"Optimiser {_OPTIMISERS.get(optimiser, optimiser)}{cited}, learning rate {of('learning_rate')} ({schedule}), "
        f"weight decay {of('weight_decay')}, {of('batch_size')} patients a step, dropout {of('head_dropout')} before "
        f"the output layer{_blocks(of('block_dropout'))}.",
        f"At most {of('epochs')} epochs, ended after {of('patience')} without a lower MSE on the stopping patients; "
        "the weights of the best epoch were kept"
        f"{_average(of('average_decay'))}.",
        _warm_up_text(of("unit_activations"), of("warm_up"), of("warm_up_rate"), of("feature_weight")),
        _output_text(of("output_penalty")),
        _augmentation_text(facts),
        _loss_text(facts),
    ]
    return " ".join(part for part in text if part)


_OPTIMISERS: Final = {"adamw": "AdamW", "adam": "Adam"}


def _blocks(rate: str) -> str:
    return "" if rate in ("0.0", "null") else f" and {rate} after the pooling of each block"


def _average(decay: str) -> str:
    return "" if decay in ("0.0", "null") else f" (running average of the weights, decay {decay} a step)"


def _warm_up_text(unit: str, share: str, rate: str, weight: str) -> str:
    text = []
    if unit == "true":
        text.append("Convolutions without normalisation layers started with outputs of unit variance [@lsuv].")
    if share not in ("0.0", "null"):
        text.append(
            f"In a first part of the epochs (a share of {share}), which saw no label, the tower learned to name six "
            f"hand-made features of the patch (learning rate {rate})."
        )
    if weight not in ("0.0", "null"):
        text.append(f"The mean squared error of these features stayed in the loss with weight {weight}.")
    return f"{' '.join(text)} None of this is the paper's." if text else ""


def _output_text(penalty: str) -> str:
    if penalty in ("0.0", "null"):
        return ""
    return (
        "At the end the output layer moved half way to its closed form on the features of the training patches: "
        f"the symmetric loss without its dead zone, plus a ridge penalty of {penalty} times the mean energy of "
        "a patch's features. This step is ours."
    )


def _augmentation_text(facts: StudyFacts) -> str:
    a = _common(facts.configs, "augmentation")
    if not a:
        return ""
    epochs = a.get("ramp_epochs")
    ramp = f", all of it growing to its full size over the first {epochs} epochs" if epochs else ""
    return (
        f"Training patches were moved with probability {a.get('probability')}: shifts up to {a.get('shift_voxels')} "
        f"voxels in plane and {a.get('shift_slices')} slices, rotations up to {a.get('rotation_deg')} degrees, zoom up "
        f"to {a.get('scale')}; noise up to {a.get('noise')} of the mean and a linear change of intensity up to "
        f"{a.get('gain')} towards each border were added{ramp}; all methods alike."
    )


def _loss_text(facts: StudyFacts) -> str:
    weights = {}
    for name, config in facts.configs.items():
        given = config.get("symmetry_weight")
        weights[name] = _default_weight(name) if given is None else given
    symmetric = {name: weight for name, weight in weights.items() if weight}
    if not symmetric:
        return "The loss was the squared error of both sides."
    titles = facts.titles("model")
    which = joined(f"{titles.get(name, name)} {weight:g}" for name, weight in symmetric.items())
    return (
        "The loss was the squared error of both sides; a term on the squared difference of the sides beyond "
        f"{joined(sorted({format(facts.configs[n].get('symmetry_eps', 0), 'g') for n in symmetric}), 'or')} of the "
        f"scale was added with a weight of: {which} [@paper]. The form of the term is the release's, its weight is our "
        "reconstruction."
        + (" The log-normal head was trained by its likelihood [@beta-nll]." if "sym-vgg-log" in facts.configs else "")
    )


def _default_weight(name: str) -> float:
    try:
        return get_method(name).symmetry_weight
    except ConfigError:
        return 0.0


# -- Intervals, statistics, software ------------------------------------------------------------------------------


def _intervals_text(facts: StudyFacts, comparison: Comparison) -> str:
    modes = {mode for m in comparison.methods if m.role != "oracle" for mode in (*m.spreads, *m.intervals)}
    if not modes:
        return ""
    level = f"{100 * comparison.settings.level:g} %"
    symmetric = sorted(modes & {"s1", "s2", "s2b", "s3", "s4", "s5", "s6"})
    text = []
    if "mc" in modes:
        text.append(
            f"The spread of a prediction is that of Monte-Carlo dropout: {facts.plan.get('samples')} passes with "
            "dropout left on [@mc]."
        )
    if symmetric:
        text.append(
            f"Symmetric MC combines the samples of both sides (candidates {joined(symmetric)} for the paper's "
            "Algorithm 1, whose body is not known to us: reconstructions) [@paper]."
        )
    if facts.ran("sym-vgg-log"):
        text.append("The log-normal head adds its own noise to the variance of its samples.")
    if "s7" in modes:
        text.append("Mode s7 fuses both sides' predictions (extension).")
    if any(m.intervals for m in comparison.methods if m.role != "oracle"):
        text.append(
            f"Intervals at {level} are split-conformal: the spread is multiplied, on each side by itself, by a score "
            "quantile of calibration patients who neither trained nor stopped the network [@conformal]. A raw spread "
            "is never called an interval."
        )
    text.append(
        "Sharpness, CP, Optimal and Sharpness @ CP follow the definitions that reproduce the arithmetic of the "
        "published tables [@paper] and are traced on the test patients: a description, not a promise."
    )
    return " ".join(text)


def _statistics_text(facts: StudyFacts, comparison: Comparison) -> str:
    s = comparison.settings
    scored = [m for m in comparison.methods if m.fits]
    methods_used = {e.method for m in scored for b in m.scores.values() for e in vars(b).values() if e is not None}
    interval = f"{100 * s.confidence:g} % intervals"
    kinds = {"bca": "BCa bootstrap [@bca]", "percentile": "percentile bootstrap"}
    named = joined((kinds[k] for k in kinds if k in methods_used), "or, where that is not defined or affordable,")
    text = [
        "Every fit was scored on its own test visits and a method by the mean over its fits. RMSE is the root of the "
        "mean squared error over all cases of a side; the average is the mean of the two sides' values. R is "
        "Pearson's correlation; agreement is also given as CCC [@lin] and ICC(2,1), ICC(3,1) [@shrout].",
    ]
    if named:
        text.append(
            f"In brackets stand {interval} from {s.resamples:,} resamples of patients (both sides, all visits and all "
            f"fits of a patient together; seed {s.seed}): {named}. They take the trained networks as given; the SD "
            "between fits is given in a table of its own."
        )
    text.append("Bland-Altman limits respect that two sides belong to one patient [@bland,bland2007].")
    if any(m.intervals for m in scored):
        text.append(
            "Coverage has exact binomial intervals [@clopper]; their n is patients, however many fits tested them."
        )
    if any(m.binary for m in scored):
        text.append(
            f"Low uptake is an SBR below {s.threshold:g}; proportions of a single fit have Wilson's intervals "
            "[@wilson], "
            "its areas under the ROC curve DeLong's, with a patient's sides as one cluster where both are pooled "
            "[@delong,obuchowski]; those of several fits have intervals from resampled patients."
        )
    if comparison.contrasts:
        text += _contrasts_text(comparison)
    return " ".join(text)


def _contrasts_text(comparison: Comparison) -> Iterator[str]:
    n = len(comparison.contrasts)
    tested = sum(c.permutation is not None for c in comparison.contrasts)
    yield f"{count(n, 'contrast')} between methods {'was' if n == 1 else 'were'} fixed in advance."
    if tested:
        yield (
            f"{count(tested, 'of them was', 'of them were')} tested by flipping the signs of the patients' paired "
            "differences, corrected over the family by Holm's method [@holm]; the smallest difference that so many "
            "patients show with a power of 80 % is given beside each."
        )
    kinds = {c.replicates_are for c in comparison.contrasts}
    if "overlapping" in kinds:
        yield "Differences between splits of one cohort have the corrected t interval of Nadeau and Bengio [@nadeau]."
    if "independent" in kinds:
        yield "Differences between independently drawn cohorts have ordinary t intervals."
    yield (
        "A difference is called lower or higher only where every interval that was computed excludes zero and, for the "
        "MAE, the corrected p is below the level."
    )


def _software_text(facts: StudyFacts) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    cited = " [@torch,lightning]" if "pytorch-lightning" in facts.versions and facts.configs else ""
    hardware = joined(facts.hardware)
    where = f" Networks were trained on: {hardware}." if hardware else ""
    commands = [command for command in (cohort_command(facts), study_command(facts)) if command]
    made = joined(f"`{command}`" for command in commands)
    return f"{versions}{cited}.{where} Commands (the recipe as resolved is in study.json): {made}."


def _hardware(card: Mapping[str, Any]) -> str:
    found = card.get("training", {}).get("hardware", {})
    if not found:
        return "a machine that the card does not name"
    gpu = found.get("gpu")
    return f"{found.get('machine')}, {found.get('cores')} cores ({found.get('threads')} threads a fit)" + (
        f", {gpu}" if gpu else ", no GPU"
    )


def _reconstruction_text(facts: StudyFacts) -> str:
    """What of the method is ours; only about what ran."""
    parts = ["the definitions of Sharpness, CP, Optimal and Sharpness @ CP"]
    if facts.configs:
        parts += ["the training recipe", "where dropout sits and how strong it is"]
    if facts.ran("sym-vgg-plus", "sym-vgg-plus-unmirrored", "sym-vgg-log"):
        parts.append("the weight of the symmetric term of the loss")
    if facts.titles("model"):
        parts.append("the symmetric MC interval")
    ours = joined(parts)
    extensions = [
        facts.titles(role)[name]
        for role, name in (("model", "sym-vgg-log"), ("derived", "fused"), ("derived", "ensemble"))
        if name in facts.titles(role)
    ]
    beyond = f" Not of the paper at all: {joined(extensions)}." if extensions else ""
    return (
        "The prose of the paper's method section and the body of its Algorithm 1 were not at hand; the released "
        f"network graphs and the published tables were [@paper]. Reconstructed from these: {ours}.{beyond}"
    )
