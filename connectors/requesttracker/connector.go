package requesttracker

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/deltadesk/deltadesk/connectors/internal/rest"
	"github.com/deltadesk/deltadesk/shared/desk"
)

// Connector is Request Tracker 5, as source and target.
var Connector = desk.Connector{
	Name: "requesttracker",
	Options: append(rest.ConnectionOptions(),
		desk.Option{Name: "user", Help: "login of an account with the SuperUser right: RT hides rows from others without saying so"},
		desk.Option{Name: "password", Help: "its password; a target needs it, a source may use token instead", Secret: true},
		desk.Option{Name: "token", Help: "source only: an authentication token instead of user and password", Secret: true},
		desk.Option{Name: "source_id_field", Help: "target: ticket custom field for the source's id", Default: defaultIDField},
		desk.Option{Name: "source_url_field", Help: "target: ticket custom field for the source's address", Default: defaultURLField},
		desk.Option{Name: "statuses", Help: "comma-separated statuses of lifecycles other than RT's default one, for checking mappings; RT cannot be asked"},
		desk.Option{Name: "page_size", Help: "records per page of a listing, 1 to 100", Default: "100"},
		desk.Option{Name: "max_file", Help: "target: largest file in bytes that RT takes ($MaxAttachmentSize), 0 for no limit", Default: "0"},
		desk.Option{Name: "settle", Help: "how long RT may go on with a request whose client has died", Default: "60s"},
		desk.Option{Name: "mail_guard", Help: `"off" leaves out what keeps RT from mailing; for the test that proves that mails are noticed, and only on a loopback address`, Default: "on"},
	),
	NewSource: func(c desk.Config, d desk.Deps) (desk.Source, error) {
		a, err := newAccount(c, d)
		if err != nil {
			return nil, err
		}
		return &source{account: a}, nil
	},
	NewTarget: func(c desk.Config, d desk.Deps) (desk.Target, error) {
		a, err := newAccount(c, d)
		if err != nil {
			return nil, err
		}
		if a.opt.token != "" {
			return nil, errors.New("requesttracker: a target needs user and password: RT's update form takes no token")
		}
		return &target{account: a, queues: map[string]cached[[]string]{}, users: map[string]cached[wireUser]{}}, nil
	},
	SourceSide: func(c desk.Config) desk.Traits {
		o, _ := readOptions(c)
		return desk.Traits{
			Kinds: []desk.Kind{desk.Person, desk.Ticket}, SeesDeletes: true, KeepsTimes: true, KeepsAuthors: true,
			KeepsHistory: true, StampResolution: time.Second, Settle: o.settle,
		}
	},
	TargetSide: func(c desk.Config) desk.Traits {
		o, _ := readOptions(c)
		return desk.Traits{
			Kinds: []desk.Kind{desk.Person, desk.Ticket}, SeesDeletes: true,
			EntryMarker:     "the first line of the entry's body",
			StampResolution: time.Second, Settle: o.settle, MaxFile: o.maxFile,
			Losses: map[string]string{
				lossTime:     "An entry's own time is when it was written into RT; the original time stands in its first line.",
				lossAuthor:   "Entries are written by the migration's account; the author stands in their first line.",
				lossUnkept:   "When a ticket was made RT is told, and goes by its own clock all the same since Debian's 5.0.3+dfsg-3~deb12u7; an entry has that time in its first line, or an internal note says it.",
				lossUpdated:  "A ticket's LastUpdated is when the migration last wrote it.",
				lossNumbers:  "Transactions and attachments get numbers of the target.",
				lossHistory:  "Status changes of the past cannot be written; they go into one internal note.",
				lossFileName: "REST takes no file without a name, nor one with quotes, slashes or backslashes; RT's pages show a name like it, and the exact one is kept in the file's Content-Type.",
				lossRevised:  "RT changes no entry once it is written; one that was changed, redacted or removed in the source afterwards is held until somebody has seen to it by hand.",
				lossTextType: "RT would change the bytes of a text that is not UTF-8; it is kept as application/octet-stream.",
			},
		}
	},
}

const (
	defaultIDField  = "Deltadesk Source ID"
	defaultURLField = "Deltadesk Source URL"

	lossTime     = "entry-time"
	lossUnkept   = "unkept" // as the engine calls it
	lossAuthor   = "entry-author"
	lossUpdated  = "last-updated"
	lossNumbers  = "transaction-numbers"
	lossHistory  = "status-history"
	lossTextType = "text-type"
	lossRevised  = "entry-revised"
	lossFileName = "file-name"
)

// optionNames are those of Connector.Options, which cannot be asked while it is being made.
var optionNames = []string{"url", "allow_http", "allow_private", "ca_bundle", "connections", "user", "password", "token", "source_id_field",

	"source_url_field", "statuses", "page_size", "max_file", "settle", "mail_guard"}

type options struct {
	conn           rest.Connection
	user, password string
	token          string
	idField        string
	urlField       string
	statuses       []string
	pageSize       int
	maxFile        int64
	settle         time.Duration
	unguarded      bool
}

func readOptions(c desk.Config) (options, error) {
	var errs []error
	conn, err := rest.ConnectionOf(c)
	if err != nil {
		errs = append(errs, err)
	}
	o := options{
		conn: conn, user: c["user"], password: c["password"], token: c["token"],
		idField:  cmp.Or(c["source_id_field"], defaultIDField),
		urlField: cmp.Or(c["source_url_field"], defaultURLField),
	}
	if o.token == "" && (o.user == "" || o.password == "") {
		errs = append(errs, errors.New("user and password (or, for a source, token) are missing"))
	}
	if o.token != "" && o.password != "" {
		errs = append(errs, errors.New("token and password exclude each other"))
	}
	for _, f := range []string{o.idField, o.urlField} {
		if strings.ContainsAny(f, "{}'\\\"") {
			errs = append(errs, errors.New("names of custom fields must not hold braces, quotes or backslashes"))
		}
	}
	for s := range strings.SplitSeq(c["statuses"], ",") {
		if s = strings.TrimSpace(s); s != "" {
			o.statuses = append(o.statuses, s)
		}
	}
	if o.pageSize, err = strconv.Atoi(cmp.Or(c["page_size"], strconv.Itoa(perPage))); err != nil || o.pageSize < 1 || o.pageSize > perPage {
		o.pageSize, errs = perPage, append(errs, errors.New("page_size must be 1 to 100"))
	}
	if o.maxFile, err = strconv.ParseInt(cmp.Or(c["max_file"], "0"), 10, 64); err != nil || o.maxFile < 0 {
		o.maxFile, errs = 0, append(errs, errors.New("max_file must be a number of bytes"))
	}
	o.settle, err = time.ParseDuration(cmp.Or(c["settle"], "60s"))
	if err != nil || o.settle < 0 {
		o.settle, errs = time.Minute, append(errs, errors.New("settle must be a duration such as 60s"))
	}
	switch c["mail_guard"] {
	case "", "on":
	case "off":
		if o.unguarded = conn.URL != nil && loopback(conn.URL.Hostname()); !o.unguarded {
			errs = append(errs, errors.New("mail_guard can be off for a loopback address only"))
		}
	default:
		errs = append(errs, errors.New("mail_guard must be on or off"))
	}
	for name := range c {
		if !slices.Contains(optionNames, name) {
			errs = append(errs, fmt.Errorf("unknown option %q", name))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return o, fmt.Errorf("requesttracker: %w", err)
	}
	return o, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
