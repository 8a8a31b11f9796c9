"""From a described model to a package: inspect, write the graphs, compare them with the network, publish."""
