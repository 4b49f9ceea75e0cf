#!/usr/bin/env bash
# The store over AWS: the suite that both stores pass, the crash explorer on a small migration, calls per ticket, a large file.
# Nothing of it may skip itself. Run by infra/test/aws.sh, which says where the servers are.
set -euo pipefail
cd "$(dirname "$0")/../.."
log=out/aws/store.log
mkdir -p out/aws
${GO:-go} test -tags aws -count=1 -timeout 20m -v -run 'TestSuite|TestCallsPerTicket|TestLargeFile|TestCrashAWS' ./shared/awsstore ./shared/delta 2>&1 |
  tee $log | grep -v -E '^(=== | +--- PASS|PASS$)'
for want in TestSuite TestCallsPerTicket TestLargeFile TestCrashAWS; do
  grep -q -- "^--- PASS: $want " $log || { echo "$want did not run" >&2; exit 1; }
done
if grep -- '--- SKIP' $log; then
  echo "what is skipped proves nothing" >&2
  exit 1
fi
