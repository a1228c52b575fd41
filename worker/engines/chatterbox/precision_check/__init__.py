"""How far a precision is from upstream's own arithmetic, on an operator's weights and texts: `chorus check-precision`.

trajectory   what upstream makes of a text, with everything it drew
distances    how far logits, spectrograms and waves are apart; pure
figures      the same of one text, and of several together; pure
verdict      what figures mean: equal, close, or not recommended; pure
hearing      what a speech recogniser hears in speech
comparison   runs upstream, then each precision along the same way
"""
