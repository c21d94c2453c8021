"""The command `mht`: a file for each group of subcommands."""
