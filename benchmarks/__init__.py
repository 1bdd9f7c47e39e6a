"""Benchmarks: a folder a subject, a module a benchmark.

A benchmark answers the question in its docstring with three functions:

- ``measure(options) -> data`` takes the measurements, as data that JSON can hold;
- ``rows(data) -> blocks`` returns the tables and notes that show them (`benchmarks.render`);
- ``claims(data) -> claims`` returns the comparisons that `refinejax.experiments` judges.

A new one is a new file: `benchmarks.catalog` finds every public module of every subject folder.
``python -m benchmarks`` lists them, ``python -m benchmarks run core.least_squares --quick`` runs
one.
"""
