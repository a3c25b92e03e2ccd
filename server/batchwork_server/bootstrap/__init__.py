"""Puts a server together, runs it, and takes it apart in order."""

from batchwork_server.bootstrap.assembly import Application
from batchwork_server.bootstrap.running import Serving, application, serving, working

__all__ = ["Application", "Serving", "application", "serving", "working"]
