"""Operations of a running host: recycling of workers, collectors of metrics, the ready banner."""
