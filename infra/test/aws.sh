#!/usr/bin/env bash
# Starts servers that stand in for AWS, runs a command with their addresses in its environment, and stops them.
#
#   infra/test/aws.sh COMMAND...
#
# DynamoDB, S3 and all others are moto's, SQS is ElasticMQ's where there is a JDK and Maven, else moto's too. One moto process does
# one thing at a time, so each service has one of its own. What they are made of is installed the first time, pinned with
# hashes, into out/aws; logs are there, too. Needs Python 3.9 or later with venv.
#
# Where AWS_ENDPOINT_URL_DYNAMODB, _S3 and _SQS are set already nothing is started: then the command speaks to those, with the
# caller's own credentials.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=$PWD/infra/test out=$PWD/out/aws
if [ -n "${AWS_ENDPOINT_URL_DYNAMODB:-}" ] && [ -n "${AWS_ENDPOINT_URL_S3:-}" ] && [ -n "${AWS_ENDPOINT_URL_SQS:-}" ]; then exec "$@"; fi
mkdir -p "$out"

# Installed again when a list of what is pinned changes.
if ! cmp -s "$here/requirements.txt" "$out/installed.txt"; then
  rm -rf "$out/uv" "$out/venv"
  python3 -m venv "$out/uv"
  "$out/uv/bin/pip" install -q --no-deps --require-hashes -r "$here/uv.txt"
  "$out/uv/bin/uv" venv -q "$out/venv"
  "$out/uv/bin/uv" pip install -q --python "$out/venv/bin/python" --require-hashes -r "$here/requirements.txt"
  cp "$here/requirements.txt" "$out/installed.txt"
fi
elasticmq=$out/elasticmq
has_elasticmq=
if command -v java >/dev/null && command -v mvn >/dev/null; then
  if ! (cd "$elasticmq" 2>/dev/null && sha256sum --check --quiet --strict "$here/elasticmq.sha256" 2>/dev/null); then
    rm -rf "$elasticmq"
    mvn -q -f "$here/elasticmq.xml" dependency:copy-dependencies -DoutputDirectory="$elasticmq"
    (cd "$elasticmq" && sha256sum --check --quiet --strict "$here/elasticmq.sha256")
  fi
  has_elasticmq=yes
fi

pids=()
stop() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait || true
}
trap stop EXIT
free_port() { "$out/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# start NAME PORT COMMAND...: returns when the port answers.
start() {
  local name=$1 port=$2
  shift 2
  "$@" >"$out/$name.log" 2>&1 &
  pids+=($!)
  for _ in $(seq 300); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then return; fi
    kill -0 "${pids[-1]}" 2>/dev/null || break
    sleep 0.1
  done
  echo "$name does not start; its log ends with" >&2
  tail -5 "$out/$name.log" >&2
  exit 1
}
for service in dynamodb s3 sqs other; do
  port=$(free_port)
  if [ $service = sqs ] && [ -n "$has_elasticmq" ]; then
    cat >"$out/elasticmq.conf" <<CONF
include classpath("application.conf")
node-address { protocol = http, host = "127.0.0.1", port = $port, context-path = "" }
rest-sqs { enabled = true, bind-port = $port, bind-hostname = "127.0.0.1", sqs-limits = strict }
rest-stats { enabled = false }
CONF
    start elasticmq "$port" java -Xmx256m -Dconfig.file="$out/elasticmq.conf" -cp "$elasticmq/*" org.elasticmq.server.Main
  else
    start "moto-$service" "$port" "$out/venv/bin/moto_server" -H 127.0.0.1 -p "$port"
  fi
  case $service in
    other) export AWS_ENDPOINT_URL=http://127.0.0.1:$port ;;
    *) export "AWS_ENDPOINT_URL_${service^^}=http://127.0.0.1:$port" ;;
  esac
done
played=moto; [ -z "$has_elasticmq" ] || played=ElasticMQ
echo "AWS is played by moto $(sed -n "s/^moto\[.*==\([^ ]*\).*/\1/p" "$here/requirements.txt"), SQS by $played"
export AWS_REGION=eu-central-1 AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_EC2_METADATA_DISABLED=true
export AWS_CONFIG_FILE=/dev/null AWS_SHARED_CREDENTIALS_FILE=/dev/null
unset AWS_PROFILE AWS_SESSION_TOKEN
"$@"
