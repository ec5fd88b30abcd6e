"""What `import-hippynn` refuses: one line that says what does not match, nothing written, nothing executed."""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tensorgraph.cli import main
from tests.hippynn_graphs import CUTOFF, graph
from tests.test_hippynn import spec_file

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def hipnn() -> State:
    return dict(graph().module.state_dict())


@pytest.fixture(scope="module")
def hiphop() -> State:
    return dict(graph(n_max=2, l_max=2, n_interaction_layers=1).module.state_dict())


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What the command says, in one line, of a file that it refuses; 1 is its status unless told otherwise."""

    def refused(file: object, *options: object, status: int = 1) -> str:
        if isinstance(file, dict):
            torch.save(file, tmp_path / "state.pt")
            file = tmp_path / "state.pt"
        out = tmp_path / "out" / "model.safetensors"
        options = options or ("--cutoff", CUTOFF)
        capsys.readouterr()
        assert main(["import-hippynn", str(file), "--out", str(out), *map(str, options)]) == status
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.count("\n") == 1
        assert printed.err.endswith("\n")
        assert not out.exists()
        return printed.err

    return refused


def key(state: State, ending: str) -> str:
    (found,) = (name for name in state if name.endswith(ending))
    return found


CHANGES: dict[str, tuple[str, Callable[[Tensor], object], str]] = {
    "dropped bias": ("blocks.1.0.base_layer.selfint.bias", lambda x: None, "missing moddict.node16.blocks.1.0"),
    "dropped head": ("layers.2.weight", lambda x: None, "missing moddict.node17.layers.2.weight"),
    "dropped first weights": ("blocks.0.0.base_layer.int_weights", lambda x: None, "a network .* nowhere"),
    "dropped first head": ("layers.0.weight", lambda x: None, "energy heads .* nowhere"),
    "two energies": ("layers.1.weight", lambda x: x.repeat(2, 1), r"is \[2, 6\] instead of \[1, 6\]"),
    "wider layer": ("blocks.0.1.base_layer.weight", lambda x: x.repeat(2, 1), r"is \[12, 6\] instead of \[6, 6\]"),
    "flat weights": ("blocks.0.0.base_layer.int_weights", lambda x: x.flatten(), r"has the shape \[120\]"),
    "no weights": ("blocks.0.0.base_layer.int_weights", lambda x: x[:0], r"has the shape \[0, 6, 4\]"),
    "integers": ("layers.1.bias", lambda x: x.long(), "layers.1.bias is torch.int64; allowed: torch.float64"),
    "complex": ("layers.1.bias", lambda x: x.cfloat(), "layers.1.bias is torch.complex64"),
    "8 bits": ("layers.1.bias", lambda x: x.to(torch.float8_e4m3fn), "layers.1.bias is torch.float8_e4m3fn"),
    "NaN": ("layers.1.bias", lambda x: x * float("nan"), "layers.1.bias holds numbers that are not finite"),
    "infinity": ("blocks.1.0.res_layer.weight", lambda x: x / 0, "holds numbers that are not finite"),
    "meta": ("layers.1.bias", lambda x: x.to("meta"), "on meta; allowed: dense tensors"),
    "meta map": ("species_map", lambda x: x.to("meta"), "on meta; allowed: dense tensors"),
    "sparse": ("blocks.1.0.res_layer.weight", lambda x: x.to_sparse(), "torch.sparse_coo, on cpu; allowed: dense"),
    "repeated": (
        "blocks.0.0.base_layer.int_weights", lambda x: x[:1, :1, :1].expand(10**6, 10**6, 10**6), "values, repeated"
    ),
    "a number": ("layers.1.bias", lambda x: 1.0, "holds what is no tensor: moddict.node17.layers.1.bias"),
    "species of floats": ("species_map", lambda x: x.double(), "does not map atomic numbers"),
    "complex species": ("species_map", lambda x: x.cfloat(), "does not map atomic numbers"),
    "twice a species": ("species_map", lambda x: torch.where(x == 2, 1, x), "does not name one element for each of 4"),
    "species without a number": ("species_map", lambda x: x.roll(-1), "does not name one element for each of 4"),
    "negative species": ("species_map", lambda x: -x, "does not name one element for each of 4"),
    "unknown elements": ("species_map", lambda x: torch.cat([x, x.new_zeros(200)]), "does not map atomic numbers"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*sparse.*invariant")
@pytest.mark.parametrize("change", CHANGES)
def test_tensors_that_do_not_fit(change: str, hipnn: State, refused: Callable[..., str]) -> None:
    ending, changed, message = CHANGES[change]
    name = key(hipnn, ending)
    value = changed(hipnn[name])
    state = {other: tensor for other, tensor in hipnn.items() if other != name}
    assert_says(refused(state if value is None else {**state, name: value}), message)


def assert_says(line: str, pattern: str) -> None:
    assert re.search(pattern, line), line


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("moddict.node16.extra", r"surplus moddict\.node16\.extra"),
        ("moddict.node30.layers.0.weight", r"energy heads \(layers\.0\.weight\) 2 times"),
        ("moddict.node30.blocks.0.0.int_weights", r"a network .* 2 times"),
        ("moddict.node16.blocks.0.0.base_layer.vecscales", "this is a HIP-NN-TS"),
        ("moddict.node16.blocks.2.0.res_layer.bias", r"missing .* and \d+ more"),
        ("charge\n\x1b[31m.weight", r"holds the name 'charge\\n\\x1b\[31m\.weight'; allowed: at most 200 printable"),
        ("x" * 10**5, r"holds the name 'x{40}'; allowed"),
        ("other.species_map", "does not map atomic numbers"),
    ],
)
def test_tensors_that_a_network_does_not_have(name: str, message: str, hipnn: State, refused) -> None:
    assert_says(refused({**hipnn, name: torch.zeros(2)}), message)


@pytest.mark.parametrize(
    ("ending", "value", "message"),
    [
        ("pmaps.2", lambda x: 1.01 * x, "the tensors have other components"),
        ("cmaps.2", lambda x: x.roll(1, 0), "the tensors have other components"),
        ("cmaps.3", lambda x: x.new_full(x.shape, float("nan")), "not finite"),
        ("pmaps.1", lambda x: None, "mixes 3 invariants of ranks up to 1, which hippynn"),
        ("mixing_weights", lambda x: x[:, :2], "mixes 2 invariants of ranks up to 2, which hippynn"),
        ("mixing_weights", lambda x: x[:, :1], "of the scalar alone, whose mixing no spec has"),
        ("mixing_weights", lambda x: x[0], "mixes 0 invariants"),
        ("mixing_weights", lambda x: None, "surplus"),
        ("group_norm.weight", lambda x: x[:-1], r"is \[17\] instead of \[18\]"),
        ("group_norm.bias", lambda x: None, "missing .*group_norm.bias"),
    ],
)
def test_tensors_of_invariants_that_do_not_fit(ending: str, value, message: str, hiphop: State, refused) -> None:
    name = key(hiphop, ending)
    changed = value(hiphop[name])
    state = {other: tensor for other, tensor in hiphop.items() if other != name}
    assert_says(refused(state if changed is None else {**state, name: changed}), message)


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (("--cutoff", "-1"), 2, "cutoff"),
        (("--cutoff", "0"), 2, "cutoff"),
        (("--cutoff", "nan"), 2, "cutoff"),
        (("--cutoff", "inf"), 2, "cutoff"),
        (("--cutoff", "1e9"), 2, "cutoff"),
        (("--cutoff", "5", "--name", "../evil"), 2, "name"),
        (("--cutoff", "5", "--name", "os"), 2, "name"),
        (("--cutoff", "5", "--species", "H,C,N"), 1, r"it has 4 species, not 3 \(H, C, N\)"),
        (("--cutoff", "5", "--species", "H,C,N,S"), 1, "its species are H, C, N, O, not H, C, N, S"),
        (("--cutoff", "5", "--species", "H,C,N,Xx"), 2, "Xx"),
        (("--cutoff", "5", "--species", ""), 1, "it has 4 species, not 0"),
        (("--cutoff", "5", "--energy-unit", "Ry"), 1, "unit of energy is 'Ry'; allowed: eV, Hartree, kcal/mol"),
        (("--spec", "no such file"), 2, "no such file"),
    ],
)
def test_options_that_do_not_fit(options: tuple[str, ...], status: int, message: str, hipnn: State, refused) -> None:
    assert_says(refused(hipnn, *options, status=status), message)


def test_options_that_go_together(hipnn: State, refused, tmp_path: Path) -> None:
    spec = spec_file(tmp_path, graph())
    assert_says(refused(hipnn, "--spec", spec, "--species", "H", status=2), "--species beside --spec")
    for options in (("--spec", str(spec), "--cutoff", "5"), (), ("--cutoff", "five")):
        with pytest.raises(SystemExit) as ended:
            main(["import-hippynn", "state.pt", "--out", "out", *options])
        assert ended.value.code == 2


def test_a_bare_network_does_not_say_its_species(refused) -> None:
    assert_says(refused(graph().bare_state()), "does not say the species of its 4 input features in their order")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"species": "[H, C, N]"}, "it has species 4, not 3"),
        ({"repulsion": "{kind: zbl, radii: [0.3, 0.8, 0.7, 0.7]}"}, "it has no repulsion, and the spec has one"),
        ({"species": "[H, C, N, S]"}, "its species are H, C, N, O, not H, C, N, S"),
        ({"features": 8, "atom_layers": 2}, "it has features 6, not 8; atom_layers 1, not 2"),
        ({"interactions": 1}, "interactions 2, not 1"),
        ({"sensitivity": "{functions: 6}"}, "sensitivity.functions 5, not 6"),
        ({"residual": "false"}, "residual true, not false"),
    ],
)
def test_specs_that_do_not_fit(changes: dict[str, object], message: str, hipnn: State, refused, tmp_path: Path) -> None:
    assert_says(refused(hipnn, "--spec", spec_file(tmp_path, graph(), **changes)), message)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("max_rank: 2", "max_rank: 1", "max_rank 2, not 1"),
        ("group_norm: true", "group_norm: false", "group_norm true, not false"),
        ("body_order: 3", "body_order: 4", r"it lacks none, and has .*, .* besides"),
        ("family: hiphop", "family: connected", "the spec's invariants are not those|does not match"),
    ],
)
def test_bases_that_do_not_fit(old: str, new: str, message: str, hiphop: State, refused, tmp_path: Path) -> None:
    published = graph(n_max=2, l_max=2, n_interaction_layers=1)
    spec = spec_file(tmp_path, published)
    changed = spec.read_text().replace(old, new)
    assert changed != spec.read_text()
    spec.write_text(changed.replace("body_order: 3", "body_order: 4") if "connected" in new else changed)
    assert_says(refused(hiphop, "--spec", spec), message)


def test_a_spec_without_a_network(hipnn: State, refused, tmp_path: Path) -> None:
    (tmp_path / "bare.yaml").write_text("name: bare\nbasis: {family: hiphop, body_order: 3, max_rank: 1}\n")
    assert_says(refused(hipnn, "--spec", tmp_path / "bare.yaml"), "the spec bare has no network")


def test_species_that_become_features_keep_their_order(refused, tmp_path: Path) -> None:
    published = graph(species=("H", "O"), n_features=2)
    spec = spec_file(tmp_path, published, species="[O, H]")
    said = refused(dict(published.module.state_dict()), "--spec", spec)
    assert_says(said, "its species are H, O and become as many features: the spec has to name them in this order")


class Bomb:
    """Makes a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (os.mkdir, (str(self.mark),))


@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize("how", ["torch", "legacy torch", "pickle", "old pickle", "beside tensors"])
def test_nothing_is_executed(how: str, forced: bool, hipnn: State, refused, tmp_path: Path, monkeypatch) -> None:
    """Nor where the user's environment asks torch to unpickle everything."""
    if forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    mark, file = tmp_path / "executed", tmp_path / "bomb.pt"
    match how:
        case "torch" | "legacy torch":
            torch.save({"bomb": Bomb(mark)}, file, _use_new_zipfile_serialization=how == "torch")
        case "pickle" | "old pickle":
            file.write_bytes(pickle.dumps({"bomb": Bomb(mark)}, protocol=4 if how == "pickle" else 0))
        case _:
            torch.save({**hipnn, "bomb": Bomb(mark)}, file)
    assert_says(refused(file), "only state dicts are read, save one: torch.save")
    assert not mark.exists()
    torch.load(file, weights_only=False) if "torch" in how else None
    assert mark.exists() == ("torch" in how)  # the bomb is one


def test_whole_modules_and_scripts_are_refused(refused, tmp_path: Path) -> None:
    torch.save(graph().module, tmp_path / "experiment_structure.pt")
    assert_says(refused(tmp_path / "experiment_structure.pt"), r"holds an object \(hippynn[\w.]+\); only state dicts")
    for content, kind in (([torch.zeros(1)], "list"), ({}, "dict"), ({1: torch.zeros(1)}, "dict"), (3, "int")):
        torch.save(content, tmp_path / "other.pt")
        assert_says(refused(tmp_path / "other.pt"), f"holds no state dict but {kind}; save one")


def test_files_that_are_none_of_torch(hipnn: State, refused, tmp_path: Path) -> None:
    file = tmp_path / "state.pt"
    torch.save(hipnn, file)
    whole = file.read_bytes()
    contents = [whole[: len(whole) * part // 7] for part in range(7)] + [b"no tensors\n", bytes(1000), whole[:-1]]
    for content in contents:
        file.write_bytes(content)
        assert_says(refused(file), "state.pt is not a file of torch; only state dicts are read")


def test_a_damaged_byte_is_found(hipnn: State, refused, tmp_path: Path) -> None:
    """torch itself loads other weights and says nothing."""
    file = tmp_path / "state.pt"
    torch.save(hipnn, file)
    whole = file.read_bytes()
    name = key(hipnn, "blocks.1.0.res_layer.weight")
    place = whole.index(hipnn[name].numpy().tobytes()) + 7
    file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    assert not torch.equal(torch.load(file)[name], hipnn[name])
    assert_says(refused(file), r"is damaged: the checksum of 'state/data/\d+' is not that of its content")


def test_archives_that_fill_the_memory_are_not_unpacked(refused, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**7))
    assert_says(refused(tmp_path / "bomb.pt"), "is compressed, and unpacks to 10000000 bytes")


@pytest.mark.parametrize("how", ["newer than Python knows", "damaged"])
def test_archives_that_only_torch_would_read_are_refused(hipnn: State, refused, tmp_path: Path, how: str) -> None:
    file = tmp_path / "state.pt"
    if how == "damaged":  # deflated data that is none
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", bytes(range(256)) * 8)
            archive.writestr("archive/pad", os.urandom(5000))
        content = bytearray(file.read_bytes())
        content[60:90] = bytes([255]) * 30
    else:
        torch.save(hipnn, file)
        content = bytearray(file.read_bytes())
        place = content.index(b"PK\x01\x02")
        content[place + 6] = 99  # the version needed to read the first entry
    file.write_bytes(content)
    assert_says(refused(file), "is not a file of torch|is compressed")


def test_maps_of_ranks_that_hippynn_does_not_have_are_refused(refused, tmp_path: Path, hiphop: State) -> None:
    torch.save(hiphop | {key(hiphop, "tensor_extractor.pmaps.0")[:-1] + "4": torch.ones(9, 3, 3)}, tmp_path / "s.pt")
    assert_says(refused(tmp_path / "s.pt"), "which hippynn 0.1.3 cannot have|surplus|does not match")


def test_places_that_cannot_be_read(refused, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, message in (
        (tmp_path, "not a regular file"),
        (tmp_path / "pipe", "not a regular file"),
        (tmp_path / "absent.pt", "No such file or directory"),
        ("/dev/null", "not a regular file"),
    ):
        assert_says(refused(path), message)


def test_places_that_cannot_be_written(hipnn: State, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, text = tmp_path / "state.pt", tmp_path / "text"
    torch.save(hipnn, file)
    text.write_text("text")
    content = file.read_bytes()
    for out, message in (
        (tmp_path, "it is a directory"),
        (text / "model.safetensors", "cannot be written"),
        (file, "is the file that is imported"),
    ):
        assert main(["import-hippynn", str(file), "--out", str(out), "--cutoff", "4.5"]) == 1
        printed = capsys.readouterr()
        assert message in printed.err
        assert printed.err.count("\n") == 1
    assert file.read_bytes() == content
