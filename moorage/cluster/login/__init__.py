"""Who may pull: the kubeconfig, pull secrets, service accounts, namespaces."""
