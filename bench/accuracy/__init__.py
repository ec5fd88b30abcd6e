"""Errors of trained potentials on data that others publish errors on, with everything needed to repeat them."""
