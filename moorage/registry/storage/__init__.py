"""The folder that Distribution keeps its images in: read, marked, collected, verified.

Distribution's HTTP interface tells no ages and no untagged manifests, and answers some hundred
requests a second. The folder is on this machine (the registry's container mounts it), and reading
it answers the same for 10,000 tags in a second.
"""
