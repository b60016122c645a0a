"""The configuration of nginx as the yardstick: one worker, keep-alive to the provider, no buffering."""

from __future__ import annotations

from pathlib import Path

_CONFIG = """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
worker_rlimit_nofile {files};
events {{ worker_connections {connections}; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_max_body_size 0;
  keepalive_requests 100000000;
  keepalive_timeout 600s;
  tcp_nodelay on;
  upstream provider {{ server {provider}; keepalive 1024; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://provider;
      proxy_http_version 1.1;
      proxy_buffering off;
      proxy_request_buffering off;
      proxy_read_timeout 600s;
      proxy_send_timeout 600s;
      proxy_set_header Connection $connection_upgrade;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Authorization "Bearer sk-provider-of-the-benchmark";
    }}
  }}
  map $http_upgrade $connection_upgrade {{ default upgrade; "" ""; }}
}}
"""


def write_config(folder: Path, port: int, provider: str, max_files: int) -> Path:
    """Write the configuration into `folder` and return its path; `provider` is HOST:PORT."""
    path = folder / "nginx.conf"
    # nginx closes idle connections once only a sixteenth of its slots is free, so it gets more slots than files.
    path.write_text(
        _CONFIG.format(folder=folder, port=port, provider=provider, files=max_files, connections=2 * max_files)
    )
    return path
