"""Trials of the ways to deploy Chorus, each on a bare Debian of its own.

trial             what the trials have in common: steps, and the checks that come of them
systemd_trial     deploy/install, upgrade and uninstall under a real systemd
container_trial   deploy/Containerfile with podman
compose_trial     deploy/compose.yaml with podman-compose
bare_root         a Debian without anything, and how it is booted
containers        podman and podman-compose, with storage of their own
steady_load       callers that speak all the time, and count what fails
"""
