"""Why a pull fails: Go's words -> code, cause and cure. One table for all who hear them.

The words are Go's, containerd's (1.6 to 2.1), Docker's (20.10 to 28), Podman's (4.3, 5.4), CRI-O's
and the kubelet's, collected from real daemons (tests/agent/words, tests/k8s/messages.json) and from
the kubelet's source (tests/k8s/kubelet.json).
"""
