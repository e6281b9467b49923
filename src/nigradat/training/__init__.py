"""From a cohort to a trained model: splits, batches, loss, fit."""
