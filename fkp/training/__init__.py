"""What `train.py` trains on, with what, and where it writes."""
