"""The demo's workload, and cures for those of others: rolled out, waited for, told."""
