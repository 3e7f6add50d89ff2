"""What became of a data file, as the report says it."""

from __future__ import annotations

from trainer.contract.preview import DataPreview


class DataSummary(DataPreview):
    """What a preview says of a data file, and the file's hash; of each list of lines the first twenty."""

    sha256: str
