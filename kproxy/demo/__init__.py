"""The demonstration: a node's network in namespaces, the Jobs API on it, and what kproxy makes of it."""
