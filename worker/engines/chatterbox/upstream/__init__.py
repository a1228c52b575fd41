"""All that touches the upstream package: imports, loading, patches, the loaded model, conditionals, reference clips."""
