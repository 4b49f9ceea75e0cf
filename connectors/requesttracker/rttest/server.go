package rttest

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	_ "modernc.org/sqlite" // the driver that database/sql knows as "sqlite"
)

//go:embed rt.sh
var script []byte

// Role says which side of a migration a server plays.
type Role string

// The roles. A target has the migration's custom fields and mails (scrips on); a source is made with its scrips off,
// because seeding is twice as fast without; Seed switches them on at its end.
const (
	SourceRole Role = "source"
	TargetRole Role = "target"
)

// Options of Up. The zero value makes a source over SQLite.
type Options struct {
	Role    Role
	Scrips  string // "on", "off" or "" for the role's default
	DB      string // "sqlite" (default) or "pg"; the oracle reads SQLite only
	Workers int    // web server processes; default 2
}

// MigrationUser is the account, on both desks, that the migration must use: superuser, its password is its name. Nobody
// else works under it, so whatever it did was the migration's doing. The agents' passwords are their names as well.
const MigrationUser = "deltadesk"

// Agents are the accounts of the people on both desks. agent4 has no real name.
var Agents = []string{"agent1", "agent2", "agent3", "agent4"}

// Server is one running Request Tracker.
type Server struct {
	Name           string
	URL            string // without a slash at the end; REST 2.0 is below /REST/2.0
	User, Password string // root
	DBFile         string // the SQLite file
	MailLog        string // one line per mail that the server would have sent
	ServerLog      string

	port   int
	dir    string
	script string
	opts   Options
	http   *http.Client
}

// Up brings an instance up (packages, database, fields, accounts, web server), or finds it up already. dir must be
// world-searchable and keeps the instance; the process must be root. It takes about a minute where the packages are
// missing and four seconds where they are not.
func Up(ctx context.Context, name string, port int, dir string, opts Options) (*Server, error) {
	if opts.Role == "" {
		opts.Role = SourceRole
	}
	if opts.Workers == 0 {
		opts.Workers = 2
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "rt.sh")
	if err := replaceFile(path, script, 0o755); err != nil {
		return nil, err
	}
	s := &Server{
		Name: name, port: port, dir: dir, script: path, opts: opts,
		http: &http.Client{Timeout: 2 * time.Minute, Transport: &http.Transport{
			MaxIdleConnsPerHost: 1, MaxConnsPerHost: opts.Workers,
			// Starman closes an idle connection after a second; a fresh one costs nothing here.
			DisableKeepAlives: true,
		}},
	}
	out, err := s.run(ctx, "up")
	if err != nil {
		return nil, err
	}
	kv := map[string]string{}
	for line := range strings.Lines(out) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			kv[k] = v
		}
	}
	s.URL, s.User, s.Password = kv["RT_URL"], kv["RT_USER"], kv["RT_PASSWORD"]
	s.DBFile, s.MailLog, s.ServerLog = kv["RT_DB_FILE"], kv["RT_MAIL_LOG"], kv["RT_SERVER_LOG"]
	if s.URL == "" || s.MailLog == "" {
		return nil, fmt.Errorf("rt.sh up %s: no access data in its answer", name)
	}
	return s, nil
}

// replaceFile writes a file that another process may be executing.
func replaceFile(path string, content []byte, mode os.FileMode) error {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, content) {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".rt.sh-*")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Chmod(mode), f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return os.Rename(f.Name(), path)
}

func (s *Server) run(ctx context.Context, action ...string) (string, error) {
	args := append([]string{s.Name, strconv.Itoa(s.port), s.dir}, action...)
	cmd := exec.CommandContext(ctx, s.script, args...)
	cmd.Env = append(os.Environ(), "RT_ROLE="+string(s.opts.Role), "RT_WORKERS="+strconv.Itoa(s.opts.Workers))
	if s.opts.Scrips != "" {
		cmd.Env = append(cmd.Env, "RT_SCRIPS="+s.opts.Scrips)
	}
	if s.opts.DB != "" {
		cmd.Env = append(cmd.Env, "RT_DB="+s.opts.DB)
	}
	// To files, not pipes: the web server inherits them and outlives the script.
	stdout, err := os.CreateTemp("", "rt.sh-out-*")
	if err != nil {
		return "", err
	}
	defer func() { _ = stdout.Close(); _ = os.Remove(stdout.Name()) }()
	stderr, err := os.CreateTemp("", "rt.sh-err-*")
	if err != nil {
		return "", err
	}
	defer func() { _ = stderr.Close(); _ = os.Remove(stderr.Name()) }()
	cmd.Stdout, cmd.Stderr = stdout, stderr
	err = cmd.Run()
	out, _ := os.ReadFile(stdout.Name())
	if err != nil {
		why, _ := os.ReadFile(stderr.Name())
		return "", fmt.Errorf("rt.sh %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(why))
	}
	return string(out), nil
}

// Stop stops the server and keeps its data; Up starts it again.
func (s *Server) Stop(ctx context.Context) error { _, err := s.run(ctx, "stop"); return err }

// Destroy stops the server and removes its data.
func (s *Server) Destroy(ctx context.Context) error { _, err := s.run(ctx, "destroy"); return err }

// Snapshot makes the present state the one that Reset returns to. Up takes one of the new, empty instance.
func (s *Server) Snapshot(ctx context.Context) error { _, err := s.run(ctx, "snapshot"); return err }

// Reset brings the database back to the last Snapshot and empties the mail log. It takes about a second; the server stays up.
func (s *Server) Reset(ctx context.Context) error { _, err := s.run(ctx, "reset"); return err }

// SetScrips switches every notification scrip of the server on or off.
func (s *Server) SetScrips(ctx context.Context, on bool) error {
	word := "off"
	if on {
		word = "on"
	}
	_, err := s.run(ctx, "scrips", word)
	return err
}

// AddRole makes a custom role of a queue, and a scrip that mails its members at each reply; neither can be made over REST. A
// role that is there already is left as it is.
func (s *Server) AddRole(ctx context.Context, role, queue string) error {
	const perl = `use RT -init; my ($role, $queue) = @ARGV; my $u = RT->SystemUser;
		my $r = RT::CustomRole->new($u); $r->Load($role); exit 0 if $r->id;
		my $q = RT::Queue->new($u); $q->Load($queue);
		sub must { die $_[1] unless $_[0] }
		must($r->Create(Name => $role, MaxValues => 0)); must($r->AddToObject(ObjectId => $q->id));
		my $a = RT::ScripAction->new($u);
		must($a->Create(Name => "Notify $role", ExecModule => 'Notify', Argument => 'RT::CustomRole-' . $r->id));
		must(RT::Scrip->new($u)->Create(Description => "On Correspond Notify $role", ScripCondition => 'On Correspond',
			ScripAction => $a->id, Template => 'Correspondence', Queue => 0));`
	_, err := s.run(ctx, "exec", "perl", "-I/usr/share/request-tracker5/lib", "-e", perl, "--", role, queue)
	return err
}

// readDB opens the database for reading.
func (s *Server) readDB() (*sql.DB, error) { return openDB(s.DBFile, true) }

func openDB(file string, readOnly bool) (*sql.DB, error) {
	dsn := "file:" + file + "?_pragma=busy_timeout(20000)"
	if readOnly {
		dsn += "&mode=ro"
	}
	return sql.Open("sqlite", dsn)
}

// call sends one REST 2.0 request as an account whose password is its name (or root), and decodes a JSON answer into out.
func (s *Server) call(ctx context.Context, as, method, path string, body, out any) (http.Header, error) {
	var rd io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		rd = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, s.URL+"/REST/2.0"+path, rd)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	return s.send(req, as, out)
}

// sentFile is a file as the script sends it.
type sentFile struct {
	Name, Type string
	Content    []byte
}

func (s *Server) send(req *http.Request, as string, out any) (http.Header, error) {
	password := as
	if as == s.User {
		password = s.Password
	}
	req.SetBasicAuth(as, password)
	res, err := s.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	if res.StatusCode >= 300 {
		return nil, fmt.Errorf("%s %s as %s: %s: %s", req.Method, req.URL.Path, as, res.Status, firstBytes(b, 300))
	}
	if out != nil {
		if err := json.Unmarshal(b, out); err != nil {
			return nil, fmt.Errorf("%s %s: %w in %s", req.Method, req.URL.Path, err, firstBytes(b, 300))
		}
	}
	return res.Header, nil
}

func firstBytes(b []byte, n int) string { return string(b[:min(n, len(b))]) }

// Mail hands a raw mail to the server's mail gateway, as rt-mailgate does. action is "correspond" or "comment".
func (s *Server) Mail(ctx context.Context, queue, action string, raw []byte) error {
	var buf bytes.Buffer
	w := multipart.NewWriter(&buf)
	for _, kv := range [][2]string{{"SessionType", "REST"}, {"queue", queue}, {"action", action}} {
		if err := w.WriteField(kv[0], kv[1]); err != nil {
			return err
		}
	}
	// A file name would make RT decode the message as text.
	p, err := w.CreatePart(map[string][]string{
		"Content-Disposition": {`form-data; name="message"`}, "Content-Type": {"application/octet-stream"},
	})
	if err == nil {
		_, err = p.Write(raw)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+"/REST/1.0/NoAuth/mail-gateway", &buf)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", w.FormDataContentType())
	res, err := s.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if line, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n"); res.StatusCode != http.StatusOK || line != "ok" {
		return fmt.Errorf("mail gateway of %s: %s: %s", s.Name, res.Status, firstBytes(b, 300))
	}
	return nil
}

// mailLine is one line of the mail log.
type mailLine struct {
	Txn, Ticket int64
	Type, By    string // of the transaction that caused the mail; empty where it has none
	To          string // all receivers
	Subject     string
}

// Mails reads the mail log.
func (s *Server) mails() ([]mailLine, error) {
	f, err := os.Open(s.MailLog)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []mailLine
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		var m mailLine
		for f := range strings.SplitSeq(sc.Text(), "\t") {
			k, v, _ := strings.Cut(f, ": ")
			switch k {
			case "Txn":
				m.Txn, _ = strconv.ParseInt(v, 10, 64)
			case "Ticket":
				m.Ticket, _ = strconv.ParseInt(v, 10, 64)
			case "Type":
				m.Type = v
			case "By":
				m.By = v
			case "To", "Cc", "Bcc":
				m.To = strings.Trim(m.To+","+v, ", ")
			case "Subject":
				m.Subject = v
			}
		}
		all = append(all, m)
	}
	return all, sc.Err()
}
