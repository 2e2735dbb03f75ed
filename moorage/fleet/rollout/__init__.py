"""One operation on many hosts: what it is, on one host, on all of them."""
