"""Networks of hippynn 0.1.3, HIP-NN and HIP-HOP-NN, as checkpoints of the matching specs."""

from tensorgraph.hippynn.importing import ENERGY_UNITS, converted, import_hippynn, package_graphs
from tensorgraph.hippynn.reading import Network, network_of, read_network

__all__ = ["ENERGY_UNITS", "Network", "converted", "import_hippynn", "network_of", "package_graphs", "read_network"]
