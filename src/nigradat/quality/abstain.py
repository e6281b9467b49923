"""When an answer is withheld: never, from unusual pairs, or from the most unusual share of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from nigradat.anatomy import Side
from nigradat.errors import ConfigError
from nigradat.models.weights import LoadedModel
from nigradat.pair import Flag, PatientPrediction
from nigradat.quality.check import PairQuality
from nigradat.quality.reference import Quality, missing_quality

NONE: Final = "none"
FLAGGED: Final = "flagged"
POLICIES: Final = "none, flagged, or a share between 0 and 1 such as 0.1"


@dataclass(frozen=True)
class Abstention:
    """A policy made definite.

    Attributes:
        policy: as it was given.
        alarm: the share of ordinary pairs that it may withhold.
    """

    policy: str
    alarm: float

    def withholds(self, quality: PairQuality) -> bool:
        """Whether this pair gets no answer."""
        return quality.p_value <= self.alarm + 1e-12


def check_policy(policy: str) -> str:
    """A policy's name or share, or a :class:`~nigradat.errors.ConfigError` that lists what there is."""
    if policy in (NONE, FLAGGED):
        return policy
    try:
        share = float(policy)
    except ValueError:
        share = float("nan")
    if not 0.0 < share < 1.0:
        raise ConfigError(f"--abstain {policy}", POLICIES)
    return policy


def resolve_policy(policy: str, loaded: LoadedModel, quality: Quality | None) -> Abstention | None:
    """What a policy means with this model's reference; None for ``none``.

    Args:
        policy: ``none``; ``flagged``, all that the reference calls unusual; or the share of ordinary pairs that may be
            withheld.
        loaded: the model.
        quality: its reference.

    Raises:
        ConfigError: another word, or a share outside 0..1.
        CalibrationError: no quality reference, or too few held-out patients for the share.
    """
    if check_policy(policy) == NONE:
        return None
    if quality is None:
        raise missing_quality(loaded)
    if policy == FLAGGED:
        return Abstention(policy, quality.alarm)
    share = float(policy)
    quality.cut_at(share)  # refuses what these patients cannot promise
    return Abstention(policy, share)


def withhold(prediction: PatientPrediction, quality: PairQuality, abstention: Abstention) -> PatientPrediction:
    """The prediction without its answer where the policy says so; with a flag that says why."""
    if not abstention.withholds(quality):
        return prediction
    worst = f" First of all: {quality.flags[0].message}" if quality.flags else ""
    why = (
        f"No answer: at most {100 * quality.p_value:.3g} % of ordinary pairs are as unusual, and the policy "
        f"'{abstention.policy}' withholds the most unusual {100 * abstention.alarm:.3g} %.{worst}"
    )
    return replace(prediction, right=None, left=None, flags=(*prediction.flags, Flag("abstained", why)))


def answered(predictions: Sequence[PatientPrediction]) -> int:
    """How many visits got an answer for at least one side."""
    return sum(any(prediction[side] is not None for side in Side) for prediction in predictions)
