"""What kubelets and runtimes say, read: causes, stages, what is stuck. Pure."""
