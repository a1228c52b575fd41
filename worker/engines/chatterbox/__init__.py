"""The Chatterbox family: Original, Turbo, Nano and Multilingual, by upstream's own classes or by loops of our own.

upstream     the few places where the upstream package is reached into: its loops, its prints, its tokenizer's download
loading      a checkpoint's files become one of the upstream classes, its weights mapped rather than copied
conditionals what a model has to know of a voice: computed once, kept on disk, shared by all workers
reference    a voice's clip, of any kind of file, as samples
budget       how many speech tokens a text may take
stock        the engine: one utterance at a time through upstream's `generate`

batched      the other engine: several utterances at once, with the same weights and the same results
text         an utterance's text as the tokens that T3 reads
decoder      continuous batching: text tokens to speech tokens
gpt2, llama  the layers of the two kinds of T3
keys_values  what their attention keeps of the positions before
sampling     logits to one utterance's next token; likeliest, alignment: parts of that
sound        speech tokens to sound
kernels      what all of it computes with
"""
