"""Detection of catastrophic (CO) and robust overfitting (RO) from logged rows."""

from energy_at.overfitting.alarms import Alarm, Thresholds
from energy_at.overfitting.detector import Detector

__all__ = ["Alarm", "Detector", "Thresholds"]
