"""The Kubernetes API: requests, refusals, paths, and what there is ours."""
