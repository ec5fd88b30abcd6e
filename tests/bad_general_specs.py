"""Specs of the general form, and wrong ones: an edit of a good one, the line and the start of the message."""

MTP = """\
name: mtp1
species: [H, C]
radial:
  kind: chebyshev
  mix: species_pair
  channels: 4
layers:
  - density:
      max_rank: 4
    basis:
      family: products
      body_order: 5
      across: channels
      degree:
        limit: 16
        of: 2 + 4n + l
readout:
  kind: linear
  per: species
"""
"""A moment tensor potential: degrees across radial channels."""

ACE = """\
name: ace1
species: [Mo]
radial: {kind: inverse_gaussian, functions: 12, cutoff: 4.9, soft_max: 4.5}
layers:
  - {density: {max_rank: 3}, basis: {family: linear, body_order: 4}}
readout: {kind: linear, per: species}
"""
"""A linear atomic cluster expansion."""

TWO = """\
name: two1
species: [H, C]
radial:
  kind: bessel
  cutoff: 5.0
layers:
  - density:
      max_rank: 2
      channels: 8
    basis:
      family: linear
      body_order: 3
      outputs: [0, 1]
    update:
      norm: group
  - density:
      max_rank: 1
      channels: 8
      of: features
    basis:
      family: linear
      body_order: 3
readout:
  kind: linear
  per: species
"""
"""Two layers with features of ranks 0 and 1 between them."""

HIPHOP = """\
name: hop1
species: [H, C]
radial: {kind: inverse_gaussian, functions: 20, cutoff: 6.5}
layers:
  - density: {max_rank: 3, channels: 128}
    basis: {family: hiphop, body_order: 5}
    update: {norm: group, atom_layers: 3}
    repeat: 2
readout: {kind: linear, of: all}
"""
"""A layer that is repeated."""

FIRST = "channels: 128}\n    basis: {family: hiphop, body_order: 5}\n"
SECOND = """\
    update: {}
  - density: {max_rank: 1, channels: 8, of: features}
    basis: {family: hiphop, body_order: 3}
"""

SNAP = """\
name: snap1
species: [W]
radial:
  kind: hypersphere
  cutoff: 4.7
  rmin0: 0.5
layers:
  - density:
      dimension: 4
      max_rank: 4
      self: 0.9
    basis:
      family: linear
      body_order: 4
      degree:
        exactly: 3
        of: 1
readout:
  kind: linear
  per: species
"""
"""Tensors of four dimensions."""

GOOD = {"mtp": MTP, "ace": ACE, "two": TWO, "hiphop": HIPHOP, "snap": SNAP}

LAST = "basis:\n      family: linear\n      body_order: 3\nreadout"

BAD = {  # the good spec, what is replaced where it first occurs, by what, the line, the start of the message
    # both forms, or neither
    "both": (MTP, "readout", "basis: {}\nreadout", 17, "there are both `basis` and `layers`; allowed: basis and optio"),
    "network": (MTP, "readout", "network: {}\nreadout", 17, "unknown key 'network'; allowed: name, species, radial, "),
    "no layers": (ACE, "layers", "basis", 2, "unknown key 'species'; allowed: name, basis, network"),
    "misspelt layers": (ACE, "layers", "layer", 4, "unknown key 'layer' (did you mean layers?); allowed: name, spec"),
    "layers missing": (TWO, TWO[TWO.index("layers") : TWO.index("readout")], "", 1, "the key `layers` is missing; all"),
    "neither": (TWO, TWO[TWO.index("species") :], "", 1, "the key `basis` is missing; allowed: a mapping with the key"),
    "radial missing": (ACE, "radial: {", "# {", 1, "the key `radial` is missing; allowed: a mapping with the key kin"),
    # sections
    "name": (ACE, "ace1", "json", 1, "`name` is 'json', which would hide the module of that name; allowed"),
    "species in a block": (ACE, "[Mo]", "\n  - Mo\n  - Xx", 4, "`species[1]` is 'Xx', which is no chemical symbol; al"),
    "species twice": (ACE, "[Mo]", "\n  - Mo\n  - Mo", 4, "`species` holds Mo twice; allowed: a list of 1 to 118"),
    "kind": (MTP, "chebyshev", "jacobi", 4, "`radial.kind` is 'jacobi'; allowed: one of inverse_gaussian, chebyshev"),
    "functions": (MTP, "mix", "functions: 257\n  mix", 5, "`radial.functions` is 257; allowed: an integer from 1 to 2"),
    "cutoff low": (TWO, "5.0", "0.09", 5, "`radial.cutoff` is 0.09; allowed: a number of ångström from 0.1 to 100"),
    "cutoff infinite": (TWO, "5.0", ".inf", 5, "`radial.cutoff` is inf; allowed: a number of ångström from 0.1"),
    "soft_min": (MTP, "mix", "soft_min: 5\n  mix", 5, "`radial.soft_min` is 5.0, not below cutoff, which is 5.0; all"),
    "cutoff below soft_min": (MTP, "mix", "cutoff: 0.7\n  mix", 5, "`radial.soft_min` is 0.75, not below cutoff, whi"),
    "soft_max": (ACE, "soft_max: 4.5", "soft_max: 0.7", 3, "`radial.soft_max` is 0.7, not above soft_min, which is 0"),
    "soft_max of Chebyshev": (MTP, "mix", "soft_max: 5.5\n  mix", 5, "`radial.soft_max` has no meaning with kind: che"),
    "soft_max of Bessel": (TWO, "cutoff", "soft_max: 4\n  cutoff", 5, "`radial.soft_max` has no meaning with kind: be"),
    "soft_min of Bessel": (TWO, "cutoff", "soft_min: 1\n  cutoff", 5, "`radial.soft_min` has no meaning with kind: be"),
    "channels": (MTP, "  mix: species_pair\n", "", 5, "`radial.channels` is 4, which nothing tells apart with mix: no"),
    "too many channels": (MTP, "4", "65", 6, "`radial.channels` is 65; allowed: an integer from 1 to 64, above 1 only"),
    "mix": (MTP, "species_pair", "pair", 5, "`radial.mix` is 'pair'; allowed: none, or species_pair"),
    "radial key": (MTP, "mix", "trained: true\n  mix", 5, "unknown key 'trained'; allowed: kind, functions, cutoff, s"),
    # repulsion
    "repulsion empty": (ACE, "readout", "repulsion:\nreadout", 6, "`repulsion` is empty; allowed: a mapping with"),
    "no radii": (ACE, "readout", "repulsion: {kind: zbl}\nreadout", 6, "the key `repulsion.radii` is missing; allow"),
    "repulsion kind": (ACE, "readout", "repulsion: {kind: lj, radii: [1]}\nreadout", 6, "`repulsion.kind` is 'lj'; a"),
    "radii of others": (TWO, "layers", "repulsion: {kind: zbl, radii: [0.5]}\nlayers", 6,
                        "`repulsion.radii` has 1 elements for 2 species; allowed: a list of numbers of ångström"),
    "radius too large": (ACE, "readout", "repulsion: {kind: zbl, radii: [2.5]}\nreadout", 6,
                         "`repulsion.radii[0]` holds 2.5, more than half of the cutoff, which is 4.9; allowed"),
    "radius zero": (ACE, "readout", "repulsion: {kind: zbl, radii: [0]}\nreadout", 6, "`repulsion.radii[0]` is 0; all"),
    # elements of the list
    "layers a mapping": (ACE, "  - {density", "  {density", 4, "`layers` is a mapping; allowed: a list of 1 to 8 mapp"),
    "no layer": (TWO, TWO[TWO.index("layers") : TWO.index("readout")], "layers: []\n", 6, "`layers` is an empty list;"),
    "nine layers": (ACE, "layers:\n", "layers:\n" + 8 * f"{ACE.splitlines()[4]}\n", 4,
                    "`layers` has 9 elements; allowed: a list of 1 to 8 mappings"),
    "layer a number": (ACE, "layers:\n", "layers:\n  - 5\n", 5, "`layers[0]` is 5; allowed: a list of 1 to 8 mappings"),
    "layer empty": (ACE, "layers:\n", "layers:\n  -\n", 5, "`layers[0]` is empty; allowed: a list of 1 to 8 mappings"),
    "layer key": (TWO, "    update", "    updates", 14, "unknown key 'updates' (did you mean update?); allowed: densi"),
    "basis missing": (TWO, LAST, "update: {}\nreadout", 16, "the key `layers[1].basis` is missing; allowed: a mapping"),
    "density empty": (TWO, "\n      max_rank: 1\n      channels: 8\n      of: features", "", 16,
                      "`layers[1].density` is empty; allowed: a mapping with the key max_rank"),
    "update empty": (TWO, "\n      norm: group", "", 14, "`layers[0].update` is empty; allowed: a mapping with some o"),
    "repeat": (HIPHOP, "repeat: 2", "repeat: 9", 8, "`layers[0].repeat` is 9; allowed: an integer from 1 to 8"),
    # densities
    "rank": (TWO, "max_rank: 1", "max_rank: 9", 17, "`layers[1].density.max_rank` is 9; allowed: an integer from 0 to"),
    "density channels": (TWO, "channels: 8", "channels: 0", 9, "`layers[0].density.channels` is 0; allowed: an intege"),
    "four dimensions": (MTP, "max_rank: 4", "max_rank: 4\n      dimension: 4", 10,
                        "`layers[0].density.dimension` is 4, and radial.kind is chebyshev; allowed: 3, or with radia"),
    "five dimensions": (SNAP, "dimension: 4", "dimension: 5", 9, "`layers[0].density.dimension` is 5; allowed: 3, or"),
    "three on the sphere": (SNAP, "      dimension: 4\n      max_rank: 4\n      self: 0.9", "      max_rank: 4", 8,
                            "`layers[0].density.dimension` is 3, and radial.kind is hypersphere; allowed: 3, or w"),
    "four dimensions twice": (SNAP, "readout:", "    update: {}\n    repeat: 2\nreadout:", 9,
                              "`layers[0].density.dimension` is 4, and there are several layers; allowed: 3, or with"),
    "channels on the sphere": (SNAP, "rmin0", "channels: 1\n  rmin0", 6, "`radial.channels` has no meaning with kind:"),
    "self in three": (MTP, "max_rank: 4", "max_rank: 4\n      self: 1.0", 10,
                      "`layers[0].density.self` has no meaning with dimension: 3; allowed: a number from 0 to 100"),
    "self": (SNAP, "0.9", "-1", 11, "`layers[0].density.self` is -1; allowed: a number from 0 to 100, with dimension"),
    "rfac0": (SNAP, "rmin0: 0.5", "rfac0: 1.1", 6, "`radial.rfac0` is 1.1; allowed: a number from 0.01 to 1, with kin"),
    "rfac0 elsewhere": (MTP, "mix", "rfac0: 1\n  mix", 5, "`radial.rfac0` has no meaning with kind: chebyshev; allow"),
    "rmin0": (SNAP, "0.5", "4.7", 6, "`radial.rmin0` is 4.7, not 0.1 below cutoff, which is 4.7; allowed: a number of"),
    "rmin0 elsewhere": (TWO, "cutoff", "rmin0: 1\n  cutoff", 5, "`radial.rmin0` has no meaning with kind: bessel; a"),
    "functions on the sphere": (SNAP, "rmin0", "functions: 4\n  rmin0", 6, "`radial.functions` has no meaning with"),
    "mix on the sphere": (SNAP, "rmin0: 0.5", "mix: species_pair", 6, "`radial.mix` has no meaning with kind: hyper"),
    "a fractional dimension": (MTP, "max_rank: 4", "max_rank: 4\n      dimension: 3.0", 10,
                               "`layers[0].density.dimension` is 3.0; allowed: 3"),
    "a true dimension": (MTP, "max_rank: 4", "max_rank: 4\n      dimension: true", 10, "`layers[0].density.dimension`"),
    "first of features": (MTP, "max_rank: 4", "max_rank: 4\n      of: features", 10,
                          "`layers[0].density.of` is features in the first layer; allowed: species in the first layer"),
    "second of species": (TWO, "of: features", "of: species", 19, "`layers[1].density.of` is species in a later layer"),
    "second by default": (TWO, "      of: features\n", "", 16, "`layers[1].density.of` is species in a later layer; a"),
    # bases
    "family": (TWO, "linear", "lineal", 11, "`layers[0].basis.family` is 'lineal'; allowed: one of hiphop, flexible, "),
    "body order": (MTP, "5", "8", 12, "`layers[0].basis.body_order` is 8; allowed: an integer from 2 to 7"),
    "complete": (MTP, "5", "complete", 12, "`layers[0].basis.body_order` is 'complete'; allowed: an integer from 2 to"),
    "outputs empty": (TWO, "[0, 1]", "[]", 13, "`layers[0].basis.outputs` is an empty list; allowed: a list of differ"),
    "outputs a number": (TWO, "[0, 1]", "1", 13, "`layers[0].basis.outputs` is 1; allowed: a list of different ranks"),
    "outputs too high": (TWO, "[0, 1]", "\n        - 0\n        - 4", 15, "`layers[0].basis.outputs[1]` is 4; allowed"),
    "outputs true": (TWO, "[0, 1]", "[0, true]", 13, "`layers[0].basis.outputs[1]` is true; allowed: a list of diffe"),
    "outputs twice": (TWO, "[0, 1]", "[0, 1, 1]", 13, "`layers[0].basis.outputs` is [0, 1, 1], with a rank twice; all"),
    "outputs descending": (TWO, "[0, 1]", "[1, 0]", 13, "`layers[0].basis.outputs` is [1, 0], which is not ascending"),
    "outputs without 0": (TWO, "[0, 1]", "[1]", 13, "`layers[0].basis.outputs` is [1], without 0; allowed: a list of"),
    "outputs of hiphop": (TWO, "linear", "hiphop", 13, "`layers[0].basis.outputs` has ranks above 0, which the family"),
    "outputs at the end": (TWO, "order: 3\nreadout", "order: 3\n      outputs: [0, 1]\nreadout", 23,
                           "`layers[1].basis.outputs` has ranks above 0, which no later layer takes; allowed: a list"),
    "repeated vectors": (TWO, "    update", "    repeat: 2\n    update", 14,
                         "`layers[0].repeat` is 2 in a first layer with outputs of ranks above 0; allowed: an integer"),
    "across a word": (MTP, "across: channels", "across: all", 13, "`layers[0].basis.across` is 'all'; allowed: channe"),
    "across in hiphop": (MTP, "products", "hiphop", 13, "`layers[0].basis.across` is channels, which the family hipho"),
    "mixed without across": (MTP, MTP[MTP.index("      across") : MTP.index("readout")], "", 11,
                             "`layers[0].basis.across` is missing, and radial.mix is species_pair; allowed: channels"),
    "across unmixed": (MTP, "  mix: species_pair\n  channels: 4\n", "", 11,
                       "`layers[0].basis.across` is channels, and radial.mix is none; allowed: channels, in a spec of"),
    "across and channels": (MTP, "max_rank: 4", "max_rank: 4\n      channels: 2", 14,
                            "`layers[0].basis.across` is channels, and density.channels is 2; allowed: channels, in a"),
    "across layers": (MTP, MTP[MTP.index("readout") :], "    update: {}\n    repeat: 2\nreadout:\n  kind: linear",
                      13, "`layers[0].basis.across` is channels, and there are several layers; allowed: channels, in"),
    "across empty": (MTP, "across: channels", "across:", 13, "`layers[0].basis.across` is empty; allowed: channels, i"),
    # degrees
    "degree of flexible": (ACE, "linear, body_order: 4", "flexible, body_order: 4, degree: {limit: 4, of: l}", 5,
                           "`layers[0].basis.degree` limits nothing in the family flexible; allowed: a mapping with t"),
    "degree without across": (MTP, "      across: channels\n", "", 15,
                              "`layers[0].basis.degree.of` is '2 + 4n + l', with n, which graphs within a channel do "),
    "limit": (MTP, "16", "101", 15, "`layers[0].basis.degree.limit` is 101; allowed: an integer from 1 to 100"),
    "limit below": (MTP, "16", "1", 15, "`layers[0].basis.degree.limit` is 1, and no vertex has a degree below 2; all"),
    "degree true": (MTP, "2 + 4n + l", "true", 16, "`layers[0].basis.degree.of` is true; allowed: text such as 2 + 4"),
    "exactly": (SNAP, "exactly: 3", "exactly: 0", 16, "`layers[0].basis.degree.exactly` is 0; allowed: an integer fr"),
    "exactly below": (SNAP, "of: 1", "of: 4", 16, "`layers[0].basis.degree.exactly` is 3, and no vertex has a degree"),
    "exactly and limit": (SNAP, "exactly: 3", "exactly: 3\n        limit: 3", 16,
                          "`layers[0].basis.degree.exactly` is 3, beside limit, which is 3; allowed: an integer from"),
    "neither limit nor exactly": (SNAP, "exactly: 3\n        ", "", 15,
                                  "`layers[0].basis.degree.limit` is missing, and exactly is too; allowed: an integer"),
    "degree code": (MTP, "2 + 4n + l", "__import__('os')", 16, "`layers[0].basis.degree.of` is \"__import__('os')\", "),
    "degree key": (MTP, "limit", "levels", 15, "unknown key 'levels'"),
    # updates and the readout
    "update mix": (HIPHOP, "norm", "mix: per_species, norm", 7, "`layers[0].update.mix` is 'per_species'; allowed: fu"),
    "residual": (HIPHOP, "norm", "residual: 1, norm", 7, "`layers[0].update.residual` is 1; allowed: all, atom_lay"),
    "activation": (HIPHOP, "norm", "activation: relu, norm", 7, "`layers[0].update.activation` is 'relu'; allowed: so"),
    "channels without update": (TWO, "channels: 8\n      of", "channels: 4\n      of", 18,
                                "`layers[1].density.channels` is 4 without an update, and the layer before gives 8; a"),
    "norm of one before": (HIPHOP, FIRST, FIRST.replace("128", "1") + SECOND, 10,
                           "`layers[1].update.norm` is group, which makes the single channel of the layer before con"),
    "norm of one": (TWO, "channels: 8", "channels: 1", 15, "`layers[0].update.norm` is group, which makes a single ch"),
    "norm": (HIPHOP, "group", "layer", 7, "`layers[0].update.norm` is 'layer'; allowed: none, or group where"),
    "atom layers": (HIPHOP, "3}\n    repeat", "17}\n    repeat", 7, "`layers[0].update.atom_layers` is 17; allowed: a"),
    "update missing": (TWO, "    update:\n      norm: group\n", "", 7, "`layers[0].update` is missing in a layer that"),
    "update of a repeated": (HIPHOP, "    update: {norm: group, atom_layers: 3}\n", "", 7,
                             "`layers[0].update` is missing in a layer that another one follows; allowed: a mapping w"),
    "readout kind": (TWO, "kind: linear", "kind: mlp", 24, "`readout.kind` is 'mlp'; allowed: linear"),
    "readout of": (HIPHOP, "all", "1", 9, "`readout.of` is 1; allowed: last or all"),
    "per atom": (TWO, "per: species", "per: atom", 25, "`readout.per` is 'atom'; allowed: species where the last laye"),
    "per empty": (TWO, "per: species", "per:", 25, "`readout.per` is empty; allowed: species where the last layer has"),
    "per missing": (TWO, "  per: species\n", "", 23, "`readout.per` is missing, and the last layer has no update; all"),
    "per with an update": (TWO, "readout", "    update: {}\nreadout", 26,
                           "`readout.per` is species, and the last layer has an update; allowed: species where the la"),
    "readout a list": (HIPHOP, "{kind: linear, of: all}", "[{kind: linear}]", 9, "`readout` is a list; allowed: a map"),
}  # fmt: skip
