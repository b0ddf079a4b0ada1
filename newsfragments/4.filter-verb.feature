`l2overlay filter show | check | explain | reload`: the rules with their counters, every mistake in them, and which rule would decide about a frame without sending it.
