package archive

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/deltadesk/deltadesk/shared/desk"
)

// The names in the folder. README.md describes them; layoutVersion changes with them.
const (
	layoutVersion = 1

	deskFile    = "desk.json"
	journalFile = "journal.log"
	pendingFile = "pending.json"
	fieldsFile  = "fields.json"
	lockFile    = "lock"
	recordsDir  = "records"
	filesDir    = "files"
	tmpDir      = "tmp"
)

// identity is the content of desk.json.
type identity struct {
	Format string    `json:"format"` // always "deltadesk-archive"
	Layout int       `json:"layout"`
	ID     string    `json:"id"` // 32 hex digits, made once; cursors of other archives are told by it
	Made   time.Time `json:"made"`
}

const format = "deltadesk-archive"

var hexID = regexp.MustCompile(`^[0-9a-f]{32}$`)

// parseIdentity reads desk.json.
func parseIdentity(b []byte) (identity, error) {
	var id identity
	if err := json.Unmarshal(b, &id); err != nil {
		return identity{}, fmt.Errorf("%s is damaged: %w", deskFile, jsonPlace(err))
	}
	switch {
	case id.Format != format:
		return identity{}, fmt.Errorf("%s is not that of an archive", deskFile)
	case id.Layout != layoutVersion:
		return identity{}, fmt.Errorf("the archive has layout %d, this program knows layout %d", id.Layout, layoutVersion)
	case !hexID.MatchString(id.ID):
		return identity{}, fmt.Errorf("%s is damaged: it has no valid id", deskFile)
	}
	return id, nil
}

// makeFolder makes an empty archive, unless there is one.
func makeFolder(s settings) error {
	fail := func(err error) error { return fmt.Errorf("archive: make %s: %w", s.dir, err) }
	if _, err := os.Lstat(filepath.Join(s.dir, deskFile)); err == nil {
		return nil
	}
	names, err := os.ReadDir(s.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fail(err)
	}
	for _, n := range names {
		switch n.Name() {
		case recordsDir, filesDir, tmpDir, lockFile: // another process is making it, or died while it did
		case deskFile:
			return nil
		default:
			return fail(errors.New("the folder is not empty and is no archive; name an empty folder"))
		}
	}
	for _, d := range []string{"", recordsDir, filesDir, tmpDir} {
		if err := os.MkdirAll(filepath.Join(s.dir, d), 0o700); err != nil {
			return fail(err)
		}
	}
	lock, err := s.lock(context.Background())
	if err != nil {
		return fail(err)
	}
	defer lock.Close()
	if _, err := s.lstat(deskFile); err == nil {
		return nil
	}
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	b, err := json.MarshalIndent(identity{Format: format, Layout: layoutVersion, ID: hex.EncodeToString(id[:]), Made: time.Now().UTC().Truncate(time.Second)}, "", "  ")
	if err != nil {
		return fail(err)
	}
	if err := s.replace(deskFile, append(b, '\n')); err != nil {
		return fail(err)
	}
	return nil
}

// recordPath says where a record lies, relative to the folder. Two ids never share a path, no id leaves the folder, and
// ids that differ in case only are different files also where the file system does not tell them apart.
func recordPath(ref desk.Ref) (string, error) {
	switch ref.Kind {
	case desk.Company, desk.Person, desk.Ticket:
	default:
		return "", fmt.Errorf("an archive has no records of kind %q", string(ref.Kind))
	}
	sum := sha256.Sum256([]byte(ref.ID))
	shard := hex.EncodeToString(sum[:1])
	return filepath.Join(recordsDir, string(ref.Kind), shard, fileName(ref.ID)+".json"), nil
}

// fileName writes an id as a file name: lower-case letters, digits, - and _ stay, every other byte becomes %XX. A name that
// would be too long for some file systems becomes %% and the id's SHA-256.
func fileName(id string) string {
	var b strings.Builder
	for i := range len(id) {
		switch c := id[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	if b.Len() == 0 || b.Len() > 150 {
		sum := sha256.Sum256([]byte(id))
		return "%%" + hex.EncodeToString(sum[:])
	}
	return b.String()
}

var hexSHA = regexp.MustCompile(`^[0-9a-f]{64}$`)

// blobPath says where the bytes with this hash lie, relative to the folder.
func blobPath(sha string) (string, error) {
	if !hexSHA.MatchString(sha) {
		return "", errors.New("not a SHA-256 in hex")
	}
	return filepath.Join(filesDir, sha[:2], sha[2:]), nil
}

func hexSum(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)) }

type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// decodeStrict reads exactly one JSON value and knows every member of it, so that nothing a newer program wrote gets lost
// when the file is written again.
func decodeStrict(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return jsonPlace(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the JSON value")
	}
	return nil
}

// jsonPlace says where JSON is wrong without quoting any of it.
func jsonPlace(err error) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Errorf("not JSON at byte %d", syntax.Offset)
	case errors.As(err, &kind):
		return fmt.Errorf("wrong type at byte %d", kind.Offset)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return errors.New("the JSON ends too early")
	}
	return errors.New("JSON with unknown members or values")
}
