"""The 13 invariants of hippynn 0.1.3, from its own code with exact maps, up to order and sign."""

import importlib
import warnings

import pytest
import torch

from tensorgraph.algebra import embedding

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # hippynn warns on import about optional packages
    tensors = pytest.importorskip("hippynn.layers.hiplayers.tensors", reason="hippynn is a test dependency")


def published(features: torch.Tensor, n_max: int, l_max: int) -> torch.Tensor:
    """`[n_atoms, n_invariants, n_channels]` from hippynn, its maps from components to tensors taken in float64."""
    maps = [torch.tensor([[1.0]], dtype=torch.float64)]
    maps += [tensors.cartesian_irreducible_mapping(rank).double() for rank in range(1, l_max + 1)]
    atoms, size, channels = features.shape
    rows = features.permute(0, 2, 1).reshape(-1, size)
    values = tensors.calc_invariants(l_max, n_max, rows, maps)
    return values.reshape(atoms, channels, -1).permute(0, 2, 1)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_component_bases_agree(rank):
    """Same independent components in the same order, so features are interchangeable."""
    assert torch.equal(tensors.cartesian_irreducible_mapping(rank), torch.from_numpy(embedding(rank).copy()))


@pytest.mark.parametrize(("name", "n_max", "count"), [("hiphop5", 4, 13), ("hiphop4", 3, 7)])
def test_every_published_value_is_one_of_ours_and_the_reverse(name, n_max, count):
    features = torch.randn(50, 16, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ours = importlib.import_module(f"generated.{name}").invariants(features)
    theirs = published(features, n_max, 3)
    assert ours.shape == theirs.shape == (50, count, 3)
    partners = [matches(theirs[:, k], ours) for k in range(count)]
    assert all(len(found) == 1 for found in partners)
    assert sorted(found[0] for found in partners) == list(range(count))


def matches(value: torch.Tensor, candidates: torch.Tensor) -> list[int]:
    """The candidates that equal a value up to sign."""
    return [
        k
        for k in range(candidates.shape[1])
        if any(torch.allclose(sign * candidates[:, k], value, rtol=1e-10, atol=1e-10) for sign in (1, -1))
    ]


def test_tensor_components_agree():
    units = torch.nn.functional.normalize(torch.randn(20, 3, dtype=torch.float64), dim=1)
    ours = importlib.import_module("generated.hiphop5").tensor_components(units)
    theirs = torch.cat([part.double() for part in tensors.TensorExtractor(3).double()(units)], dim=1)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-7)  # hippynn rounds its projector to single precision
