"""peers.toml: `read` gives a `Config` (`types`) or every mistake in the file, each with its line and column."""
