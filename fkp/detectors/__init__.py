"""Other face detectors than fkp's own."""
