"""`python -m glic_pyg` is `glic`."""

from glic_pyg.cli.main import main

if __name__ == "__main__":
    main()
