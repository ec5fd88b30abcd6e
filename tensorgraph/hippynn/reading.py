"""State dicts of hippynn 0.1.3: read without unpickling any object, and checked tensor by tensor.

The sizes of the layers, residuals, group norm, ranks and invariants show in a state dict. The cutoff never does, and
which element each input feature stands for only where a graph of hippynn was saved. That the activations are softplus,
the epsilon of the group norm is 1e-5, the sensitivities are Gaussian in 1/r and lengths are in Å is taken as given.
"""

from __future__ import annotations

import os
import re
import stat
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from tensorgraph.errors import CheckpointError
from tensorgraph.hippynn.layout import MAX_RANK, MAX_TENSORS, Layout, constants, invariants_of, weights
from tensorgraph.spec.elements import SYMBOLS

HOW_TO_SAVE = "torch.save(model.state_dict(), FILE), with model the network and its energy (hippynn's best_model.pt)"
_FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
_MAP_TOLERANCE = 1e-5  # of float32, the type that hippynn computes its maps in
_ARCHIVE = b"PK\x03\x04"  # what torch takes for an archive begins so
_MAX_NAME = 200  # characters


@dataclass(frozen=True)
class Network:
    """A published network with its energy heads: the tensors by their names in `layout.weights`, and their layout.

    `species` are chemical symbols, one per input feature, where the state dict says them.
    """

    layout: Layout
    tensors: Mapping[str, Tensor]
    species: tuple[str, ...] | None


def read_network(file: str | Path) -> Network:
    """The network whose state dict was saved in `file` with torch; nothing but tensors is unpickled.

    Raises CheckpointError where the file holds anything else, and where its tensors are not those of a HIP-NN or a
    HIP-HOP-NN with one energy.
    """
    state = _read(file)
    try:
        return network_of(state)
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from None


def _read(file: str | Path) -> Mapping[str, object]:
    with _opened(file) as stream:
        _check_archive(file, stream)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torch about its own formats
                content = torch.load(stream, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file makes torch raise almost anything
            foreign = re.search(r"GLOBAL ([\w.]+)", str(error))
            holds = f"holds an object ({foreign[1]})" if foreign else "is not a file of torch"
            raise CheckpointError(f"{file} {holds}; only state dicts are read, save one: {HOW_TO_SAVE}") from error
    if not isinstance(content, dict) or not content or not all(isinstance(name, str) for name in content):
        raise CheckpointError(f"{file} holds no state dict but {type(content).__name__}; save one: {HOW_TO_SAVE}")
    return content


def _opened(file: str | Path) -> BinaryIO:
    try:
        if not stat.S_ISREG(os.stat(file).st_mode):  # opening a pipe would wait for its writer
            raise CheckpointError(f"{file} cannot be read: it is not a regular file")
        return open(file, "rb")
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise CheckpointError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _check_archive(file: str | Path, stream: BinaryIO) -> None:
    """What torch does not check of its own archives: that they are not compressed, and their checksums.

    An archive that Python cannot read is refused, for torch may read it all the same.
    """
    is_archive = stream.read(len(_ARCHIVE)) == _ARCHIVE
    stream.seek(0)
    if not is_archive:  # an older format of torch; of all others torch says what is wrong
        return
    try:
        with zipfile.ZipFile(stream) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
            stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
            if not stored or unpacked > os.fstat(stream.fileno()).st_size:  # made to fill the memory
                raise CheckpointError(f"{file} is compressed, and unpacks to {unpacked} bytes; torch does not compress")
            damaged = archive.testzip()
    except CheckpointError:
        raise
    except Exception as error:  # damaged archives make zipfile and zlib raise almost anything
        raise CheckpointError(
            f"{file} is not a file of torch; only state dicts are read, save one: {HOW_TO_SAVE}"
        ) from error
    if damaged is not None:
        raise CheckpointError(f"{file} is damaged: the checksum of {damaged[:40]!r} is not that of its content")
    stream.seek(0)


def network_of(state: Mapping[str, object]) -> Network:
    """The network in a state dict. Raises CheckpointError like `read_network`."""
    if strange := [name for name in state if len(name) > _MAX_NAME or not name.isprintable()]:
        raise CheckpointError(
            f"it holds the name {strange[0][:40]!r}; allowed: at most {_MAX_NAME} printable characters in a name"
        )
    if scales := [name for name in state if name.endswith(("vecscales", "quadscales"))]:
        raise CheckpointError(
            f"this is a HIP-NN-TS ({scales[0]}), whose square roots no spec has; allowed: HIP-NN, HIP-HOP-NN"
        )
    if others := [name for name, value in state.items() if not isinstance(value, Tensor)]:
        raise CheckpointError(f"it holds what is no tensor: {_few(others)}; allowed: {HOW_TO_SAVE}")
    tensors = {name: value.detach() for name, value in state.items() if isinstance(value, Tensor)}
    _check_memory(tensors)
    prefixes = {
        "network": _prefix(tensors, r"blocks\.0\.0\.(?:base_layer\.)?int_weights", "a network"),
        "heads": _prefix(tensors, r"layers\.0\.weight", "energy heads"),
    }
    maps = [name for name in tensors if name.split(".")[-1] == "species_map"]
    layout = _layout(tensors, prefixes)
    shapes = {prefixes[weight.part] + weight.theirs: weight.shape for weight in weights(layout)}
    fixed = {prefixes["network"] + name: value for name, value in constants(layout).items()}
    _check_tensors(
        {name: value for name, value in tensors.items() if name not in maps},
        shapes | {name: tuple(value.shape) for name, value in fixed.items()},
    )
    _check_constants(tensors, fixed)
    named = {weight.theirs: tensors[prefixes[weight.part] + weight.theirs] for weight in weights(layout)}
    return Network(layout, named, _species(tensors, maps, layout.n_species))


def _check_memory(tensors: Mapping[str, Tensor]) -> None:
    """That each tensor has its elements in memory: not on the meta device, sparse, or few that are repeated."""
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            kind = f"{tensor.dtype}, {tensor.layout}, on {tensor.device}"
            raise CheckpointError(f"{name} is {kind}; allowed: dense tensors that were saved with their values")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise CheckpointError(f"{name} is {list(tensor.shape)} of fewer values, repeated; allowed: tensors in full")


def _prefix(tensors: Mapping[str, Tensor], ending: str, what: str) -> str:
    """What stands before the names of a part: that of a node in a graph, of a wrapper such as `module.`, or nothing."""
    pattern = re.compile(rf"((?:.*\.)?){ending}")
    found = [match for name in tensors if (match := pattern.fullmatch(name))]
    if len(found) != 1:
        held = f"{len(found)} times ({_few(match[0] for match in found)})" if found else "nowhere"
        need = ending.replace("\\", "").replace("(?:base_layer.)?", "")
        raise CheckpointError(f"it holds {what} ({need}) {held}; allowed: once, by {HOW_TO_SAVE}")
    return found[0][1]


def _layout(tensors: Mapping[str, Tensor], prefixes: Mapping[str, str]) -> Layout:
    """The sizes that the first layer and the names show; whether all else fits them is checked thereafter."""
    network = _below(tensors, prefixes["network"])
    residual = "blocks.0.0.base_layer.int_weights" in network
    inner = "blocks.0.0.base_layer" if residual else "blocks.0.0"
    shape = tuple(network[f"{inner}.int_weights"].shape)
    if len(shape) != 3 or 0 in shape:
        raise CheckpointError(f"{prefixes['network']}{inner}.int_weights has the shape {list(shape)}; allowed: 3 sizes")
    functions, features, n_species = shape
    layers = {(match[1], match[2]) for name in network if (match := re.match(r"blocks\.(\d+)\.(\d+)\.", name))}
    interactions = len({block for block, _ in layers})
    heads = _below(tensors, prefixes["heads"])
    n_heads = len({match[1] for name in heads if (match := re.match(r"layers\.(\d+)\.", name))})
    max_rank, n_max = _order(network, f"{inner}.mixing_weights")
    return Layout(
        n_species=n_species,
        features=features,
        interactions=interactions,
        atom_layers=len({layer for _, layer in layers}) - 1,
        functions=functions,
        max_rank=max_rank,
        n_max=n_max,
        group_norm=max_rank > 0 and f"{inner}.group_norm.weight" in network,
        residual=residual,
        species_head=not (n_heads == interactions and "layers.0.bias" in heads),
    )


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _order(network: Mapping[str, Tensor], mixing: str) -> tuple[int, int]:
    """The largest rank and the least number of tensors in a product that give the invariants; zeros for HIP-NN."""
    if mixing not in network:
        return 0, 0
    count = network[mixing].shape[1] if network[mixing].dim() == 3 else 0
    max_rank = sum(name.startswith("tensor_extractor.pmaps.") for name in network) - 1
    if count == 1:
        raise CheckpointError("this is a HIP-HOP-NN of the scalar alone, whose mixing no spec has; allowed: HIP-NN")
    for n_max in range(2, MAX_TENSORS + 1) if max_rank <= MAX_RANK else ():
        if len(invariants_of(n_max, max_rank)) == count:
            return max_rank, n_max
    raise CheckpointError(
        f"{mixing} mixes {count} invariants of ranks up to {max_rank}, which hippynn 0.1.3 cannot have"
    )


def _check_tensors(tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    missing, surplus = shapes.keys() - tensors.keys(), tensors.keys() - shapes.keys()
    problems = [
        *([f"missing {_few(missing)}"] if missing else []),
        *([f"surplus {_few(surplus)}"] if surplus else []),
    ]
    common = [name for name in tensors if name in shapes]
    problems += [
        f"{name} is {list(tensors[name].shape)} instead of {list(shapes[name])}"
        for name in common
        if tuple(tensors[name].shape) != shapes[name]
    ][:3]
    if problems:
        raise CheckpointError(f"it does not match a network of hippynn 0.1.3: {'; '.join(problems)}")
    for name in common:
        value = tensors[name]
        if value.dtype not in _FLOATS:
            raise CheckpointError(f"{name} is {value.dtype}; allowed: {', '.join(map(str, _FLOATS))}")
        if not torch.isfinite(value).all():
            raise CheckpointError(f"{name} holds numbers that are not finite")


def _check_constants(tensors: Mapping[str, Tensor], fixed: Mapping[str, Tensor]) -> None:
    for name, exact in fixed.items():
        tolerance = max(_MAP_TOLERANCE, torch.finfo(tensors[name].dtype).eps)
        if not torch.allclose(tensors[name].double(), exact, rtol=0, atol=tolerance):
            raise CheckpointError(f"{name} is not the map of hippynn 0.1.3: the tensors have other components")


def _species(tensors: Mapping[str, Tensor], maps: list[str], n_species: int) -> tuple[str, ...] | None:
    """From the atomic number of each input feature, which the encoder of a graph holds as a table of their indices."""
    if not maps:
        return None
    table = tensors[maps[0]]
    if len(maps) > 1 or table.dim() != 1 or table.dtype not in _INTEGERS or len(table) > len(SYMBOLS) + 1:
        raise CheckpointError(f"{_few(maps)} does not map atomic numbers to input features")
    numbers = {index: number for number, index in enumerate(table.tolist()) if index}
    complete = sorted(numbers) == list(range(1, n_species + 1)) and int(table.count_nonzero()) == n_species
    if not complete or 0 in numbers.values():  # hippynn's padding has the number 0
        raise CheckpointError(f"{maps[0]} does not name one element for each of {n_species} input features")
    return tuple(SYMBOLS[numbers[index] - 1] for index in range(1, n_species + 1))


def _few(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:3]) + (f" and {len(ordered) - 3} more" if len(ordered) > 3 else "")
