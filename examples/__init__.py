"""Programs to copy from: the demonstration (`python -m examples.gold`), a training loop, and studies with small fits."""
