"""The published implementation, hippynn 0.1.3, at the hyperparameters of a package, and its weights for our model."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor

from tensorgraph.hippynn import converted, network_of, package_graphs
from tensorgraph.model.batch import Batch


@contextlib.contextmanager
def quiet_hippynn() -> Iterator[None]:
    """hippynn warns at import, at construction and at use; none of that concerns us."""
    # Unless another is asked for before hippynn is imported, the eager one: the others compile, on first use.
    os.environ.setdefault("HIPPYNN_USE_CUSTOM_KERNELS", "_pytorch_raw")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def choose_kernels(device: str) -> str:
    """Asks hippynn for the fastest of its own kernels on a device that is installed; before hippynn is imported."""
    fastest = ("triton", "numba") if device.startswith("cuda") else ("numba",)
    installed = [name for name in fastest if find_spec(name)]
    # As many threads as torch has: its idle workers would otherwise take time from what runs in turns with it.
    os.environ.setdefault("NUMBA_NUM_THREADS", str(torch.get_num_threads()))
    return os.environ.setdefault("HIPPYNN_USE_CUSTOM_KERNELS", next(iter(installed), "sparse"))


class Published:
    """The published network and energy heads with random weights, sized like the architecture of a package."""

    def __init__(self, constants: ModuleType, n_max: int | None, seed: int = 0) -> None:
        with quiet_hippynn(), torch.random.fork_rng():
            torch.manual_seed(seed)
            from hippynn.layers.targets import HEnergy

            self.network = self._network(constants, n_max)
            self.heads = HEnergy(self.network.feature_sizes)
            self.numbers = [number for _, number in constants.SPECIES]
            for parameter in (*self.network.parameters(), *self.heads.parameters()):
                if parameter.requires_grad:
                    parameter.data *= 1 + 0.1 * torch.randn_like(parameter)
                    parameter.data += 0.05 * torch.randn_like(parameter) * (parameter == 0)
            self.network.double(), self.heads.double()
            if n_max is not None:
                self._exact_projectors(constants.MAX_RANK)

    @staticmethod
    def _network(constants: ModuleType, n_max: int | None) -> torch.nn.Module:
        from hippynn.networks.hiphop import HipHopNNModule
        from hippynn.networks.hipnn import Hipnn

        options = {
            "n_features": constants.FEATURES,
            "n_sensitivities": constants.SENSITIVITY_FUNCTIONS,
            "dist_soft_min": constants.SOFT_MIN,
            "dist_soft_max": constants.SOFT_MAX,
            "dist_hard_max": constants.CUTOFF,
            "n_atom_layers": constants.ATOM_LAYERS,
            "n_interaction_layers": constants.INTERACTIONS,
            "n_input_features": len(constants.SPECIES),
            "resnet": constants.RESIDUAL,
        }
        if n_max is None:
            return Hipnn(**options)
        return HipHopNNModule(**options, l_max=constants.MAX_RANK, n_max=n_max, group_norm=constants.GROUP_NORM)

    def _exact_projectors(self, max_rank: int) -> None:
        """The published projectors were computed in float32; these are the same in float64."""
        from hippynn.layers.hiplayers import tensors

        exact = {0: torch.ones((1, 1), dtype=torch.float64)}
        for rank in (1, 2, 3):
            exact[rank] = tensors.pinv_project(tensors.cartesian_irreducible_mapping(rank).double())
        self.network.tensor_extractor = tensors.TensorExtractor(l_max=max_rank, pmaps=exact)

    def to(self, dtype: torch.dtype, device: str = "cpu") -> Published:
        """With weights and projectors of this type on this device, in place."""
        self.network.to(device, dtype), self.heads.to(device, dtype)
        return self

    def parameters(self) -> list[Tensor]:
        return [*self.network.parameters(), *self.heads.parameters()]

    def energies_and_forces(self, batch: Batch, create_graph: bool = False) -> tuple[Tensor, Tensor]:
        """Energies [n_structures] (eV) and forces [n_atoms, 3] (eV/Å); `create_graph` keeps them differentiable."""
        displacements = batch.displacements.clone().requires_grad_()
        one_hot = (batch.numbers[:, None] == torch.tensor(self.numbers, device=batch.numbers.device)).to(
            displacements.dtype
        )
        arguments = [one_hot, *batch.pairs, displacements.norm(dim=1)]
        if hasattr(self.network, "tensor_extractor"):
            arguments.append(displacements)
        with quiet_hippynn():
            features = self.network(*arguments)
            energy = self.heads(features, batch.structure, batch.n_structures)[0].squeeze(1)
            (slope,) = torch.autograd.grad(energy.sum(), displacements, create_graph=create_graph)
        forces = slope.new_zeros(len(batch.numbers), 3)
        forces = forces.index_add(0, batch.pairs[0], slope).index_add(0, batch.pairs[1], -slope)
        return energy if create_graph else energy.detach(), forces

    def state_dict(self) -> dict[str, Tensor]:
        """What hippynn would save of the network and its energy."""
        return torch.nn.ModuleDict({"network": self.network, "energy": self.heads}).state_dict()

    def copy_weights_to(self, model: torch.nn.Module, module: ModuleType) -> None:
        """Give `model`, a model of the package, the weights of this network."""
        model.load_state_dict(converted(network_of(self.state_dict()), package_graphs(module)))


def equal_models(
    module: ModuleType, n_max: int | None, dtype: torch.dtype, device: str
) -> tuple[torch.nn.Module, Published]:
    """A model of the package and the published one, with equal weights, of this type on this device."""
    with quiet_hippynn():
        published = Published(module.architecture, n_max)
    model = module.Model().double()
    published.copy_weights_to(model, module)
    return model.to(device, dtype), published.to(dtype, device)


def base_layer(layer: torch.nn.Module) -> torch.nn.Module:
    """The layer inside a residual wrapper, or the layer itself."""
    return getattr(layer, "base_layer", layer)
