peers.toml: one file for all hosts of a segment, read strictly. Every mistake is reported at once with line, column and a suggestion, and `l2overlay schema` prints its JSON Schema.
