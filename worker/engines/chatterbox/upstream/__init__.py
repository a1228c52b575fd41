"""Everything that touches the upstream package: loading, patches, the loaded model, conditionals, reference clips."""
