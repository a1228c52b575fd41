"""The comparison of the batched engine with upstream's own classes, `scripts/bench_engine`.

baselines    the ways to serve a model that are compared, and how each is started
run          the turn of one baseline: its bursts and their measurements
result       speeds, ratios, stages and memory of all turns
report       the report as Markdown and JSON
"""
