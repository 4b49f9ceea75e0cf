package boot

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/deltadesk/deltadesk/connectors/all"
	"github.com/deltadesk/deltadesk/infra/migrations"
	"github.com/deltadesk/deltadesk/shared/delta"
	"github.com/deltadesk/deltadesk/shared/desk"
	"github.com/deltadesk/deltadesk/shared/mapping"
	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

var update = flag.Bool("update", false, "write golden files")

const planted = "s3cr3t-Pa55"

// fakes stand in for connectors/all.
func fakes() []desk.Connector {
	source := func(desk.Config, desk.Deps) (desk.Source, error) { return nil, nil }
	target := func(desk.Config, desk.Deps) (desk.Target, error) { return nil, nil }
	return []desk.Connector{
		{
			Name: "requesttracker", NewSource: source, NewTarget: target,
			Options: []desk.Option{
				{Name: "url", Help: "the address of the web interface", Required: true},
				{Name: "user", Help: "the account's name", Required: true},
				{Name: "password", Help: "the account's password", Required: true, Secret: true},
				{Name: "token", Help: "a token instead", Secret: true},
				{Name: "page", Help: "tickets per page", Default: "100"},
			},
		},
		{Name: "archive", NewSource: source, NewTarget: target, Options: []desk.Option{{Name: "folder", Help: "where it lies", Required: true}}},
		{Name: "readonly", NewSource: source},
	}
}

func testOptions() Options {
	return Options{
		Connectors: fakes(),
		LookupEnv: func(name string) (string, bool) {
			v, ok := map[string]string{
				"RT_SOURCE_PASSWORD": planted, "RT_TARGET_PASSWORD": planted, "EMPTY": "", "RT_URL": "https://rt.env.example",
			}[name]
			return v, ok
		},
		ReadFile: func(name string) ([]byte, error) {
			switch filepath.ToSlash(name) {
			case "conf/secrets/target", "secrets/target", "/run/secret":
				return []byte(planted + "\r\n"), nil
			case "conf/secrets/empty":
				return []byte("\n"), nil
			}
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		},
	}
}

// minimal is the shortest file that loads. Tests put other sections after it.
const minimal = `migration: acme
owner: {name: Jo Doe, email: jo@acme.example}
decider: {name: Kim Ito, email: kim@acme.example}
source: {connector: archive, options: {folder: in}}
target: {connector: archive, options: {folder: out}}
scopes: {all: {}}
`

func TestMinimal(t *testing.T) {
	f, err := Parse("conf/acme.yaml", []byte(minimal), testOptions())
	if err != nil {
		t.Fatal(err)
	}
	want := delta.Migration{
		ID: "acme", Hash: f.Migration.Hash, Scopes: map[string]desk.Scope{"all": {}}, Windows: map[string]delta.Window{},
		Policies: delta.DefaultPolicies(),
	}
	want.Rules.People.Unmatched = "create"
	if diff := cmp.Diff(want, f.Migration); diff != "" {
		t.Error(diff)
	}
	if len(f.Migration.Hash) != 64 {
		t.Errorf("hash %q", f.Migration.Hash)
	}
	if diff := cmp.Diff(desk.Config{"folder": "in"}, f.Source.Config); diff != "" {
		t.Error(diff)
	}
	if want := (Contact{"Jo Doe", "jo@acme.example"}); f.Owner != want {
		t.Errorf("owner %v", f.Owner)
	}
	if f.Backup.Folder != "" {
		t.Errorf("backup %q", f.Backup.Folder)
	}
}

func TestEverything(t *testing.T) {
	f, err := Parse("conf/acme.yaml", []byte(`
migration: acme
owner: {name: Jo Doe, email: jo@acme.example}
decider: {name: Kim Ito, email: kim@acme.example}
source:
  connector: requesttracker
  options: {url: env:RT_URL, user: 007, password: env:RT_SOURCE_PASSWORD, page: 50}
target:
  connector: requesttracker
  options: {url: "https://rt.new.example", user: deltadesk, password: file:secrets/target}
scopes:
  all: {}
  support: {filters: {group: [Support], custom.Tier: [1, yes]}, created_from: 2020-01-01, created_to: "2026-01-01T01:00:00+01:00"}
windows: {everything: {scope: all, mode: create+update},
  count: {scope: all, kind: census}}
mapping:
  unmapped: note
  ticket:
    - {from: status, to: status, values: {open: open, 1: true}, default: new, transform: lower, unmapped: block, meaning: "why"}
    - from: custom.Cost
      to: custom.Costs
  person:
    - {from: phone, unmapped: drop}
  company: []
  groups: {Support: General}
  group_default: General
  groups_unmapped: pass
  people: {unmatched: fallback, fallback: agent@x, map: {a@x: b@y}}
policies:
  conflict: target-wins
  fields: {priority: source-wins}
  deleted: tag
  merged: ignore
  spam: close
  revised: tag
  privacy: close
  split: ignore
  target_gone: recreate
  event_tag: gone
  closed_status: closed
  deadline_days: 20
  threshold: {share: 1.5%, count: 3}
backup: {folder: ./backup}
`), testOptions())
	if err != nil {
		t.Fatal(err)
	}
	want := delta.Migration{
		ID: "acme", Hash: f.Migration.Hash,
		Scopes: map[string]desk.Scope{"all": {}, "support": {
			Any:         map[desk.Field][]string{"group": {"Support"}, "custom.Tier": {"1", "yes"}},
			CreatedFrom: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC),
			CreatedTo:   time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		}},
		Windows: map[string]delta.Window{"everything": {Scope: "all", Kind: delta.Delta, Mode: delta.CreateUpdate}, "count": {Scope: "all", Kind: delta.Census}},
		Rules: mapping.Rules{
			Fields: map[desk.Kind][]mapping.FieldRule{
				desk.Ticket: {
					{
						From: "status", To: "status", Values: map[string]string{"open": "open", "1": "true"}, Default: "new",
						Transform: "lower", Unmapped: mapping.Block, Meaning: "why", Line: 19,
					},
					{From: "custom.Cost", To: "custom.Costs", Line: 20},
				},
				desk.Person: {{From: "phone", Unmapped: mapping.Drop, Line: 23}},
			},
			Groups: map[string]string{"Support": "General"}, GroupDefault: "General", GroupsUnmapped: mapping.Pass,
			People:   mapping.PersonRule{Map: map[string]string{"a@x": "b@y"}, Unmatched: "fallback", Fallback: "agent@x", Line: 28},
			Unmapped: mapping.Note, Line: 16, GroupsLine: 25,
		},
		Policies: delta.Policies{
			Conflict: delta.TargetWins, ConflictField: map[desk.Field]delta.Conflict{"priority": delta.SourceWins},
			OnDeleted: delta.Tag, OnMerged: delta.Ignore, OnSpam: delta.Close, OnTargetGone: delta.RecreateGone,
			OnRevised: delta.Tag, OnPrivacy: delta.Close, OnSplit: delta.Ignore,
			EventTag: "gone", ClosedStatus: "closed", Deadline: 20 * 24 * time.Hour, ThresholdShare: 0.015, ThresholdCount: 3,
		},
	}
	if diff := cmp.Diff(want, f.Migration); diff != "" {
		t.Error(diff)
	}
	wantSource := desk.Config{"url": "https://rt.env.example", "user": "007", "password": planted, "page": "50"}
	if diff := cmp.Diff(wantSource, f.Source.Config); diff != "" {
		t.Error(diff)
	}
	wantTarget := desk.Config{"url": "https://rt.new.example", "user": "deltadesk", "password": planted, "page": "100"}
	if diff := cmp.Diff(wantTarget, f.Target.Config); diff != "" {
		t.Error(diff)
	}
	if want := filepath.Join("conf", "backup"); f.Backup.Folder != want {
		t.Errorf("backup %q, want %q", f.Backup.Folder, want)
	}
}

// TestDefaultsWritten proves that a file which writes the defaults out says the same as one that is silent.
func TestDefaultsWritten(t *testing.T) {
	f, err := Parse("a.yaml", []byte(minimal+"policies: {conflict: hold, deleted: ignore, merged: mirror, spam: ignore,"+
		" revised: mirror, privacy: mirror, split: mirror, target_gone: hold,"+
		" event_tag: deleted-in-source, closed_status: resolved, deadline_days: 10, threshold: {share: 0.5%, count: 25}}\n"), testOptions())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(delta.DefaultPolicies(), f.Migration.Policies); diff != "" {
		t.Error(diff)
	}
}

func TestExamples(t *testing.T) {
	names, err := fs.Glob(migrations.Examples, "*.yaml")
	if err != nil || len(names) < 2 {
		t.Fatal(names, err)
	}
	schema := compiled(t)
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			data, err := migrations.Examples.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if err := valid(schema, data); err != nil {
				t.Errorf("the schema refuses it: %v", err)
			}
			for _, connectors := range [][]desk.Connector{fakes(), all.Connectors()} {
				opts := testOptions()
				opts.Connectors = connectors
				if _, err := Parse(name, data, opts); err != nil {
					t.Errorf("Parse refuses it:\n%v", err)
				}
			}
		})
	}
}

func TestLoadReadsTheFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "acme.yaml")
	file := strings.Replace(minimal, "{connector: archive, options: {folder: out}}",
		"{connector: requesttracker, options: {url: u, user: x, password: file:secret}}", 1)
	for name, text := range map[string]string{"acme.yaml": file, "secret": planted} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f, err := Load(path, Options{Connectors: fakes()})
	if err != nil {
		t.Fatal(err)
	}
	if got := f.Target.Config["password"]; got != planted {
		t.Error("the secret was not read from the file's own folder")
	}
	if _, err := Load(filepath.Join(dir, "none.yaml"), Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

// broken are files with one mistake each (or one thing that is wrong in two ways). schema tells whether the schema finds it
// as well; what it cannot find, Parse must.
var brokenFiles = []struct {
	name   string
	file   string // appended to minimal, or whole where it contains "migration:"
	line   int
	says   string
	schema bool
}{
	{"unknown key", "polices: {}\n", 7, `polices: there is no such key (did you mean "policies"?)`, true},
	{"unknown key of a rule", "mapping:\n  ticket:\n    - {from: status, too: status}\n", 9, `mapping.ticket[0].too: there is no such key (did you mean "to"?)`, true},
	{"unknown key of a window", "windows: {a: {scope: all, mode: create, when: now}}\n", 7, "windows.a.when: there is no such key", true},
	{"duplicate key", "policies:\n  spam: ignore\n  spam: close\n", 9, "policies.spam: the key is in line 8 already", true},
	{"wrong type: list", "windows: []\n", 7, "windows: it must be a set of keys, and is a list", true},
	{"wrong type: number", "policies: {event_tag: 12}\n", 7, "policies.event_tag: it must be text; put the value in quotes", true},
	{"wrong type: text", "policies: {deadline_days: ten}\n", 7, "policies.deadline_days: it must be a whole number, and is text", true},
	{"wrong type: quoted number", "policies: {deadline_days: \"10\"}\n", 7, "policies.deadline_days: it must be a whole number", true},
	{"wrong type: float", "policies: {threshold: {count: 2.5}}\n", 7, "policies.threshold.count: it must be a whole number", true},
	{"wrong type: object", "mapping: {groups: {a: {b: c}}}\n", 7, "mapping.groups.a: it must be a single value, and is a set of keys", true},
	{"empty section", "policies:\n", 7, "policies: nothing is given", true},
	{"empty value", "mapping:\n  groups:\n    Support:\n", 9, "mapping.groups.Support: nothing is given", true},
	{"unknown scope", "windows:\n  night: {scope: al, mode: create}\n", 8, `windows.night.scope: there is no scope "al" (did you mean "all"?)`, false},
	{"unknown mode", "windows: {a: {scope: all, mode: upsert}}\n", 7, `windows.a.mode: "upsert" is not possible`, true},
	{"census with a mode", "windows: {a: {scope: all, kind: census, mode: create}}\n", 7, "windows.a.mode: a census only looks", true},
	{"unknown kind of window", "windows: {a: {scope: all, kind: full, mode: create}}\n", 7, `windows.a.kind: "full" is not possible`, true},
	{"window without mode", "windows: {a: {scope: all}}\n", 7, "windows.a: mode is missing", true},
	{"window's name", "windows: {Night: {scope: all, mode: create}}\n", 7, `"Night" cannot be a name`, true},
	{"no days", "policies: {deadline_days: 0}\n", 7, "policies.deadline_days: 0 is not possible", true},
	{"share as number", "policies: {threshold: {share: 0.005}}\n", 7, "policies.threshold.share: 0.005 has no percent sign", true},
	{"share over 100", "policies: {threshold: {share: 101%}}\n", 7, `policies.threshold.share: "101%" is not possible`, true},
	{"share negative", "policies: {threshold: {share: -1%}}\n", 7, `policies.threshold.share: "-1%" is not possible`, true},
	{"conflict", "policies: {conflict: held}\n", 7, `policies.conflict: "held" is not possible (did you mean "hold"?)`, true},
	{"conflict of a field", "policies: {fields: {priority: source}}\n", 7, `policies.fields.priority: "source" is not possible`, true},
	{"field of a conflict", "policies: {fields: {prioritiy: hold}}\n", 7, `there is no field "prioritiy" (did you mean "priority"?)`, true},
	{"event", "policies: {deleted: delete}\n", 7, `policies.deleted: "delete" is not possible`, true},
	{"event of an entry", "policies: {privacy: hold}\n", 7, `policies.privacy: "hold" is not possible; it can be ignore, tag, close, mirror`, true},
	{"no policy of edits", "policies: {split: mirorr}\n", 7, `policies.split: "mirorr" is not possible (did you mean "mirror"?)`, true},
	{"gone", "policies: {target_gone: mirror}\n", 7, `policies.target_gone: "mirror" is not possible`, true},
	{"blank text", "policies: {closed_status: \" \"}\n", 7, "policies.closed_status: the text is empty", true},
	{"backup without folder", "backup: {}\n", 7, "backup: folder is missing", true},
	{"unmapped drop for all", "mapping: {unmapped: drop}\n", 7, `mapping.unmapped: "drop" is not possible`, true},
	{"no such transform", "mapping: {ticket: [{from: status, to: status, transform: lowr}]}\n", 7, `there is no transform "lowr" (did you mean "lower"?)`, true},
	{"no such field", "mapping: {ticket: [{from: statis, to: status}]}\n", 7, `there is no field "statis" (did you mean "status"?)`, true},
	{"custom without name", "mapping: {ticket: [{from: custom., to: status}]}\n", 7, `there is no field "custom."`, true},
	{"rule without to", "mapping: {ticket: [{from: status}]}\n", 7, "the rule for ticket field status has no to", true},
	{"empty rule", "mapping: {ticket: [{}]}\n", 7, "the rule has no from", true},
	{"rule is text", "mapping: {ticket: [status]}\n", 7, "mapping.ticket[0]: it must be a set of keys, and is text", true},
	{"two rules for one field", "mapping:\n  ticket:\n    - {from: type, to: status}\n    - {from: status, to: status}\n", 10, "ticket field status is filled by the rule in line 9 already", false},
	{"person for a word", "mapping: {ticket: [{from: assignee, to: custom.agent}]}\n", 7, "one cannot fill the other", false},
	{"groups twice", "mapping:\n  groups: {a: b}\n  ticket: [{from: group, to: group}]\n", 9, "the group has a rule here and is mapped by groups, too", false},
	{"fallback without name", "mapping: {people: {unmatched: fallback}}\n", 7, "people.fallback names nobody", true},
	{"anchor", "policies: &p {}\n", 7, "anchors (&) and aliases (*) are not read here", false},
	{"alias", "mapping: {groups: {a: *x}}\n", 7, "anchors (&) and aliases (*) are not read here", true},
	{"merge key", "policies: {<<: {spam: close}}\n", 7, "this kind of key is not read here", false},
	{"tag", "backup: {folder: !!str x}\n", 7, "tags (!) are not read here", false},
	{"two documents", "---\nmigration: b\n", 8, "a second document begins here", false},
	{"not YAML", "policies: {spam: ignore\n", 7, "this is not YAML", true},
	{"empty file", "# migration:\n", 1, "the file is empty", true},
	{"not a file of keys", "- migration: a\n", 1, "it must be a set of keys, and is a list", true},
	{"not UTF-8", "policies: {event_tag: \"\xff\"}\n", 7, "the file is not plain text in UTF-8 here", false},
	{"control character", "policies: {event_tag: a\x10b}\n", 7, "the file is not plain text in UTF-8 here", false},
	{"line ends of old", "policies: {}\r\r\n", 7, "the file is not plain text in UTF-8 here", false},
	{"not a number", "mapping: {groups: {a: .nan}}\n", 7, "mapping.groups.a: put the value in quotes", true},
	{"missing section", strings.Replace(minimal, "decider: {name: Kim Ito, email: kim@acme.example}\n", "", 1), 1, "decider is missing", true},
	{"id", strings.Replace(minimal, "acme\n", "Acme_1\n", 1), 1, `migration: "Acme_1" cannot be an id`, true},
	{"id too long", strings.Replace(minimal, "acme\n", strings.Repeat("a", 41)+"\n", 1), 1, "cannot be an id", true},
	{"mail address", strings.Replace(minimal, "jo@acme.example", "jo", 1), 2, `owner.email: "jo" is not an e-mail address`, true},
	{"no scopes", strings.Replace(minimal, "{all: {}}", "{}", 1), 6, "scopes: there must be a scope", true},
	{"scope without braces", strings.Replace(minimal, "{all: {}}", "\n  all:", 1), 7, "scopes.all: nothing is given; it must be a set of keys, {} for an empty one", true},
	{"date", strings.Replace(minimal, "{all: {}}", "{all: {created_from: 1.2.2020}}", 1), 6, `scopes.all.created_from: "1.2.2020" is no date`, true},
	{"day that is none", strings.Replace(minimal, "{all: {}}", "{all: {created_from: 2026-02-30}}", 1), 6, `"2026-02-30" is no date`, false},
	{"year", strings.Replace(minimal, "{all: {}}", "{all: {created_from: 2026}}", 1), 6, "scopes.all.created_from: it must be text", true},
	{"dates the wrong way", strings.Replace(minimal, "{all: {}}", "{all: {created_from: 2026-01-02, created_to: 2026-01-02}}", 1), 6, "scopes.all.created_to: it is not after created_from", false},
	{"filter", strings.Replace(minimal, "{all: {}}", "{all: {filters: {queue: [a]}}}", 1), 6, `there is no field "queue"`, true},
	{"filter without list", strings.Replace(minimal, "{all: {}}", "{all: {filters: {group: a}}}", 1), 6, "scopes.all.filters.group: it must be a list, and is text", true},
	{"empty filter", strings.Replace(minimal, "{all: {}}", "{all: {filters: {group: []}}}", 1), 6, "the list is empty", true},
	{"empty value of a filter", strings.Replace(minimal, "{all: {}}", "{all: {filters: {group: [\"\"]}}}", 1), 6, "scopes.all.filters.group[0]: the value is empty", true},
	{"unknown connector", strings.Replace(minimal, "connector: archive, options: {folder: in}", "connector: archiv", 1), 4, `source.connector: there is no connector "archiv" (did you mean "archive"?)`, false},
	{"no connector", strings.Replace(minimal, "connector: archive, options: {folder: in}", "", 1), 4, "source: connector is missing", true},
	{"not a target", strings.Replace(minimal, "{connector: archive, options: {folder: out}}", "{connector: readonly}", 1), 5, `target.connector: "readonly" cannot be a target; there are archive, requesttracker`, false},
	{"unknown option", strings.Replace(minimal, "folder: in", "folder: in, foldr: x", 1), 4, `source.options: archive has no option of the name in this line (did you mean "folder"?)`, false},
	{"missing option", strings.Replace(minimal, "{folder: in}", "{}", 1), 4, "source.options: option folder is missing, and archive requires it: where it lies", false},
	{"empty option", strings.Replace(minimal, "{folder: in}", "{folder: \"\"}", 1), 4, "source.options.folder: it is empty", false},
	{"options are text", strings.Replace(minimal, "{folder: in}", "in", 1), 4, "source.options: it must be a set of keys, and is text", true},
	{"one desk on both sides", strings.Replace(minimal, "folder: out", "folder: in", 1), 5, "target: source and target are the same desk", false},
	{"secret in the file", rt("password: " + planted), 4, "source.options.password: a secret must not stand in this file", false},
	{"secret in the file as number", rt("password: 12345"), 4, "source.options.password: a secret must not stand in this file", false},
	{"optional secret in the file", rt("password: env:RT_SOURCE_PASSWORD, token: " + planted), 4, "source.options.token: a secret must not stand", false},
	{"secret under another name", rt("password: env:RT_SOURCE_PASSWORD, passwort: " + planted), 4, `source.options: requesttracker has no option of the name in this line (did you mean "password"?)`, false},
	{"secret as list", rt("password: [" + planted + "]"), 4, "source.options.password: it must be a single value, and is a list", true},
	{"unset variable", rt("password: env:NOPE"), 4, "source.options.password: the environment variable NOPE is not set", false},
	{"empty variable", rt("password: env:EMPTY"), 4, "the environment variable EMPTY is empty", false},
	{"no variable", rt("password: \"env:" + planted + "\""), 4, "after env: comes the name of an environment variable", false},
	{"no such file", rt("password: file:nope"), 4, "the file conf/nope cannot be read (file does not exist)", false},
	{"empty file of a secret", rt("password: file:secrets/empty"), 4, "the file conf/secrets/empty is empty", false},
	{"file without path", rt("password: \"file:\""), 4, "after file: comes the path of a file", false},
}

// rt is minimal with another source.
func rt(option string) string {
	return strings.Replace(minimal, "{connector: archive, options: {folder: in}}", "{connector: requesttracker, options: {url: u, user: x, "+option+"}}", 1)
}

func TestBroken(t *testing.T) {
	schema := compiled(t)
	if err := valid(schema, []byte(minimal)); err != nil {
		t.Fatal(err)
	}
	for _, tc := range brokenFiles {
		t.Run(tc.name, func(t *testing.T) {
			file := tc.file
			if !strings.Contains(file, "migration:") || strings.HasPrefix(file, "---") {
				file = minimal + file
			}
			_, err := Parse("conf/acme.yaml", []byte(file), testOptions())
			if err == nil {
				t.Fatal("Parse accepts it")
			}
			want := fmt.Sprintf("conf/acme.yaml:%d: ", tc.line)
			lines := strings.Split(err.Error(), "\n")
			if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, want) && strings.Contains(l, tc.says) }) {
				t.Errorf("no line begins with %q and says %q:\n%v", want, tc.says, err)
			}
			if len(lines) != 1 {
				t.Errorf("one mistake is reported in %d lines:\n%v", len(lines), err)
			}
			if strings.Contains(err.Error(), planted) || strings.Contains(err.Error(), "12345") {
				t.Errorf("the secret is in the error: %v", err)
			}
			if got := valid(schema, []byte(file)) != nil; got != tc.schema {
				t.Errorf("the schema finds it: %v, want %v", got, tc.schema)
			}
		})
	}
}

// TestManyMistakes has all mistakes of one file in a golden file.
func TestManyMistakes(t *testing.T) {
	data, err := os.ReadFile("testdata/mistakes.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, err = Parse("mistakes.yaml", data, testOptions())
	if err == nil {
		t.Fatal("Parse accepts it")
	}
	golden(t, "testdata/mistakes.golden", err.Error()+"\n")
	if strings.Contains(err.Error(), planted) {
		t.Error("the secret is in the error")
	}
	windows := append([]byte("\ufeff"), bytes.ReplaceAll(data, []byte("\n"), []byte("\r\n"))...)
	if _, werr := Parse("mistakes.yaml", windows, testOptions()); werr == nil || werr.Error() != err.Error() {
		t.Errorf("an editor on Windows makes a difference:\n%v", werr)
	}
	last := 0
	for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
		var m *Mistake
		if !errors.As(e, &m) {
			t.Fatalf("%T is no *Mistake", e)
		}
		if m.Line < last {
			t.Errorf("line %d after line %d", m.Line, last)
		}
		last = m.Line
	}
}

// TestLines proves that what stands above a mistake does not move it.
func TestLines(t *testing.T) {
	for name, above := range map[string]string{
		"comments":       "# a\n\n  # b\n\n",
		"literal":        "backup:\n  folder: |\n    a\n\n    b\n  \n",
		"folded":         "backup:\n  folder: >-\n    a\n    b\n\n",
		"plain lines":    "backup:\n  folder: a\n    b\n    c\n",
		"double quotes":  "backup:\n  folder: \"a\n    b\n\n    c\"\n",
		"single quotes":  "backup:\n  folder: 'a\n    b\n\n    c'\n",
		"flow":           "backup: {\n  folder:\n   a\n  }\n",
		"rules":          "mapping:\n  ticket:\n  - from: type\n    # why\n    to: type\n\n  -\n    from: status\n    to: status\n",
		"comment behind": "backup: # why\n  folder: a # why\n# end\n",
	} {
		t.Run(name, func(t *testing.T) {
			file := minimal + above + "polices: {}\n"
			_, err := Parse("a.yaml", []byte(file), testOptions())
			want := fmt.Sprintf("a.yaml:%d: polices: ", strings.Count(file, "\n"))
			if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("want %s, got:\n%v", want, err)
			}
		})
	}
}

// TestSchemaAndDecoderKnowTheSameKeys compares the tables, so that neither can be extended alone.
func TestSchemaAndDecoderKnowTheSameKeys(t *testing.T) {
	var root map[string]any
	if err := json.Unmarshal(migrations.Schema, &root); err != nil {
		t.Fatal(err)
	}
	at := func(path ...string) map[string]any {
		m := root
		for _, p := range path {
			m, _ = m[p].(map[string]any)
		}
		return m
	}
	places := map[string]map[string]any{
		"file":      root,
		"backup":    at("properties", "backup"),
		"people":    at("$defs", "mapping", "properties", "people"),
		"threshold": at("$defs", "policies", "properties", "threshold"),
	}
	for name := range keys {
		place := places[name]
		if place == nil {
			place = at("$defs", name)
		}
		props, _ := place["properties"].(map[string]any)
		if diff := cmp.Diff(slices.Sorted(slices.Values(keys[name])), slices.Sorted(maps.Keys(props))); diff != "" {
			t.Errorf("%s: the decoder (-) and the schema (+) differ:\n%s", name, diff)
		}
		if place["additionalProperties"] != false {
			t.Errorf("%s: the schema lets other keys pass", name)
		}
		for k, v := range props {
			m := v.(map[string]any)
			if m["description"] == nil && (m["$ref"] == nil || at("$defs", strings.TrimPrefix(m["$ref"].(string), "#/$defs/"))["description"] == nil) {
				t.Errorf("%s.%s has no description", name, k)
			}
		}
	}
	enum := func(m map[string]any) (out []string) {
		for _, v := range m["enum"].([]any) {
			out = append(out, v.(string))
		}
		return out
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(mapping.Transforms)), enum(at("$defs", "rule", "properties", "transform"))); diff != "" {
		t.Errorf("transforms: mapping (-) and the schema (+) differ:\n%s", diff)
	}
	fields := at("$defs", "field")["anyOf"].([]any)[0].(map[string]any)
	var known []string
	for _, f := range mapping.KnownFields() {
		known = append(known, string(f))
	}
	if diff := cmp.Diff(known, enum(fields)); diff != "" {
		t.Errorf("fields: mapping (-) and the schema (+) differ:\n%s", diff)
	}
}

// TestSecretsAreNeverPrinted plants a secret and prints everything in every way.
func TestSecretsAreNeverPrinted(t *testing.T) {
	f, err := Parse("conf/acme.yaml", []byte(rt("password: env:RT_SOURCE_PASSWORD, token: file:secrets/target")), testOptions())
	if err != nil {
		t.Fatal(err)
	}
	if f.Source.Config["password"] != planted || f.Source.Config["token"] != planted {
		t.Fatal("the secrets are not there")
	}
	undeclared := Desk{Config: desk.Config{"x": planted}}
	var buf bytes.Buffer
	for _, v := range []any{f, *f, f.Source, &f.Source, undeclared, []Desk{f.Source}, map[string]any{"d": f.Source}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&buf, verb+"\n", v)
		}
		fmt.Fprintln(&buf, v)
		slog.New(slog.NewTextHandler(&buf, nil)).Info("m", "v", v)
		slog.New(slog.NewJSONHandler(&buf, nil)).Info("m", "v", v)
		_ = json.NewEncoder(&buf).Encode(v)
	}
	for _, form := range []string{planted, fmt.Sprintf("%x", planted)} {
		if strings.Contains(buf.String(), form) {
			t.Errorf("the secret is printed:\n%s", buf.String())
		}
	}
	if got, want := f.Source.String(), "requesttracker{page:100 password:*** token:*** url:u user:x}"; got != want {
		t.Errorf("String: %s, want %s", got, want)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(minimal))
	for _, tc := range brokenFiles {
		f.Add([]byte(tc.file))
	}
	names, _ := fs.Glob(migrations.Examples, "*.yaml")
	for _, name := range names {
		data, _ := migrations.Examples.ReadFile(name)
		f.Add(data)
	}
	schema := compiled(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Parse("conf/acme.yaml", data, testOptions())
		if s := fmt.Sprint(err); strings.Contains(s, planted) && !bytes.Contains(data, []byte(planted)) {
			t.Fatalf("a secret is printed: %s", s)
		}
		if (file == nil) == (err == nil) {
			t.Fatalf("file %v, error %v", file, err)
		}
		if err == nil {
			if file.Migration.ID == "" || len(file.Migration.Scopes) == 0 || file.Source.Connector.Name == "" {
				t.Fatalf("an incomplete file: %v", file)
			}
			if err := valid(schema, data); err != nil {
				t.Fatalf("Parse accepts what the schema refuses: %v", err)
			}
			return
		}
		lines := 1 + bytes.Count(data, []byte("\n"))
		for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
			var m *Mistake
			if !errors.As(e, &m) || m.Message == "" || m.Line < 1 || m.Line > lines+1 || strings.ContainsFunc(m.Message, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Fatalf("mistake %#v in a file of %d lines", e, lines)
			}
		}
	})
}

func compiled(t testing.TB) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(migrations.Schema))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// valid asks the schema as an editor would.
func valid(s *jsonschema.Schema, data []byte) error {
	var v any
	if err := yaml.Unmarshal(data, &v); err != nil {
		return err
	}
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		return err
	}
	return s.Validate(doc)
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got); run with -update after looking at it:\n%s", path, diff)
	}
}
