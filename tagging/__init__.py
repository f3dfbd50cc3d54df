"""Any pictures, any labels: `Tagger`, its scores and their calibration."""

from tagging.calibration import Calibration, CalibrationError
from tagging.portable import TaggerError
from tagging.tagger import Tagger, Tags

__all__ = ["Calibration", "CalibrationError", "Tagger", "TaggerError", "Tags"]
