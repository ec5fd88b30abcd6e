"""The battery of checks that a potential has to pass before a simulation relies on it: `tensorgraph verify`."""

from tensorgraph.battery.check import Check
from tensorgraph.battery.subject import Subject, subject_of

__all__ = ["Check", "Subject", "subject_of"]
