"""Judges of programs side by side: Temper's sandbox, the field's, and a bare fork, each in its own process.

`child` runs in that process, with whatever interpreter the judge needs, so it and the judges import only the
standard library at the top; `bench`, `workload` and `page` run in the benchmark.
"""
