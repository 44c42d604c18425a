"""Programs in other languages than Python: the toolchains found, compilers in jails, tests that tell their end."""
