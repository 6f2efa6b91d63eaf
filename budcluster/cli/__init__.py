"""The command line. `serve`, `migrate`, `keys` and `tokens` work on this machine; the rest speaks to the REST API.

Exit codes: 0 done; 1 the work itself failed; 2 wrong usage or settings; 3 the service cannot be reached; 4 it refused;
130 interrupted while it was followed.
"""
