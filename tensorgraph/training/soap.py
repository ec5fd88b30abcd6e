"""SOAP: Adam in the slowly rotating eigenbasis of Shampoo's preconditioners, for the matrices of a network.

Vyas, Morwani, Zhao, Kwun, Shapira, Brandfonbrener, Janson and Kakade, "SOAP: Improving and Stabilizing Shampoo using
Adam" (arXiv:2409.11321), Algorithm 3. All other parameters are changed by AdamW (arXiv:1711.05101).

Written here, and not taken from a library, because a weight tensor [invariants, channels, channels] is a batch of
matrices and not a tensor with three preconditioners, and because parameters have natural scales (`start.scaled`) in
which the steps are taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

TIE_BREAK = 0.1  # of the mean diagonal of a preconditioner
LARGEST = 512  # rows of a matrix that several matrices are stacked to
EPSILON = 1e-10


@dataclass(frozen=True)
class Scale:
    """The natural scale of a parameter: `size` of its shape, and `mixing` [n, n] along its first dimension, or None."""

    size: Tensor
    mixing: Tensor | None = None


class Soap(torch.optim.Optimizer):
    """Groups of parameters: `lr`, `weight_decay`, `betas` (of averages and of squares), and `matrices`, whether the
    parameters are treated as matrices (else as AdamW does). Eigenbases are renewed every `renewal` steps.

    `scales` maps a parameter p to its natural scale: steps are taken in p', where p = size · p' element by element, or
    p = size · (mixing @ p') with a matrix along the first dimension, as if the network had p' as its parameter. Decay
    is the same in both.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        betas: tuple[float, float] = (0.95, 0.95),
        renewal: int = 10,
        scales: Mapping[Tensor, Scale] | None = None,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "weight_decay": 0.0, "matrices": False, "renewal": renewal}
        super().__init__(groups, defaults)
        for parameter, scale in (scales or {}).items():
            self.state[parameter]["scale"] = scale.size.detach().clone()
            if scale.mixing is not None:
                self.state[parameter]["mixing"] = scale.mixing.detach().clone()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step along the gradients that the parameters hold."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        scale, mixing = state.get("scale", 1.0), state.get("mixing")
        gradient = parameter.grad * scale
        if mixing is not None:
            gradient = torch.tensordot(mixing.mT, gradient, dims=1)
        matrix = as_matrices(gradient) if group["matrices"] else None
        if "step" not in state:
            _start(state, gradient if matrix is None else matrix, matrix is not None)
        state["step"] += 1
        if matrix is None:
            change = _adam(state, gradient, gradient, group["betas"])
        else:
            change = _rotated(state, matrix, group).reshape(parameter.shape)
        if mixing is not None:
            change = torch.tensordot(mixing, change, dims=1)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.sub_(change * scale, alpha=group["lr"])


def as_matrices(tensor: Tensor) -> Tensor:
    """A parameter as a batch of matrices [batch, rows, columns].

    Of three dimensions, the first two make up the rows where they are not too many, else the first is the batch; a last
    dimension of one is left out.
    """
    if tensor.dim() == 3 and tensor.shape[2] == 1:
        return tensor.reshape(1, *tensor.shape[:2])
    if tensor.dim() == 3 and tensor.shape[0] * tensor.shape[1] > LARGEST:
        return tensor
    return tensor.reshape(1, -1, tensor.shape[-1])


def _start(state: dict[str, Any], gradient: Tensor, matrices: bool) -> None:
    state["step"] = torch.zeros((), dtype=torch.float64)
    state["average"], state["square"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
    if matrices:
        state["left"], state["right"] = gradient @ gradient.mT, gradient.mT @ gradient
        state["left_basis"], state["right_basis"] = _eigenbasis(state["left"]), _eigenbasis(state["right"])


def _adam(state: dict[str, Any], gradient: Tensor, rotated: Tensor, betas: tuple[float, float]) -> Tensor:
    """Adam's step: averages of the gradient, and squares of the rotated one."""
    step = float(state["step"])
    state["average"].lerp_(gradient, 1 - betas[0])
    state["square"].lerp_(rotated.square(), 1 - betas[1])
    average = state["average"] if rotated is gradient else _rotate(state, state["average"])
    root = (state["square"] / (1 - betas[1] ** step)).sqrt_().add_(EPSILON)
    change: Tensor = average / (1 - betas[0] ** step) / root
    return change


def _rotated(state: dict[str, Any], matrix: Tensor, group: dict[str, Any]) -> Tensor:
    """Adam's step in the eigenbases, turned back; then the bases follow the preconditioners."""
    if int(state["step"]) > 1:
        state["left"].lerp_(matrix @ matrix.mT, 1 - group["betas"][1])
        state["right"].lerp_(matrix.mT @ matrix, 1 - group["betas"][1])
    normal = _adam(state, matrix, _rotate(state, matrix), group["betas"])
    change: Tensor = state["left_basis"] @ normal @ state["right_basis"].mT
    if int(state["step"]) % group["renewal"] == 0:
        _renew(state, "left", 1)
        _renew(state, "right", 2)
    return change


def _rotate(state: dict[str, Any], matrix: Tensor) -> Tensor:
    turned: Tensor = state["left_basis"].mT @ matrix @ state["right_basis"]
    return turned


def _eigenbasis(matrix: Tensor) -> Tensor:
    """Eigenvectors as columns, those of the largest eigenvalues first."""
    return _as_loaded(torch.linalg.eigh(_without_ties(matrix))[1].flip(-1))


def _as_loaded(basis: Tensor) -> Tensor:
    """In the order of elements that a file gives back: products in another one are rounded in another way, so that a
    run that goes on would not be the one that was never interrupted.
    """
    return basis.contiguous()


def _without_ties(matrix: Tensor) -> Tensor:
    """The matrix with a small fixed diagonal added, so that its eigenvectors are defined.

    The first gradients leave many eigenvalues at zero. In their space every basis is one of eigenvectors, rounding
    would choose it, and Adam's steps depend on it: two runs that differ by rounding would part at once.
    """
    n = matrix.shape[-1]
    ramp = torch.linspace(1, 0, n, dtype=matrix.dtype, device=matrix.device)
    size = matrix.diagonal(dim1=-2, dim2=-1).mean(dim=-1)[:, None, None]
    return matrix + TIE_BREAK * size * torch.diag(ramp)


def _renew(state: dict[str, Any], side: str, dim: int) -> None:
    """One step of orthogonal iteration; directions are sorted, and the squares with them."""
    basis, matrix = state[f"{side}_basis"], _without_ties(state[side])
    order = (basis * (matrix @ basis)).sum(-2).argsort(-1, descending=True)
    basis = torch.gather(basis, 2, order.unsqueeze(1).expand_as(basis))
    sorted_rows = order.unsqueeze(2) if dim == 1 else order.unsqueeze(1)
    state["square"] = torch.gather(state["square"], dim, sorted_rows.expand_as(state["square"]))
    state[f"{side}_basis"] = _as_loaded(torch.linalg.qr(matrix @ basis)[0])
