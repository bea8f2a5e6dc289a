#!/usr/bin/env bash
# A run below a path of a real nginx (Debian's): the page, a worker's WebSocket and weft pull reach it there, as they do
# without; docs/operate.md shows this configuration.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v nginx >/dev/null || {
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nginx-light >/dev/null
}
npm run --silent build
work=$(mktemp -d)
pids=()
end() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait
  rm -rf "$work"
}
trap end EXIT
weft() { node dist/cli/weft.js "$@"; }
free() { node -e 'const s = require("node:net").createServer().listen(0, () => { console.log(s.address().port); s.close(); })'; }

port=$(free)
outside=$(free)
cat >"$work/nginx.conf" <<CONF
daemon off;
pid $work/nginx.pid;
error_log $work/error.log;
events {}
http {
  access_log $work/access.log;
  client_body_temp_path $work/body;
  proxy_temp_path $work/proxy;
  fastcgi_temp_path $work/fastcgi;
  uwsgi_temp_path $work/uwsgi;
  scgi_temp_path $work/scgi;
  map \$http_upgrade \$connection_upgrade { default upgrade; '' close; }
  server {
    listen 127.0.0.1:$outside;
    location /runs/a/ {
      proxy_pass http://127.0.0.1:$port/;
      proxy_http_version 1.1;
      proxy_set_header Host \$http_host;
      proxy_set_header Upgrade \$http_upgrade;
      proxy_set_header Connection \$connection_upgrade;
      proxy_read_timeout 1h;
    }
  }
}
CONF
nginx -p "$work" -c "$work/nginx.conf" 2>/dev/null &
pids+=($!)
# A wire without shared memory: everything goes through the proxy. Not by the function: what is killed in the end is the program, not a shell around it.
node dist/cli/weft.js coordinator --data README.md --block-size 16 --n-layer 1 --n-head 1 --n-embd 16 --batch-size 4 --steps 40 \
  --warmup-steps 5 --eval-windows 8 --eval-interval 20 --no-shared-memory --port "$port" --out "$work/run" 2>"$work/coordinator.log" &
pids+=($!)

base="http://127.0.0.1:$outside/runs/a"
until curl -fsS "$base/healthz" >/dev/null 2>&1; do sleep 0.2; done
page=$(curl -fsS "$base/")
for part in $(grep -oE '(src|href)="[^"#:]+"' <<<"$page" | cut -d'"' -f2); do
  curl -fsS -o /dev/null "$base/$part" || { echo "$part of the page is not there below the path"; exit 1; }
done
weft worker --coordinator "ws://127.0.0.1:$outside/runs/a/" --name beyond-nginx --patience 30 2>"$work/worker.log" ||
  { cat "$work/worker.log" "$work/error.log"; exit 1; }
weft status --from "$base" | grep -E '^state +finished' || { weft status --from "$base"; exit 1; }
weft pull --from "$base" --step final --out "$work/pulled"
cmp "$work/run/step-000040/model.safetensors" "$work/pulled/step-000040/model.safetensors"
grep -q '"GET /runs/a/ HTTP/1.1" 101' "$work/access.log" || { cat "$work/access.log"; echo "no worker came through nginx"; exit 1; }
echo "page, worker and pull below a path of $(nginx -v 2>&1 | cut -d' ' -f3)"
