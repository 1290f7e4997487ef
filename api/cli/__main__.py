"""`python -m api.cli` is `evosense`."""

from api.cli.main import main

main()
