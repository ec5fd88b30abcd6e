"""Errors of a potential on labelled structures: figures, tables and pictures."""

from tensorgraph.evaluation.evaluation import evaluate
from tensorgraph.evaluation.metrics import EnergyErrors, ForceErrors, Metrics, Predicted, StressErrors, metrics_of
from tensorgraph.evaluation.pictures import write_figure, write_pictures
from tensorgraph.evaluation.predictions import species_of
from tensorgraph.evaluation.result import Evaluation, WorstStructure

__all__ = [
    "EnergyErrors",
    "Evaluation",
    "ForceErrors",
    "Metrics",
    "Predicted",
    "StressErrors",
    "WorstStructure",
    "evaluate",
    "metrics_of",
    "species_of",
    "write_figure",
    "write_pictures",
]
