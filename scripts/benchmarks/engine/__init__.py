"""What bench_engine.py does with each side: which sides there are, what is measured of one, and how it is told.

side         the sides, and how one is started
trial        what is measured of a side in its turn
result       what all turns of an engine come to: speeds, ratios, checks
report       the result as Markdown and JSON
"""
