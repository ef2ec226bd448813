"""Detection of catastrophic (CO) and robust overfitting (RO) from logged rows."""

from energy_at.overfitting.alarms import Alarm, Thresholds
from energy_at.overfitting.detector import Detector
from energy_at.overfitting.onset import RunStatus, status_of

__all__ = ["Alarm", "Detector", "RunStatus", "Thresholds", "status_of"]
