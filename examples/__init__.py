"""What one can do with a generated package: the demonstration (`python -m examples.gold`) and a training loop."""
