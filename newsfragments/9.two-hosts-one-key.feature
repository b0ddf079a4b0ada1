When two hosts have one key (a cloned image), the nodes that hear both say so: an event, `status` is degraded, and `doctor` names
both addresses.
