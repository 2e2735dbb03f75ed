"""The parts of a node that are no runtime: the hosts file, proxies, the system's CAs."""
