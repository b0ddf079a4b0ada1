The bridge is made when missing, adopted and left in place when it exists; MACs come from the node's key. Leaving, a failed start and a start after `kill -9` take back exactly what was made.
