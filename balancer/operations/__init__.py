"""Operations of a running host: its workers, voices and successor, its degradation, history, metrics, status."""
