"""Start-up module of the queue's worker: what bsui has, its plans annotated for submission."""

from multiprocessing.util import Finalize

from bluesky_plugins.messaging import process_producer
from bluesky_plugins.profile.namespace import make_namespace
from bluesky_plugins.profile.queue_plans import queue_plans
from bluesky_plugins.settings import load_settings

_settings = load_settings()
_names = make_namespace(_settings, headless=True)
_devices = {name: value for name, value in _names.items() if hasattr(value, "read")}

globals().update(_devices)
globals().update(
    {name: _names[name] for name in ("RE", "db", "to_recommender", "from_recommender")}
)
globals().update(queue_plans(_names))

# The worker is a child of multiprocessing, which does not run what is registered with atexit, and
# it is given half a second: what is unsent then is in the spool.
Finalize(None, process_producer(_settings).close, kwargs={"timeout": 0.3}, exitpriority=10)
