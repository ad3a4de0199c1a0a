"""`glic datasets`."""

from glic_pyg.cli.main import main

if __name__ == "__main__":
    main("datasets")
