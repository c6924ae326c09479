"""The command line: typer commands, one module a group."""
