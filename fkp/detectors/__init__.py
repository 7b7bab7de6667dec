"""Other face detectors than fkp's own, and the names of all."""

DETECTORS = ("fkp", "yunet", "whole")
"""By name: the weights' own, OpenCV's YuNet (`yunet`), and one for pictures that are one face (`whole`)."""
