"""What a net must beat: hand-made features with ridge regression."""

from nigradat.baselines.features import FEATURE_NAMES, RidgeBaseline, hand_made_features

__all__ = ["FEATURE_NAMES", "RidgeBaseline", "hand_made_features"]
