"""Words of one command go in; an exit status comes out. One module per command of the CLI."""
