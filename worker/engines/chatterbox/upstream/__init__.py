"""The places where the upstream package is used: loading, patches, conditionals, reference clips."""
