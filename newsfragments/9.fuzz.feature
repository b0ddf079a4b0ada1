`make fuzz` gives mutated configuration files, state files, frames and datagrams to a node for as long as you like; the tests do it for seconds.
