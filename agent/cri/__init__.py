"""The kubelet's own calls to a container runtime (CRI), over its Unix socket."""
