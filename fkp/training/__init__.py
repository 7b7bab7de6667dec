"""What `train.py` trains on, with what, and where it writes."""

try:
    import torch  # noqa: F401
except ImportError as error:
    raise ImportError("training needs torch: run 'pip install \"fkp[train]\"'", name="torch") from error
