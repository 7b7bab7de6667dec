"""The one error of weights."""


class WeightsError(RuntimeError):
    """Weights that cannot be had, do not fit or cannot be pushed: one sentence, and what to do."""
