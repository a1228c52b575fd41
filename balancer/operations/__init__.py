"""What keeps a running host healthy and observable: recycling, collectors, the ready banner."""
