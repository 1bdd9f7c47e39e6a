"""Other libraries behind the signatures that the benchmarks time; no benchmark by itself."""
