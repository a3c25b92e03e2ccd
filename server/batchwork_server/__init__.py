"""Batchwork's server: a gRPC edge over one durable engine."""
