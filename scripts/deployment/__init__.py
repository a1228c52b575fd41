"""Trials of the ways to deploy Chorus, each on a bare Debian of its own.

systemd_trial     deploy/install, upgrade and uninstall under a real systemd
container_trial   deploy/Containerfile with podman
bare_root         a Debian without anything, and how it is booted
containers        podman, with storage of its own
steady_load       callers that speak all the time, and count what fails
"""
