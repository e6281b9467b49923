"""The published rows, for reference beside one's own.

Source: Abdullah Al, Yun, Bae, "Symmetric 3D Convolutional Network with Uncertainty Estimation for MRI-Based Striatal
DaT-Uptake Assessment in Parkinson's Disease", Applied Sciences 2025, 15, 10977. Other patients, 55 of them in the test
set, and no intervals.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CITATION: Final = "Abdullah Al, Yun, Bae, Applied Sciences 2025, 15, 10977"
TEST_PATIENTS: Final = 55
INCONSISTENCIES: Final = (
    "Some of these rows cannot be what their heading says: for left Sym. VGG and Sym. VGG+ the RMSE exceeds the MAE by "
    "3 to 6 % only, where errors of any smooth distribution with such an R give about 25 %; reading that column as MSE "
    "would mend these rows and break MobileNetV3's.",
    "With 55 patients and a true R of .75, chance alone spreads R over .605 to .863, so the differences between the "
    "MC rows are within it.",
)

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class PublishedAccuracy:
    """A row of the paper's accuracy table; each triple is right, left, average."""

    method: str
    rmse: Triple
    mae: Triple
    r: Triple


@dataclass(frozen=True)
class PublishedUncertainty:
    """A row of the paper's uncertainty table: "Optimal" as (Sharpness, CP), Sharpness @ CP; right, left, average."""

    method: str
    optimal: tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
    sharpness_at_cp: Triple


ACCURACY: Final = (
    PublishedAccuracy("ViT", (1.5487, 1.4287, 1.4887), (1.1279, 1.0192, 1.0735), (-0.1431, -0.0895, -0.1163)),
    PublishedAccuracy("MobileNetV3", (2.1324, 2.3530, 2.2422), (1.7173, 1.9679, 1.8426), (0.2190, 0.3172, 0.2681)),
    PublishedAccuracy("ResNet-18", (1.3955, 1.6411, 1.5183), (0.8836, 0.9459, 0.9147), (0.4458, 0.3255, 0.3856)),
    PublishedAccuracy("VGG-16", (1.5515, 1.6699, 1.6107), (0.9829, 1.0236, 1.0032), (0.3978, 0.3112, 0.3545)),
    PublishedAccuracy("VGG-small", (0.9410, 1.0553, 0.9982), (0.7687, 0.7663, 0.7675), (0.6281, 0.7067, 0.6674)),
    PublishedAccuracy("Sym. VGG", (0.8477, 0.6929, 0.7703), (0.7238, 0.6738, 0.6988), (0.6745, 0.7405, 0.7075)),
    PublishedAccuracy("Sym. VGG+", (0.8180, 0.7081, 0.7630), (0.6774, 0.6709, 0.6741), (0.7157, 0.7426, 0.7291)),
)

UNCERTAINTY: Final = (
    PublishedUncertainty("MC + VGG", ((0.815, 0.809), (0.802, 0.822), (0.809, 0.816)), (0.693, 0.705, 0.699)),
    PublishedUncertainty("MC + Proposed", ((0.811, 0.845), (0.815, 0.840), (0.813, 0.843)), (0.710, 0.728, 0.719)),
    PublishedUncertainty(
        "Symmetric MC + Proposed", ((0.806, 0.867), (0.819, 0.831), (0.813, 0.849)), (0.733, 0.765, 0.749)
    ),
)

# -- Claims and the last table ------------------------------------------------------------------------------------

MAE_REDUCTION: Final = -0.1211
"""The abstract's first claim: MAE of Sym. VGG+ against VGG-small, relative. The table's own MAEs give -12.17 %."""
SHARPNESS_GAIN: Final = 0.05
"""The abstract's second claim: Sharpness @ CP of symmetric MC + proposed less MC + VGG, .749 - .699."""

Agreement = tuple[float, float, float]


@dataclass(frozen=True)
class PublishedAgreement:
    """A row of the paper's last table.

    Attributes:
        method: as printed.
        goal: what it does, in our words.
        data_size: as printed: patients, but in the paper's own row its 734 patches of 367 patients.
        correlation: R right and left, from :data:`ACCURACY`; None for a reading, which gives no SBR.
        right, left: accuracy, sensitivity and specificity of low uptake, as printed.
    """

    method: str
    goal: str
    data_size: int
    correlation: tuple[float, float] | None
    right: Agreement
    left: Agreement


AGREEMENT: Final = (
    PublishedAgreement(
        "Observation (Bae 2021)",
        "reading of nigral hyperintensity",
        138,
        None,
        (0.652, 0.587, 0.897),
        (0.667, 0.596, 0.932),
    ),
    PublishedAgreement(
        "VGG regressor (Bae 2023)",
        "SBR of each side from its own net",
        367,
        (0.6281, 0.7067),
        (0.764, 0.721, 0.750),
        (0.855, 0.786, 0.756),
    ),
    PublishedAgreement(
        "This work",
        "SBR of both sides from one net",
        734,
        (0.7157, 0.7426),
        (0.818, 0.860, 0.833),
        (0.873, 0.854, 0.786),
    ),
)
AGREEMENT_INCONSISTENCIES: Final = (
    "Printed accuracies outside the range of sensitivity and specificity cannot come from one 2 x 2 table. With 55 "
    "patients the printed sensitivities and specificities are those of 43 low and 12 normal right sides and, with the "
    "two exchanged in the row of the VGG regressor, of 41 and 14 left sides; the accuracies would then be .727 and "
    ".764 for the VGG regressor, .855 and .836 for the proposed net.",
    "In the row of the observer the reference was patient against control, not low SBR.",
)
