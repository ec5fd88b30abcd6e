"""Programs to copy from: the demonstration (`python -m examples.gold`), a training loop, studies with small fits."""
