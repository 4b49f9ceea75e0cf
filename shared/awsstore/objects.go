package awsstore

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/deltadesk/deltadesk/shared/delta"
)

// An object's hash stands in its metadata. Where it comes in parts, metadata is sent before the hash is known: then it names a
// note, an object beside it that was complete before it, with the hash.
const (
	idMeta   = "id"     // of the Put that wrote the object
	hashMeta = "sha256" // hex
	noteMeta = "note"   // id of the note, instead of hashMeta
)

// maxNote is above what a note has.
const maxNote = 200

// Objects is the bucket of a Store.
type Objects struct {
	client  *s3.Client
	bucket  string
	uploads uploads
}

// Put implements delta.Objects. What fits into one part is one request. Beyond that parts are sent as they come in; a Put that
// is cut off leaves parts that nobody sees, which the bucket's rule for abandoned uploads removes. S3 checks every part
// against its SHA-256. An object has at most 10,000 parts, 48 GiB.
//
// All objects are stored as attachments of no particular type, because what is in them was written by strangers.
func (o *Objects) Put(ctx context.Context, key string, r io.Reader) (delta.Info, error) {
	info, err := o.put(ctx, key, r)
	if err != nil {
		return delta.Info{}, fmt.Errorf("put object %+q: %w", key, explain(err))
	}
	return info, nil
}

func (o *Objects) put(ctx context.Context, key string, r io.Reader) (delta.Info, error) {
	if err := checkObjectKey(key); err != nil {
		return delta.Info{}, err
	}
	r = untilDone{ctx, r}
	var first bytes.Buffer
	if _, err := io.CopyN(&first, r, partSize); errors.Is(err, io.EOF) {
		return o.putWhole(ctx, key, first.Bytes())
	} else if err != nil {
		return delta.Info{}, err
	}
	return o.putParts(ctx, key, io.MultiReader(&first, r))
}

// putWhole writes an object with one request.
func (o *Objects) putWhole(ctx context.Context, key string, content []byte) (delta.Info, error) {
	sum := sha256.Sum256(content)
	info := delta.Info{Size: int64(len(content)), SHA256: hex.EncodeToString(sum[:])}
	id := rand.Text()
	for pause := newPauses(); ; {
		watched, call := watch(ctx)
		_, err := o.client.PutObject(watched, &s3.PutObjectInput{
			Bucket: &o.bucket, Key: &key, Body: bytes.NewReader(content), IfNoneMatch: aws.String("*"),
			ChecksumAlgorithm: types.ChecksumAlgorithmSha256, ChecksumSHA256: aws.String(base64.StdEncoding.EncodeToString(sum[:])),
			ContentType: aws.String(contentType), ContentDisposition: aws.String(disposition),
			Metadata: map[string]string{idMeta: id, hashMeta: info.SHA256},
		})
		if status(err) == http.StatusConflict { // another Put of this key is under way
			if err := pause.wait(ctx); err != nil {
				return info, err
			}
			continue
		}
		return info, o.settle(ctx, key, id, call.doubtful(), err)
	}
}

// putParts writes an object with as many requests as it takes.
func (o *Objects) putParts(ctx context.Context, key string, r io.Reader) (delta.Info, error) {
	id := rand.Text()
	body := &noted{r: r, sum: sha256.New(), atEnd: func(info delta.Info) error {
		note := fmt.Sprintf("%s %d\n", info.SHA256, info.Size)
		_, err := o.putWhole(ctx, noteKey(key, id), []byte(note))
		return err
	}}
	watched, call := watch(ctx)
	err := o.uploads.upload(watched, key, map[string]string{idMeta: id, noteMeta: id}, body)
	if body.err != nil { // then nothing was completed, and this is why
		return body.info, body.err
	}
	// All tries of all parts are watched as one. A doubt too many only makes us look.
	return body.info, o.settle(ctx, key, id, call.doubtful() || status(err) == http.StatusNotFound, err)
}

// settle tells what became of the last request of a Put. Where an earlier try of it had no answer, the object that is in the way
// may be our own.
func (o *Objects) settle(ctx context.Context, key, id string, doubtful bool, err error) error {
	switch s := status(err); {
	case s == http.StatusPreconditionFailed && !doubtful:
		return delta.ErrExists
	case s != http.StatusPreconditionFailed && s != http.StatusConflict && s != http.StatusNotFound:
		return err
	}
	there, herr := o.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &o.bucket, Key: &key})
	switch {
	case status(herr) == http.StatusNotFound:
		return err
	case herr != nil:
		return errors.Join(err, herr)
	case there.Metadata[idMeta] == id:
		return nil
	}
	return delta.ErrExists
}

// Open implements delta.Objects. The reader checks the bytes against the hash that was taken when they were written, and
// fails at the end if they differ.
func (o *Objects) Open(ctx context.Context, key string) (io.ReadCloser, delta.Info, error) {
	r, info, err := o.open(ctx, key)
	if err != nil {
		return nil, delta.Info{}, fmt.Errorf("open object %+q: %w", key, explain(err))
	}
	return r, info, nil
}

func (o *Objects) open(ctx context.Context, key string) (_ io.ReadCloser, info delta.Info, err error) {
	if err := checkObjectKey(key); err != nil {
		return nil, info, err
	}
	out, err := o.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &o.bucket, Key: &key})
	if code(err) == "NoSuchKey" {
		return nil, info, delta.ErrNoObject
	} else if err != nil {
		return nil, info, err
	}
	info = delta.Info{Size: aws.ToInt64(out.ContentLength), SHA256: out.Metadata[hashMeta]}
	if note := out.Metadata[noteMeta]; note != "" {
		info.SHA256, err = o.readNote(ctx, noteKey(key, note), info.Size)
	}
	if err == nil && len(info.SHA256) != 2*sha256.Size {
		err = errors.New("it has no hash, so it was not written by deltadesk")
	}
	if err != nil {
		out.Body.Close()
		return nil, info, err
	}
	return &checked{r: out.Body, key: key, want: info, sum: sha256.New()}, info, nil
}

// readNote returns the hash that a note has for an object of this size.
func (o *Objects) readNote(ctx context.Context, key string, size int64) (string, error) {
	out, err := o.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &o.bucket, Key: &key})
	if err != nil {
		return "", fmt.Errorf("read its hash from %+q: %w", key, err)
	}
	defer out.Body.Close()
	text, err := io.ReadAll(io.LimitReader(out.Body, maxNote))
	if err != nil {
		return "", fmt.Errorf("read its hash from %+q: %w", key, err)
	}
	var hash string
	var noted int64
	if _, err := fmt.Sscanf(string(text), "%64s %d", &hash, &noted); err != nil || noted != size {
		return "", fmt.Errorf("it is damaged: %+q does not tell the hash of %d bytes", key, size)
	}
	return hash, nil
}

// noteKey is beside the object, so that both are kept equally long. A multipart object is as old as the beginning of its upload,
// so the note, which is younger, outlives it.
func noteKey(key, id string) string { return key + ".sha256-" + id }

func checkObjectKey(key string) error {
	switch {
	case key == "":
		return errors.New("the key is empty")
	case slices.ContainsFunc(strings.Split(key, "/"), func(s string) bool { return s == "" || s == "." || s == ".." }):
		return errors.New("a part of the key is empty or only dots, which not every client of S3 keeps as it is")
	}
	return checkText("key", key)
}

// untilDone reads until ctx ends.
type untilDone struct {
	ctx context.Context
	r   io.Reader
}

func (u untilDone) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.r.Read(p)
}

// noted hashes what is read, and at the end hands over what came of it before the reader is told that it is the end.
type noted struct {
	r     io.Reader
	sum   hash.Hash
	info  delta.Info
	atEnd func(delta.Info) error
	err   error // why there is no end
	ended bool
}

func (n *noted) Read(p []byte) (int, error) {
	if n.ended {
		return 0, io.EOF
	}
	m, err := n.r.Read(p)
	n.sum.Write(p[:m])
	n.info.Size += int64(m)
	if errors.Is(err, io.EOF) {
		n.info.SHA256 = hex.EncodeToString(n.sum.Sum(nil))
		if err := n.atEnd(n.info); err != nil {
			n.err = err
			return m, err
		}
		n.ended = true
		return m, io.EOF
	}
	if err != nil {
		n.err = err
	}
	return m, err
}

// checked reads an object and compares it with what was written.
type checked struct {
	r    io.ReadCloser
	key  string
	want delta.Info
	sum  hash.Hash
	size int64
}

func (c *checked) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.sum.Write(p[:n])
	c.size += int64(n)
	if errors.Is(err, io.EOF) && (c.size != c.want.Size || hex.EncodeToString(c.sum.Sum(nil)) != c.want.SHA256) {
		err = fmt.Errorf("read object %+q: it is damaged (%d bytes of %d, or other ones than were written)", c.key, c.size, c.want.Size)
	}
	return n, err
}

func (c *checked) Close() error { return c.r.Close() }
