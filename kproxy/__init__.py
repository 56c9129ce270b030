"""The node service: configuration, endpoints, listeners, flows, access log, metrics, command line."""
