"""The comparison of inference runtimes, `scripts/bench_decode`: one step of T3's decode and one of S3Gen's estimator.

steps             the steps as plain modules
inputs            their inputs
export            the modules as ONNX files
backend           a backend: one runtime in one precision
implementations   each backend, ready to compute a step
runner            the backends as processes, which take turns
report            the measurements as Markdown and JSON
"""
