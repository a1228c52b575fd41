"""From speech tokens to a wave: upstream's S3Gen, its weights and its arithmetic, on oneDNN's products.

sound        the whole: flow, then vocoder
flow         tokens to a mel spectrogram, from noise along the estimator's directions
encoder      what the flow makes of the tokens first
estimator    the directions; most of all work
vocoder      the spectrogram to a wave
pieces       long computations that let others have their turn
"""
