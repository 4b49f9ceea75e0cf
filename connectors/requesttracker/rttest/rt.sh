#!/usr/bin/env bash
# rt.sh - one throw-away Request Tracker 5 (Debian packages) for tests: no systemd, no mail leaves the machine.
#
#   rt.sh NAME PORT DIR [ACTION]
#
# ACTION  up (default)  install packages if missing, create DIR/NAME if missing, start, print access data
#         stop          stop the server (and its own postgres), keep the data
#         reset         back to the state of the last snapshot and empty mail.log, the server keeps running
#         snapshot      make the present database the state `reset` returns to (taken once by `up`)
#         destroy       stop and delete DIR/NAME
#         info          print access data
#         scrips on|off switch every notification scrip on or off, workers re-forked
#         exec CMD...   run CMD as the instance's user in the instance's environment
# Env     RT_ROLE=source|target (source; a target also gets the migration's two custom fields)
#         RT_SCRIPS=on|off (on for a target, off for a source: a source is seeded faster without)
#         RT_DB=sqlite|pg (sqlite)  RT_WORKERS=2  RT_ROOT_PASSWORD=password  RT_TZ=UTC  RT_BCRYPT_COST=4
# Every instance has the queues General and Support, the custom fields Region, Tags, Order No, Maßeinheit and Steps, the
# agents agent1..agent4 (privileged, password like the name) and the migration's account deltadesk (superuser, password
# deltadesk). Roles, scrips and the like count when the instance is made; later `up`s only start it.
# The last lines of `up` and `info` are KEY=VALUE. DIR must be world-searchable: the server runs as www-data.
# Exit status: 0 done; 2 usage; 1 anything else (the reason is on stderr).
set -euo pipefail

die() { echo "rt.sh: $*" >&2; exit 1; }
[ $# -ge 3 ] || { sed -n '2,23p' "$0" >&2; exit 2; }
NAME=$1 PORT=$2 BASE=$3 ACTION=${4:-up}
[[ $NAME =~ ^[a-z][a-z0-9_]*$ ]] || die "NAME must match [a-z][a-z0-9_]*: $NAME"
[[ $PORT =~ ^[0-9]+$ ]] || die "PORT must be a number: $PORT"
[ "$(id -u)" = 0 ] || die "run as root (packages, and dropping to www-data/postgres)"
mkdir -p "$BASE"; BASE=$(cd "$BASE" && pwd)
D=$BASE/$NAME
DB=${RT_DB:-sqlite}; [ -f "$D/db.kind" ] && DB=$(cat "$D/db.kind")
case $DB in sqlite|pg) ;; *) die "RT_DB must be sqlite or pg" ;; esac
ROLE=${RT_ROLE:-source}
case $ROLE in source) SCRIPS=${RT_SCRIPS:-off} ;; target) SCRIPS=${RT_SCRIPS:-on} ;; *) die "RT_ROLE must be source or target" ;; esac
PW=${RT_ROOT_PASSWORD:-password}; WORKERS=${RT_WORKERS:-2}; TZONE=${RT_TZ:-UTC}
URL=http://127.0.0.1:$PORT
SERVER=/usr/share/request-tracker5/libexec/rt-server
pgbin() { ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1 || true; }
PGBIN=$(pgbin)

as()   { local u=$1; shift; setpriv --reuid "$u" --regid "$u" --clear-groups -- "$@"; }
asrt() { env -C / HOME="$D/var" RT_SITE_CONFIG="$D/etc/RT_SiteConfig.pm" RT_SITE_CONFIG_DIR="$D/etc/site.d" \
           setpriv --reuid www-data --regid www-data --clear-groups -- "$@"; }
perlrt() { asrt perl -I/usr/share/request-tracker5/lib "$@"; }
alive(){ [ -s "$1" ] && kill -0 "$(cat "$1")" 2>/dev/null; }
psql_(){ as postgres psql -X -q -v ON_ERROR_STOP=1 -h "$D/sock" -U postgres "$@"; }

missing() {
  local p
  for p in "$@"; do dpkg-query -W -f='${db:Status-Abbrev}' "$p" 2>/dev/null | grep -q '^ii' || echo "$p"; done
}

install_packages() {
  local want=(request-tracker5 rt5-standalone starman sqlite3 curl)
  # request-tracker5 wants some mail-transport-agent and some dbconfig-*: the two smallest, both unused.
  [ -x /usr/sbin/sendmail ] || want+=(ssmtp)
  dpkg-query -W -f='${db:Status-Abbrev}\n' dbconfig-sqlite3 dbconfig-pgsql dbconfig-mysql 2>/dev/null | grep -q '^ii' || want+=(dbconfig-no-thanks)
  if [ "$DB" = pg ]; then want+=(rt5-db-postgresql); else want+=(rt5-db-sqlite); fi
  if [ "$DB" = pg ] && [ -z "$PGBIN" ]; then want+=(postgresql); fi
  (
    flock 9 # two instances brought up at once install once
    local miss; mapfile -t miss < <(missing "${want[@]}")
    [ ${#miss[@]} -eq 0 ] && exit 0
    echo "rt.sh: installing ${miss[*]}" >&2
    # RUNLEVEL=1: invoke-rc.d starts nothing.
    export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
    local apt=(apt-get -q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
    "${apt[@]}" install -y --no-install-recommends "${miss[@]}" >"$BASE/apt.log" 2>&1 && exit 0
    "${apt[@]}" update >>"$BASE/apt.log" 2>&1 || die "apt-get update failed, see $BASE/apt.log"
    "${apt[@]}" install -y --no-install-recommends "${miss[@]}" >>"$BASE/apt.log" 2>&1 || die "apt-get install failed, see $BASE/apt.log"
  ) 9>/tmp/rt.sh.lock
  PGBIN=$(pgbin)
}

write_config() {
  mkdir -p "$D/etc/site.d" "$D/var" "$D/mason" "$D/session" "$D/db"
  local dbconf
  if [ "$DB" = sqlite ]; then
    dbconf="Set(\$DatabaseType,'SQLite'); Set(\$DatabaseName,'$D/db/rt.sqlite3'); Set(\$DatabaseUser,''); Set(\$DatabasePassword,'');"
  else
    dbconf="Set(\$DatabaseType,'Pg'); Set(\$DatabaseHost,'$D/sock'); Set(\$DatabasePort,''); Set(\$DatabaseName,'rt5'); Set(\$DatabaseUser,'rt_user'); Set(\$DatabasePassword,'rt'); Set(\$DatabaseAdmin,'postgres');"
  fi
  cat >"$D/etc/RT_SiteConfig.pm" <<CONF
use utf8;
Set(\$rtname, '$NAME'); Set(\$Organization, '$NAME.example');
Set(\$WebDomain, '127.0.0.1'); Set(\$WebPort, $PORT); Set(\$WebPath, '');
Set(\$Timezone, '$TZONE');
Set(\$CorrespondAddress, 'rt\@$NAME.example'); Set(\$CommentAddress, 'rt-comment\@$NAME.example');
$dbconf
Set(\$LogToSyslog, undef); Set(\$LogToSTDERR, 'warning');
Set(%GnuPG, Enable => 0); Set(%SMIME, Enable => 0);
Set(\$MaxAttachmentSize, 100_000_000);
# RT checks the password with bcrypt at every request: 0.27 s at the default cost of 12, 1 ms at 4.
Set(\$BcryptCost, ${RT_BCRYPT_COST:-4});
# Perl's own HTML-to-text for the text part of notifications: no w3m process per mail.
Set(\$HTMLFormatter, 'core');
# Nothing leaves this machine: each mail RT would send becomes one line in mail.log, with the transaction that caused it.
# That is an argument of RT::Interface::Email::SendEmail, which is among our callers; RT does not pass it on.
Set(\$MailCommand, sub {
    my \$h = \$_[0]->head;
    my (\$txn, \$type, \$ticket, \$by) = (0, '', 0, '');
    for my \$i (0 .. 6) {
        my (\$name, @args) = do { package DB; my @c = caller(\$i); (\$c[3] // '', @DB::args) };
        next unless \$name eq 'RT::Interface::Email::SendEmail';
        my %a = @args % 2 ? () : @args;
        if (my \$t = \$a{Transaction}) {
            (\$txn, \$type, \$ticket, \$by) = (\$t->id, \$t->Type, \$t->ObjectId, \$t->CreatorObj->Name);
        }
        last;
    }
    my %v = map { my \$v = \$h->get(\$_) // ''; \$v =~ s/\\s+/ /g; (\$_ => \$v) } qw(To Cc Bcc Subject X-RT-Originator);
    if ( open my \$f, '>>', '$D/var/mail.log' ) {
        my \$line = join("\\t", "Txn: \$txn", "Type: \$type", "Ticket: \$ticket", "By: \$by",
            map { "\$_: \$v{\$_}" } qw(To Cc Bcc Subject X-RT-Originator)) . "\\n";
        utf8::encode(\$line) if utf8::is_utf8(\$line);
        syswrite \$f, \$line;
    }
    return 1;
});
\$RT::VarPath = '$D/var'; \$RT::MasonDataDir = '$D/mason'; \$RT::MasonSessionDir = '$D/session';
1;
CONF
  chown -R www-data:www-data "$D/etc" "$D/var" "$D/mason" "$D/session" "$D/db"
  chmod 755 "$BASE" "$D"
  as www-data test -r "$D/etc/RT_SiteConfig.pm" || die "www-data cannot read $D: put DIR below a world-searchable folder"
}

pg_alive() { [ -f "$D/pg/postmaster.pid" ] && kill -0 "$(head -1 "$D/pg/postmaster.pid")" 2>/dev/null; }
pg_start() {
  [ "$DB" = pg ] || return 0
  pg_alive && return 0
  [ -n "$PGBIN" ] || die "no postgres binaries"
  mkdir -p "$D/sock"; chown postgres:postgres "$D/sock"; chmod 755 "$D/sock"
  if [ ! -f "$D/pg/PG_VERSION" ]; then
    mkdir -p "$D/pg"; chown postgres:postgres "$D/pg"; chmod 700 "$D/pg"
    ( cd /; as postgres "$PGBIN/initdb" -D "$D/pg" -U postgres -A trust -E UTF8 --locale=C --no-sync >/dev/null )
  fi
  # test data only: no fsync, no TCP
  ( cd /; as postgres "$PGBIN/pg_ctl" -D "$D/pg" -s -w -l "$D/pg/log" \
      -o "-c listen_addresses='' -k '$D/sock' -c fsync=off -c synchronous_commit=off -c full_page_writes=off -c shared_buffers=128MB" start ) \
    || die "postgres did not start, see $D/pg/log"
}
pg_stop() { if [ "$DB" = pg ] && pg_alive; then ( cd /; as postgres "$PGBIN/pg_ctl" -D "$D/pg" -s -m fast -w stop ) || true; fi; }

init_db() {
  [ -f "$D/initialised" ] && return 0
  umask 022
  printf '%s\n' "$PW" >"$D/rootpw"; chmod 644 "$D/rootpw"
  local log=$D/init.log
  if [ "$DB" = sqlite ]; then
    rm -f "$D/db/rt.sqlite3"*
    asrt rt-setup-database-5 --action init --skip-create --root-password-file "$D/rootpw" >"$log" 2>&1 || die "database init failed, see $log"
    # readers do not block the writer (kept in the file)
    sqlite3 "$D/db/rt.sqlite3" 'PRAGMA journal_mode=WAL' >/dev/null; chown www-data:www-data "$D"/db/*
  else
    psql_ -d postgres -c 'DROP DATABASE IF EXISTS rt5' -c 'DROP ROLE IF EXISTS rt_user' 2>/dev/null
    asrt rt-setup-database-5 --action init --dba postgres --dba-password '' --root-password-file "$D/rootpw" >"$log" 2>&1 || die "database init failed, see $log"
  fi
  perlrt -Mutf8 -e '
    use RT -init;
    my ($role, $scrips) = @ARGV;
    my $sys = RT->SystemUser;
    sub ok { my ($id, $msg) = @_; die "$msg\n" unless $id; $id }
    my $q = RT::Queue->new($sys); $q->Load("General");
    ok(RT::Queue->new($sys)->Create(Name => "Support", CorrespondAddress => "support\@" . RT->Config->Get("Organization")));
    my %global = map { my $g = RT::Group->new($sys); $g->LoadSystemInternalGroup($_); ($_ => $g->PrincipalObj) } qw(Privileged Everyone);
    $global{Privileged}->GrantRight(Right => $_, Object => RT->System) for qw(SeeQueue ShowTicket ShowTicketComments ShowOutgoingEmail
        CreateTicket ReplyToTicket CommentOnTicket ModifyTicket DeleteTicket OwnTicket TakeTicket StealTicket ReassignTicket SeeCustomField ModifyCustomField Watch WatchAsAdminCc);
    $global{Everyone}->GrantRight(Right => $_, Object => RT->System) for qw(SeeQueue CreateTicket ReplyToTicket);
    for my $name (qw(agent1 agent2 agent3 agent4 deltadesk)) {
        my $u = RT::User->new($sys);
        ok($u->Create(Name => $name, EmailAddress => "$name\@desk.example", RealName => $name eq "agent4" ? "" : ucfirst $name,
            Password => $name, Privileged => 1, Timezone => $name eq "agent2" ? "America/New_York" : ""));
        $u->PrincipalObj->GrantRight(Right => "SuperUser", Object => RT->System) if $name eq "deltadesk";
    }
    my @cf = (["Region", "SelectSingle"], ["Tags", "FreeformMultiple"], ["Order No", "FreeformSingle"], ["Maßeinheit", "FreeformSingle"], ["Steps", "TextSingle"]);
    push @cf, ["Deltadesk Source ID", "FreeformSingle"], ["Deltadesk Source URL", "FreeformSingle"] if $role eq "target";
    for (@cf) {
        my $cf = RT::CustomField->new($sys);
        ok($cf->Create(Name => $_->[0], Type => $_->[1], LookupType => RT::Ticket->CustomFieldLookupType));
        ok($cf->AddToObject(RT::Queue->new($sys))); # queue 0: all queues
        if ($_->[0] eq "Region") { ok($cf->AddValue(Name => $_)) for qw(EMEA APAC AMER) }
    }
    ' "$ROLE" "$SCRIPS" >>"$log" 2>&1 || die "setting the instance up failed, see $log"
  scrips "$SCRIPS"
  echo "$DB" >"$D/db.kind"
  snapshot
  touch "$D/initialised"
}

scrips() {
  case $1 in on) local off=0 ;; off) local off=1 ;; *) die "scrips on|off" ;; esac
  local sql="UPDATE Scrips SET Disabled=$off WHERE ScripAction IN (SELECT id FROM ScripActions WHERE ExecModule IN ('Notify','Autoreply','NotifyOwnerOrAdminCc','NotifyAsComment','Forward','SendForward'))"
  if [ "$DB" = sqlite ]; then
    sqlite3 "$D/db/rt.sqlite3" '.timeout 10000' "$sql"
  else
    psql_ -d rt5 -c "$sql"
  fi
  if alive "$D/pid"; then kill -HUP "$(cat "$D/pid")"; sleep 0.2; wait_http; fi
}

snapshot() {
  if [ "$DB" = sqlite ]; then
    rm -f "$D/db/pristine.sqlite3"; sqlite3 "$D/db/rt.sqlite3" '.timeout 10000' ".backup '$D/db/pristine.sqlite3'"
  else
    psql_ -d postgres -c "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname='rt5'" >/dev/null
    psql_ -d postgres -c 'DROP DATABASE IF EXISTS rt5_pristine' -c 'CREATE DATABASE rt5_pristine TEMPLATE rt5 OWNER rt_user' 2>/dev/null
  fi
}

restore() {
  if [ "$DB" = sqlite ]; then
    sqlite3 "$D/db/rt.sqlite3" '.timeout 10000' ".restore '$D/db/pristine.sqlite3'" 'PRAGMA journal_mode=WAL' >/dev/null
    chown www-data:www-data "$D"/db/*
  else
    psql_ -d postgres -c 'DROP DATABASE IF EXISTS rt5 WITH (FORCE)' -c 'CREATE DATABASE rt5 TEMPLATE rt5_pristine OWNER rt_user' 2>/dev/null
  fi
  rm -f "$D/var/mail.log"
}

wait_http() {
  for _ in $(seq 1 400); do
    curl -fsS -m 5 -o /dev/null -u "root:$PW" "$URL/REST/2.0/rt" 2>/dev/null && return 0
    [ "${1:-}" = starting ] && ! alive "$D/pid" && die "server died, see $D/server.log"
    sleep 0.05
  done
  die "no answer at $URL, see $D/server.log"
}

start() {
  if alive "$D/pid"; then return 0; fi
  if curl -s -m 2 -o /dev/null "$URL/"; then die "port $PORT already answers and is not ours"; fi
  ulimit -n 4096 || true
  rm -f "$D/var/starman.pid"
  asrt setsid "$SERVER" --server Starman --host 127.0.0.1 --port "$PORT" --workers "$WORKERS" \
    --max-requests 20000 --pid "$D/var/starman.pid" >"$D/server.log" 2>&1 </dev/null &
  for _ in $(seq 1 400); do [ -s "$D/var/starman.pid" ] && break; sleep 0.05; done
  [ -s "$D/var/starman.pid" ] || die "server did not start, see $D/server.log"
  cp "$D/var/starman.pid" "$D/pid"
  wait_http starting
}

stop() {
  if alive "$D/pid"; then
    local p; p=$(cat "$D/pid"); kill -QUIT "$p" 2>/dev/null || true
    for _ in $(seq 1 60); do kill -0 "$p" 2>/dev/null || break; sleep 0.05; done
    kill -0 "$p" 2>/dev/null && kill -TERM "$p" 2>/dev/null || true
    for _ in $(seq 1 60); do kill -0 "$p" 2>/dev/null || break; sleep 0.05; done
  fi
  rm -f "$D/pid" "$D/var/starman.pid"
  pg_stop
}

info() {
  cat <<INFO
RT_URL=$URL
RT_REST=$URL/REST/2.0
RT_USER=root
RT_PASSWORD=$PW
RT_MIGRATION_USER=deltadesk
RT_MIGRATION_PASSWORD=deltadesk
RT_DB_KIND=$DB
RT_DB_FILE=$D/db/rt.sqlite3
RT_MAIL_LOG=$D/var/mail.log
RT_SERVER_LOG=$D/server.log
RT_PID=$(cat "$D/pid" 2>/dev/null || true)
INFO
}

case $ACTION in
  up|destroy) ;;
  *) [ -f "$D/initialised" ] || die "no instance $NAME in $BASE (run: rt.sh $NAME $PORT $BASE)" ;;
esac
case $ACTION in
  up)       install_packages; mkdir -p "$D"; write_config; pg_start; init_db; start; info ;;
  stop)     stop ;;
  destroy)  stop; rm -rf "$D" ;;
  snapshot) pg_start; snapshot ;;
  reset)    pg_start; restore; if alive "$D/pid"; then kill -HUP "$(cat "$D/pid")"; sleep 0.2; wait_http; else start; fi ;;
  scrips)   scrips "${5:-}" ;;
  info)     info ;;
  exec)     shift 4; asrt "$@" ;;
  *)        die "unknown action $ACTION" ;;
esac
