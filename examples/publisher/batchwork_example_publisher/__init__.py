"""An example of a processor that lives in a distribution of its own."""

from batchwork_example_publisher.outlet import Outlet, Publication
from batchwork_example_publisher.processor import PublishProcessor

__all__ = ["Outlet", "Publication", "PublishProcessor"]
