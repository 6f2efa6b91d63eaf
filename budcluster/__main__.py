"""`python -m budcluster` is the `budcluster` command."""

from budcluster.main import main

main()
