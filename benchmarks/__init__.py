"""What kproxy costs, against no proxy at all and against Envoy with the same rule: `python -m benchmarks`.

docs/benchmarks.md says how it is measured and how to read it. Figures are ratios within one run on one
machine; no test depends on them.
"""
