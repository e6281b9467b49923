"""nigradat: striatal dopamine-transporter uptake (SBR) of both sides from nigral MRI, with calibrated intervals.

Research only. The verbs of the command line are functions here; heavy libraries are imported when a name is first used.

Example:
    >>> import nigradat
    >>> nigradat.simulate("cohort", patients=260, preset="easy", seed=1)                       # doctest: +SKIP
    >>> nigradat.train("cohort", "run", nigradat.make_config(changes={"epochs": 30}))          # doctest: +SKIP
    >>> nigradat.calibrate("run", "cohort")                                                    # doctest: +SKIP
    >>> nigradat.evaluate("run", "cohort").summary()                                           # doctest: +SKIP
    >>> nigradat.predict("patient.mat", nigradat.load("run"))                                  # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from nigradat.anatomy import Side as Side
    from nigradat.errors import NigradatError as NigradatError
    from nigradat.evaluation.comparison import compare as compare
    from nigradat.evaluation.evaluate import evaluate as evaluate
    from nigradat.evaluation.spreads import compare_spreads as compare_spreads
    from nigradat.explain.average import average_maps as average_maps
    from nigradat.explain.hirescam import hirescam as hirescam
    from nigradat.io.gre import read_gre as read_gre
    from nigradat.io.gre import read_image as read_image
    from nigradat.io.gre import read_scan as read_scan
    from nigradat.io.pack import load_cohort as load_cohort
    from nigradat.io.pack import pack_cohort as pack_cohort
    from nigradat.locate.locate import locate_nigrosomes as locate_nigrosomes
    from nigradat.locate.locate import write_located as write_located
    from nigradat.models.published import import_published as import_published
    from nigradat.models.registry import create_model as create_model
    from nigradat.models.registry import list_models as list_models
    from nigradat.models.weights import load_model as load  # noqa: F401 - public under this name
    from nigradat.pair import NigralPair as NigralPair
    from nigradat.pair import SbrPair as SbrPair
    from nigradat.pair import extract_pair as extract_pair
    from nigradat.phantom.cohort import simulate as simulate
    from nigradat.quality.check import check as check
    from nigradat.quality.reference import fit_quality as fit_quality
    from nigradat.smwi.chain import make_smwi as make_smwi
    from nigradat.smwi.chain import smwi_from_chi as smwi_from_chi
    from nigradat.smwi.output import write_smwi as write_smwi
    from nigradat.smwi.recipe import SmwiRecipe as SmwiRecipe
    from nigradat.spect.sbr import SbrRecipe as SbrRecipe
    from nigradat.spect.sbr import measure_sbr as measure_sbr
    from nigradat.study.plan import run_study as run_study
    from nigradat.study.sweep import run_sweep as run_sweep
    from nigradat.training.config import Hardware as Hardware
    from nigradat.training.config import make_config as make_config
    from nigradat.training.fit import train as train
    from nigradat.training.split import Split as Split
    from nigradat.training.split import make_folds as make_folds
    from nigradat.training.split import make_split as make_split
    from nigradat.uncertainty.calibration import calibrate as calibrate
    from nigradat.uncertainty.cross_validation import calibrate_folds as calibrate_folds
    from nigradat.uncertainty.predict import predict as predict

_HOME = {
    "Hardware": "training.config",
    "NigradatError": "errors",
    "NigralPair": "pair",
    "SbrPair": "pair",
    "SbrRecipe": "spect.sbr",
    "Side": "anatomy",
    "SmwiRecipe": "smwi.recipe",
    "Split": "training.split",
    "average_maps": "explain.average",
    "calibrate": "uncertainty.calibration",
    "calibrate_folds": "uncertainty.cross_validation",
    "check": "quality.check",
    "compare": "evaluation.comparison",
    "compare_spreads": "evaluation.spreads",
    "create_model": "models.registry",
    "evaluate": "evaluation.evaluate",
    "extract_pair": "pair",
    "fit_quality": "quality.reference",
    "hirescam": "explain.hirescam",
    "import_published": "models.published",
    "list_models": "models.registry",
    "load": "models.weights",
    "load_cohort": "io.pack",
    "locate_nigrosomes": "locate.locate",
    "make_config": "training.config",
    "make_folds": "training.split",
    "make_smwi": "smwi.chain",
    "make_split": "training.split",
    "measure_sbr": "spect.sbr",
    "pack_cohort": "io.pack",
    "predict": "uncertainty.predict",
    "read_gre": "io.gre",
    "read_image": "io.gre",
    "read_scan": "io.gre",
    "run_study": "study.plan",
    "run_sweep": "study.sweep",
    "simulate": "phantom.cohort",
    "smwi_from_chi": "smwi.chain",
    "train": "training.fit",
    "write_located": "locate.locate",
    "write_smwi": "smwi.output",
}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    """Import a public name from its home when it is first used."""
    if name not in _HOME:
        raise AttributeError(f"module 'nigradat' has no attribute '{name}'")
    value = getattr(import_module(f"nigradat.{_HOME[name]}"), {"load": "load_model"}.get(name, name))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
