"""The Chatterbox family: Original, Turbo, Nano and Multilingual.

stock            an engine for one utterance at a time, by upstream's own `generate`
batched          an engine for several utterances at once, with the same weights and the same results
takes            what makes a generation bad, and how often it is taken again
token_budget     the most and the fewest speech tokens that a text may take
trailing_audio   trims what a model adds behind the last word
cooperative      long computations as generators
upstream         everything that touches the upstream package: loading, patches, conditionals
t3               text tokens to speech tokens
s3gen            speech tokens to audio
layers, kernels  linear layers, convolutions and attention, and the compiled code behind them
precision_check  how far a precision is from upstream
"""
