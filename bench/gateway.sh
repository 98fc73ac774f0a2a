#!/usr/bin/env bash
# What a gateway costs: the same request to a fast mock provider, directly and through nginx, Throughline (every call
# recorded durably), LiteLLM and Portkey, one after the other in one run, on one machine. Prints one table, and the
# memory of many slow streams through Throughline.
#
#   bench/gateway.sh [SECONDS]            seconds of each measurement, 15 when left out
#
# Wanted on the PATH: nginx and wrk (packages of Debian), python3, node. THROUGHLINE_BIN is the binary, STEADY the program
# with the load at a steady rate (both: cargo build --release -p throughline-cli -p throughline-bench), LITELLM the command `litellm`
# (pip install 'litellm[proxy]'), PORTKEY the command `gateway` of npm install @portkey-ai/gateway; of the last two, what is
# not there is left out and said. STREAMS is the number of slow streams (10000).
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-15}
streams=${STREAMS:-10000}
rate=500          # requests a second of the measurement of latency
connections=64    # connections of the measurement of throughput
binary=${THROUGHLINE_BIN:-target/release/throughline}
litellm=${LITELLM:-litellm}
portkey=${PORTKEY:-node_modules/.bin/gateway}
steady=${STEADY:-target/release/throughline-bench}
mock=18080 proxied=18081 throughline=18082 litellm_port=18083 portkey_port=18084 slow=18085

for tool in nginx wrk python3; do
  command -v "$tool" >/dev/null || { echo "expected $tool on the PATH; Debian has a package of it" >&2; exit 2; }
done
[ -x "$steady" ] || { echo "expected the load at $steady; build it, or set STEADY" >&2; exit 2; }
[ -x "$binary" ] || { echo "expected the binary at $binary; build it, or set THROUGHLINE_BIN" >&2; exit 2; }
ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -Hn)"

scratch=$(mktemp -d)
started=()
finish() {
  for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$scratch"
}
trap finish EXIT

# Answers once a port is served.
ready() {
  for _ in $(seq 300); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then return 0; fi
    sleep 0.2
  done
  echo "nobody listens on port $1 after 60 s; its log:" >&2
  tail -n 20 "$scratch/$2.log" >&2
  return 1
}

# Starts a command in the background, with its log; the process is the last of `started`.
start() {
  local name=$1
  shift
  "$@" >"$scratch/$name.log" 2>&1 &
  started+=($!)
}

# CPU time of a process and all below it, microseconds. The scheduler's own count: ticks miss what is shorter.
spent() {
  python3 - "$1" <<'PY'
import os, sys
parents, spent = {}, {}
for entry in filter(str.isdigit, os.listdir("/proc")):
    try:
        fields = open(f"/proc/{entry}/stat").read().rpartition(")")[2].split()
        threads = os.listdir(f"/proc/{entry}/task")
        nanos = [open(f"/proc/{entry}/task/{one}/schedstat").read().split()[0] for one in threads]
    except OSError:
        continue
    parents[int(entry)], spent[int(entry)] = int(fields[1]), sum(map(int, nanos)) // 1000
wanted, grown = {int(sys.argv[1])}, True
while grown:
    more = {pid for pid, parent in parents.items() if parent in wanted} - wanted
    wanted, grown = wanted | more, bool(more)
print(sum(spent.get(pid, 0) for pid in wanted))
PY
}

mkdir -p "$scratch/mock" "$scratch/proxy"
answer='{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-4o-2024-08-06","choices":[{"index":0,"message":{"role":"assistant","content":"The capital of Portugal is Lisbon, on the river Tejo.","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":92,"completion_tokens":13,"total_tokens":105}}'
common="daemon off; worker_processes 1; error_log stderr crit; events { worker_connections 8192; }"
cat >"$scratch/mock.conf" <<CONF
$common pid $scratch/mock.pid;
http { access_log off; keepalive_requests 100000000; client_body_temp_path $scratch/mock;
  server { listen 127.0.0.1:$mock backlog=4096; location / { default_type application/json; return 200 '$answer'; } } }
CONF
cat >"$scratch/proxy.conf" <<CONF
$common pid $scratch/proxy.pid;
http { access_log off; keepalive_requests 100000000; client_body_temp_path $scratch/proxy; proxy_temp_path $scratch/proxy;
  upstream mock { server 127.0.0.1:$mock; keepalive 256; keepalive_requests 100000000; }
  server { listen 127.0.0.1:$proxied backlog=4096; location / {
    proxy_pass http://mock; proxy_http_version 1.1; proxy_set_header Connection ""; } } }
CONF
cat >"$scratch/throughline.yaml" <<CONF
gateway:
  providers:
    - {name: mock, kind: openai_compatible, base_url: "http://127.0.0.1:$mock/v1"}
    - {name: slow, kind: openai_compatible, base_url: "http://127.0.0.1:$slow/v1"}
  default_provider: mock
  routes: [{model: slow, targets: [{provider: slow}]}]
  limits: {max_concurrent: 20000}
max_connections: 30000
CONF
cat >"$scratch/litellm.yaml" <<CONF
model_list:
  - model_name: gpt-4o
    litellm_params: {model: openai/gpt-4o, api_base: "http://127.0.0.1:$mock/v1", api_key: unused}
CONF
python3 - "$scratch/body.json" <<'PY'
import json, sys
text = "You answer questions about geography, briefly and with one fact that few people know. " * 4
json.dump({"model": "gpt-4o", "temperature": 0.2, "messages": [
    {"role": "system", "content": text},
    {"role": "user", "content": "What is the capital of Portugal?"}]}, open(sys.argv[1], "w"))
PY

key="sk-$(od -An -tx1 -N32 /dev/urandom | tr -d ' \n')" # LiteLLM does not start without one
headers=(-H "Authorization: Bearer $key")
declare -A p50 p99 cpu most load_cpu
# Measures one way: name, port, process (0 for none).
measure() {
  local name=$1 port=$2 pid=$3 url="http://127.0.0.1:$2/v1/chat/completions"
  local load=("$steady" steady "$url" --rate "$rate" --body "$scratch/body.json") header
  for header in "${headers[@]}"; do [ "$header" = -H ] || load+=(--header "$header"); done
  local status
  status=$(curl -s -o "$scratch/answer" -w '%{http_code}' -H 'content-type: application/json' "${headers[@]}" \
    -d "@$scratch/body.json" "$url")
  [ "$status" = 200 ] || { echo "$name answered $status: $(head -c 300 "$scratch/answer")" >&2; return 1; }
  {
    echo "wrk.method = 'POST'; wrk.headers['content-type'] = 'application/json'"
    for header in "${headers[@]}"; do
      [ "$header" = -H ] || echo "wrk.headers['${header%%: *}'] = '${header#*: }'"
    done
    echo "local file = io.open('$scratch/body.json'); wrk.body = file:read('*a'); file:close()"
  } >"$scratch/post.lua"
  local before after done_count refused
  before=$([ "$pid" = 0 ] || spent "$pid")
  wrk -t1 -c"$connections" -d"${seconds}s" -s "$scratch/post.lua" "$url" >"$scratch/wrk.txt"
  after=$([ "$pid" = 0 ] || spent "$pid")
  grep -q 'Non-2xx' "$scratch/wrk.txt" && grep 'Non-2xx' "$scratch/wrk.txt" >&2
  most[$name]=$(awk '/Requests\/sec/ {print $2}' "$scratch/wrk.txt")
  done_count=$(awk '/requests in/ {print $1}' "$scratch/wrk.txt")
  load_cpu[$name]=$([ "$pid" = 0 ] && echo 0 || awk -v t=$((after - before)) -v n="$done_count" 'BEGIN {print t / n}')
  # The steady rate comes last: who cannot keep up with it is left with a queue.
  "${load[@]}" --secs 3 >/dev/null
  before=$([ "$pid" = 0 ] || spent "$pid")
  "${load[@]}" --secs "$seconds" >"$scratch/steady.json"
  after=$([ "$pid" = 0 ] || spent "$pid")
  read -r done_count refused "p50[$name]" "p99[$name]" < <(python3 -c \
    'import json, sys; print(*json.load(open(sys.argv[1])).values())' "$scratch/steady.json")
  [ "$refused" = 0 ] || echo "$name: $refused of $((done_count + refused)) requests failed" >&2
  cpu[$name]=$([ "$pid" = 0 ] && echo 0 || awk -v t=$((after - before)) -v n="$done_count" 'BEGIN {print t / n}')
}

names=()
start mock nginx -p "$scratch/mock" -c "$scratch/mock.conf"
ready $mock mock
measure "directly" $mock 0
names+=("directly")

start nginx nginx -p "$scratch/proxy" -c "$scratch/proxy.conf"
ready $proxied nginx
measure "nginx" $proxied "${started[-1]}"
names+=("nginx")
kill "${started[-1]}"

start throughline "$binary" --config "$scratch/throughline.yaml" serve --data-dir "$scratch/data" \
  --grpc-port 0 --http-port 0 --web-port $throughline
ready $throughline throughline
gateway=${started[-1]}
measure "Throughline" $throughline "$gateway"
names+=("Throughline")

if command -v "${litellm%% *}" >/dev/null; then
  start litellm env LITELLM_MASTER_KEY="$key" $litellm --config "$scratch/litellm.yaml" --host 127.0.0.1 --port $litellm_port --num_workers 1
  ready $litellm_port litellm
  measure "LiteLLM" $litellm_port "${started[-1]}" && names+=("LiteLLM")
  kill "${started[-1]}"
else
  echo "LiteLLM is left out: no command $litellm" >&2
fi
if command -v "${portkey%% *}" >/dev/null; then
  start portkey $portkey --port=$portkey_port
  ready $portkey_port portkey
  headers+=(-H "x-portkey-provider: openai" -H "x-portkey-custom-host: http://127.0.0.1:$mock/v1")
  measure "Portkey" $portkey_port "${started[-1]}" && names+=("Portkey")
  kill "${started[-1]}"
else
  echo "Portkey is left out: no command $portkey" >&2
fi

echo "# $(date -u +%F), $(nproc) cores, load average $(cut -d' ' -f1-3 /proc/loadavg); ${rate} requests/s, one every $((1000 / rate)) ms, and then"
echo "# as many as ${connections} connections bring, ${seconds} s each; a request of $(wc -c <"$scratch/body.json") bytes; load, mock and gateway share the cores"
printf '%-12s %22s %22s %14s %16s %18s\n' way 'p50 ms (added)' 'p99 ms (added)' 'CPU µs/req' 'most req/s' 'CPU µs/req then'
for name in "${names[@]}"; do
  awk -v n="$name" -v a="${p50[$name]}" -v b="${p99[$name]}" -v da="${p50[directly]}" -v db="${p99[directly]}" \
    -v c="${cpu[$name]}" -v m="${most[$name]}" -v l="${load_cpu[$name]}" \
    'BEGIN {printf "%-12s %13.2f (%+.2f) %13.2f (%+.2f) %14.0f %16.0f %18.0f\n", n, a, a - da, b, b - db, c, m, l}'
done
curl -s "http://127.0.0.1:$throughline/metrics" >"$scratch/metrics"
awk '/^throughline_gateway_requests_total/ {asked += $2} /^throughline_gateway_records_dropped_total/ {lost += $2}
  END {printf "Throughline answered %d requests; records that were dropped: %d\n", asked, lost}' "$scratch/metrics"

start slow python3 bench/slow_streams.py serve $slow
ready $slow slow
rss() { awk '/^VmRSS/ {printf "%.0f", $2 / 1024}' "/proc/$gateway/status"; }
echo "memory before the streams: $(rss) MiB"
python3 bench/slow_streams.py ask "http://127.0.0.1:$throughline/v1/chat/completions" "$streams" \
  "$scratch/body.json" "/proc/$gateway/status"
