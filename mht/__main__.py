"""`python -m mht`: the same as the command `mht`."""

from mht.cli.main import app

if __name__ == "__main__":
    app()
