"""The host's CPUs and memory, and the layout of workers on them."""
