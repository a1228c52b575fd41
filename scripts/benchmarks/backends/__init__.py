"""What bench_decode.py compares: one step of T3's decode and one of S3Gen's estimator, as each runtime computes them.

steps        what is computed, as plain modules
inputs       the numbers that go in
export       the modules as files, for the runtimes that read such
contenders   each runtime, ready to take the step
field        the contenders as processes of their own, and their turns
report       what came of it
"""
