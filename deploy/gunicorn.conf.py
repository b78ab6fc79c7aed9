"""gunicorn's configuration: gunicorn --config deploy/gunicorn.conf.py terrain.wsgi

Restarting without dropping a request (tests/test_restart.py has a load on it meanwhile):
``kill -HUP`` of the main process lets new workers load the new code while the old ones
finish what they are at.  Under systemd the socket belongs to systemd, so even a stopped
service keeps clients waiting instead of turning them away.
"""

import os

from terrain import logs

# Commands speak in sentences; what the web server says is read by programs.
os.environ.setdefault("LOG_FORMAT", "json")

wsgi_app = "terrain.wsgi:application"
bind = os.environ.get("WEB_BIND", "127.0.0.1:8000")
workers = int(os.environ.get("WEB_WORKERS", "2"))
threads = int(os.environ.get("WEB_THREADS", "4"))
worker_class = "gthread"

# Each worker loads the code by itself: with preloading, HUP would go on with the old code.
preload_app = False
# Seconds: a request that takes longer is a hung worker's; one under way when the worker is
# told to end may take this long.
timeout = 60
graceful_timeout = 30
# A connection kept open is closed by whoever ends first, and a request may cross that.
# nginx and this talk over a socket of the same machine: a new connection costs nothing.
keepalive = 0
# Now and then a fresh process, not all of them at once.
max_requests = 10_000
max_requests_jitter = 1_000

# Over a unix socket the other end is nginx.  PROXY_COUNT says who is believed about clients.
forwarded_allow_ips = "*" if bind.startswith("unix:") else "127.0.0.1,::1"
forwarder_headers = "SCRIPT_NAME,PATH_INFO"

# The request's line is the application's own (terrain.access), with the request's id.
accesslog = None
logconfig_dict = logs.config(
    os.environ["LOG_FORMAT"], os.environ.get("LOG_LEVEL", "WARNING").upper()
)
logconfig_dict["loggers"].update(
    {
        "gunicorn.error": {"level": "INFO", "handlers": [], "propagate": True},
        "gunicorn.access": {"level": "INFO", "handlers": [], "propagate": True},
    }
)
