"""The Chatterbox family: Original, Turbo, Nano and Multilingual, run by the upstream package's own classes.

upstream     the few places where the upstream package is reached into: its loops, its prints, its tokenizer's download
loading      a checkpoint's files become one of the upstream classes, its weights mapped rather than copied
conditionals what a model has to know of a voice: computed once, kept on disk, shared by all workers
reference    a voice's clip, of any kind of file, as samples
budget       how many speech tokens a text may take
stock        the engine: one utterance at a time through upstream's `generate`
"""
