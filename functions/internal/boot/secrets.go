package boot

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// Desk is one side of a migration: a connector and its settings, secrets resolved. However it is printed, logged or turned
// into JSON, it shows the names of secret options and never their values. Config itself does not have that protection.
type Desk struct {
	Connector desk.Connector
	Config    desk.Config
}

// String returns the connector's name and the options, secrets as "***".
func (d Desk) String() string {
	shown := d.shown()
	var b strings.Builder
	b.WriteString(cmp.Or(d.Connector.Name, "no connector"))
	for i, k := range slices.Sorted(maps.Keys(shown)) {
		b.WriteString([]string{"{", " "}[min(i, 1)] + k + ":" + shown[k])
	}
	if len(shown) > 0 {
		b.WriteByte('}')
	}
	return b.String()
}

// Format makes every verb print String.
func (d Desk) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, d.String()) }

// MarshalJSON writes the connector's name and the options, secrets as "***".
func (d Desk) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]any{"connector": d.Connector.Name, "options": d.shown()})
}

// LogValue logs String.
func (d Desk) LogValue() slog.Value { return slog.StringValue(d.String()) }

// shown returns the options that may be seen. An option that the connector does not declare may not.
func (d Desk) shown() map[string]string {
	out := map[string]string{}
	for k := range d.Config {
		out[k] = "***"
	}
	for _, o := range d.Connector.Options {
		if v, ok := d.Config[o.Name]; ok && !o.Secret {
			out[o.Name] = v
		}
	}
	return out
}

var envPattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// option returns the value of an option. Any option may be given as env:NAME or file:PATH, a secret one must be. What a
// file says in the place of a secret is not repeated in a mistake, unless it is such a reference.
func (d *decoder) option(n *node, o desk.Option) (value string, ok bool) {
	s, ok := d.single(n)
	if !ok {
		return "", false
	}
	if name, is := strings.CutPrefix(s, "env:"); is {
		return d.env(n, name)
	}
	if name, is := strings.CutPrefix(s, "file:"); is {
		return d.secretFile(n, name)
	}
	if o.Secret {
		d.say(n, "a secret must not stand in this file; put it into an environment variable and write env:NAME here, or into a file of its own and write file:PATH")
		return "", false
	}
	return s, true
}

func (d *decoder) env(n *node, name string) (string, bool) {
	if !envPattern.MatchString(name) {
		d.say(n, "after env: comes the name of an environment variable: letters, digits and underscores")
		return "", false
	}
	v, ok := d.opts.LookupEnv(name)
	switch {
	case !ok:
		d.say(n, "the environment variable %s is not set; set it before you start", name)
	case v == "":
		d.say(n, "the environment variable %s is empty; set it before you start", name)
	}
	return v, v != ""
}

func (d *decoder) secretFile(n *node, name string) (string, bool) {
	if name == "" {
		d.say(n, "after file: comes the path of a file, relative to the migration file")
		return "", false
	}
	path := d.resolve(name)
	b, err := d.opts.ReadFile(path)
	if err != nil {
		why := "cannot be read"
		var perr *fs.PathError
		if errors.As(err, &perr) {
			why += " (" + perr.Err.Error() + ")"
		}
		d.say(n, "the file %s %s; make it readable or correct the path, which is relative to the migration file", path, why)
		return "", false
	}
	v := strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	if v == "" {
		d.say(n, "the file %s is empty; the first thing in it must be the value", path)
	}
	return v, v != ""
}
