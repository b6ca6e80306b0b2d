#!/usr/bin/env bash
# nginx: Debian's nginx-light without root, and curl for probes
set -euo pipefail
# shellcheck source=image_builders/preamble.sh
source "$(dirname "${BASH_SOURCE[0]}")/preamble.sh" "$@"

bp_image nginx "nginx" "nginx as an ordinary user; configuration in /etc/nginx/pod/nginx.conf, pages in /srv/www" \
    BSD-2-Clause
bp_from bluesky-base
bp_apt nginx-light curl
bp_shell <<'EOS'
install -d /etc/nginx/pod /srv/www
install -d -o bluesky -g bluesky -m 0700 /var/lib/nginx
chown -R bluesky:bluesky /var/lib/nginx
# What it has to say before it has read its configuration, too.
rm -rf /var/log/nginx /etc/nginx/sites-enabled /etc/nginx/sites-available /var/www
install -d /var/log/nginx
ln -s /dev/stderr /var/log/nginx/error.log
EOS
# What is served until a pod brings its own.
bp_file /etc/nginx/pod/nginx.conf 0644 <<'CONFIGURATION'
daemon off;
worker_processes 1;
pid /tmp/nginx.pid;
error_log stderr warn;
events {
    worker_connections 256;
}
http {
    include /etc/nginx/mime.types;
    access_log off;
    server_tokens off;
    client_body_temp_path /tmp/nginx-body;
    proxy_temp_path /tmp/nginx-proxy;
    fastcgi_temp_path /tmp/nginx-fastcgi;
    uwsgi_temp_path /tmp/nginx-uwsgi;
    scgi_temp_path /tmp/nginx-scgi;
    server {
        listen 8080;
        root /srv/www;
    }
}
CONFIGURATION
bp_file /srv/www/index.html 0644 <<'PAGE'
<!doctype html>
<title>bluesky-plugins</title>
<p>nginx answers; no pages have been mounted at /srv/www.</p>
PAGE
bp_commit --cmd '["nginx", "-c", "/etc/nginx/pod/nginx.conf"]' --stop-signal SIGTERM
