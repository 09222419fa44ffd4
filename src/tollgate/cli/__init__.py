"""The `tollgate` command: data on stdout, messages on stderr, one exit code per kind of ending."""
