"""The battery of checks that a potential has to pass before a simulation relies on it: `tensorgraph verify`."""

from tensorgraph.battery.battery import CHECKS, NAMES, PHYSICS, Verification, run_battery, verify
from tensorgraph.battery.check import Check
from tensorgraph.battery.subject import Subject, subject_of

__all__ = ["CHECKS", "NAMES", "PHYSICS", "Check", "Subject", "Verification", "run_battery", "subject_of", "verify"]
