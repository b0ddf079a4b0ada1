TAP offloads (CSUM, TSO4, TSO6, TSO_ECN, USO4, USO6) and UDP GSO and GRO are used where the kernel has them, and done without where it does not.
