"""Outer engines: each program in a container of gVisor or podman, with the verdict decided where it always is."""
