"""Judges of programs side by side: Temper's sandbox, the field's, and a bare fork, each in its own process.

`child` runs in that process, with whatever interpreter the judge needs, so it and the judges import only the
standard library at the top; `bench`, `workload` and `page` run in the benchmark. The soak of our own pool has
`hostile` and `honest` programs, each a `trial`, and looks at its `footprint`.
"""
