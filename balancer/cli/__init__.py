"""The `chorus` command, one module per group of subcommands."""
