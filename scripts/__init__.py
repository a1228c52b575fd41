"""Parts of the commands in this folder."""
