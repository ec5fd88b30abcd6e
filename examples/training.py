"""Train a generated potential on the energies and forces of an extxyz file, in one's own loop."""

import torch
from ase.io import read

from generated import hiphop4
from tensorgraph.model import batch_structures, save_checkpoint

model = hiphop4.Model(seed=0)
frames, cutoff = read("train.xyz", ":"), hiphop4.architecture.CUTOFF  # eV, Å
batches = [batch_structures(frames[k : k + 50], cutoff, targets=True) for k in range(0, len(frames), 50)]
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for _ in range(10):
    for batch in batches:
        out = model.energy_and_forces(*batch.inputs, create_graph=True)
        loss = (out.energy - batch.energy).square().mean() + (out.forces - batch.forces).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
save_checkpoint(model, hiphop4, "model.safetensors")
