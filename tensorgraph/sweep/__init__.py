"""`tensorgraph sweep`: potentials over a grid of specs and trainings, judged by error against time."""
