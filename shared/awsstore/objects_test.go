package awsstore_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/deltadesk/deltadesk/shared/awsstore"
	"github.com/deltadesk/deltadesk/shared/delta"
)

func hashOf(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// TestObjectLostAnswer: a Put whose answer got lost meets its own object, and that is not another's.
func TestObjectLostAnswer(t *testing.T) {
	taken, busy := failedS3(412, "PreconditionFailed"), failedS3(409, "ConditionalRequestConflict")
	lost, broken, slow := reply{err: errLost}, failedS3(500, "InternalError"), failedS3(503, "SlowDown")
	for _, c := range []struct {
		name    string
		answers []reply // to PutObject
		there   string  // whose object HeadObject shows: ours, theirs or none
		want    error
		ops     string
	}{
		{"written", []reply{{}}, "", nil, "PUT"},
		{"taken", []reply{taken}, "theirs", delta.ErrExists, "PUT"},
		{"lost, and ours", []reply{lost, taken}, "ours", nil, "PUT PUT HEAD"},
		{"failed inside, and ours", []reply{broken, taken}, "ours", nil, "PUT PUT HEAD"},
		{"lost, and another's", []reply{lost, taken}, "theirs", delta.ErrExists, "PUT PUT HEAD"},
		{"slow down, then written", []reply{slow, slow, {}}, "", nil, "PUT PUT PUT"},
		{"another is at it, then written", []reply{busy, {}}, "", nil, "PUT PUT"},
		{"another is at it, then taken", []reply{busy, busy, taken}, "theirs", delta.ErrExists, "PUT PUT PUT"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				id, puts := "", 0
				f := &far{answer: func(_ int, r request) reply {
					if r.op == "HEAD" {
						return map[string]reply{
							"ours": {head: map[string]string{"x-amz-meta-id": id}}, "theirs": {head: map[string]string{"x-amz-meta-id": "x"}}, "none": {status: 404},
						}[c.there]
					}
					id = r.head.Get("x-amz-meta-id")
					puts++
					if r.head.Get("If-None-Match") != "*" || r.head.Get("X-Amz-Checksum-Sha256") == "" || r.head.Get("Content-Disposition") != "attachment" || r.raw != "content" {
						t.Errorf("PutObject with %v and %q; want a condition, a checksum and the content", r.head, r.raw)
					}
					return c.answers[puts-1]
				}}
				info, err := against(t, f).Objects().Put(t.Context(), "staging/a", strings.NewReader("content"))
				if !errors.Is(err, c.want) || err == nil && info != (delta.Info{Size: 7, SHA256: hashOf("content")}) {
					t.Errorf("Put: %v, %v; want %v", info, err, c.want)
				}
				if f.ops() != c.ops {
					t.Errorf("requests %s; want %s", f.ops(), c.ops)
				}
			})
		})
	}
}

// TestUploadInParts: the note with the hash is there before the object is complete; an answer that is lost at the end does not
// make our own object another's; what fails leaves nothing behind.
func TestUploadInParts(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789abcdef"), 11<<16) // 11 MiB: three parts
	lost, taken, no := reply{err: errLost}, failedS3(412, "PreconditionFailed"), failedS3(404, "NoSuchUpload")
	complete := reply{body: "<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>"}
	broken := errors.New("the line broke")
	for _, c := range []struct {
		name    string
		answers []reply // to CompleteMultipartUpload
		part    reply   // to the second part
		reader  io.Reader
		there   string
		want    error
		ops     string
	}{
		{"written", []reply{complete}, reply{}, bytes.NewReader(content), "", nil, "create part part part note complete"},
		{"taken", []reply{taken}, reply{}, bytes.NewReader(content), "theirs", delta.ErrExists, "create part part part note complete abort"},
		{"lost, and ours", []reply{lost, taken}, reply{}, bytes.NewReader(content), "ours", nil, "create part part part note complete complete abort head"},
		{"lost, the upload gone, and ours", []reply{lost, no}, reply{}, bytes.NewReader(content), "ours", nil, "create part part part note complete complete abort head"},
		{"lost, and another's", []reply{lost, taken}, reply{}, bytes.NewReader(content), "theirs", delta.ErrExists, "create part part part note complete complete abort head"},
		{"the reader fails", nil, reply{}, io.MultiReader(bytes.NewReader(content), failing{broken}), "", broken, "create abort"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				id, completes := "", 0
				var ops []string
				f := &far{answer: func(_ int, r request) reply {
					switch {
					case r.op == "HEAD":
						ops = append(ops, "head")
						return map[string]reply{"ours": {head: map[string]string{"x-amz-meta-id": id}}, "theirs": {head: map[string]string{"x-amz-meta-id": "x"}}}[c.there]
					case r.op == "DELETE":
						ops = append(ops, "abort")
						return reply{status: 204}
					case r.op == "PUT" && strings.Contains(r.path, ".sha256-"):
						ops = append(ops, "note")
						if want := fmt.Sprintf("%s %d\n", hashOf(string(content)), len(content)); r.raw != want || r.path != "/B/staging/a.sha256-"+id {
							t.Errorf("the note %s says %q; want %q", r.path, r.raw, want)
						}
					case r.op == "PUT":
						ops = append(ops, "part")
						if r.head.Get("X-Amz-Checksum-Sha256") == "" && !strings.Contains(r.head.Get("X-Amz-Trailer"), "sha256") {
							t.Errorf("a part without checksum: %v", r.head)
						}
					case r.head.Get("x-amz-meta-note") != "":
						ops = append(ops, "create")
						id = r.head.Get("x-amz-meta-note")
						return reply{body: "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"}
					default:
						ops = append(ops, "complete")
						if r.head.Get("If-None-Match") != "*" {
							t.Error("completed without a condition")
						}
						completes++
						return c.answers[completes-1]
					}
					return reply{head: map[string]string{"ETag": "e"}}
				}}
				info, err := against(t, f).Objects().Put(t.Context(), "staging/a", c.reader)
				if !errors.Is(err, c.want) || err == nil && info != (delta.Info{Size: int64(len(content)), SHA256: hashOf(string(content))}) {
					t.Errorf("Put: %v, %v; want %v", info, err, c.want)
				}
				if errors.Is(c.want, broken) { // how many parts were on their way is left open
					ops = slices.DeleteFunc(ops, func(op string) bool { return op == "part" })
				}
				if got := inOrder(ops); got != c.ops {
					t.Errorf("requests: %s; want %s", got, c.ops)
				}
			})
		})
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// inOrder puts the note behind the parts, beside which it is sent.
func inOrder(ops []string) string {
	s := strings.Join(ops, " ")
	if strings.Contains(s, "note") {
		s = strings.Replace(strings.Replace(s, "note ", "", 1), "complete", "note complete", 1)
		if strings.Index(strings.Join(ops, " "), "note") > strings.Index(strings.Join(ops, " "), "complete") {
			return "complete before the note"
		}
	}
	return s
}

// TestOpenDamaged: what does not have the bytes that were written is an error at its end, and never their end.
func TestOpenDamaged(t *testing.T) {
	good := map[string]string{"x-amz-meta-id": "i", "x-amz-meta-sha256": hashOf("content")}
	note := map[string]string{"x-amz-meta-id": "i", "x-amz-meta-note": "n"}
	for _, c := range []struct {
		name    string
		answers []reply
		open    string // in the error of Open, or of reading if empty
		read    string
	}{
		{"whole", []reply{{head: good, body: "content"}}, "", ""},
		{"other bytes", []reply{{head: good, body: "c0ntent"}}, "", "is damaged"},
		{"fewer bytes", []reply{{head: good, body: "conten"}}, "", "is damaged"},
		{"cut off", []reply{{head: good, body: "cont", cut: true}}, "", "unexpected EOF"},
		{"with a note", []reply{{head: note, body: "content"}, {body: hashOf("content") + " 7\n"}}, "", ""},
		{"with a note of other bytes", []reply{{head: note, body: "content"}, {body: hashOf("other") + " 7\n"}}, "", "is damaged"},
		{"with a note of another length", []reply{{head: note, body: "content"}, {body: hashOf("content") + " 8\n"}}, "does not tell the hash", ""},
		{"with an empty note", []reply{{head: note, body: "content"}, {}}, "does not tell the hash", ""},
		{"without its note", []reply{{head: note, body: "content"}, failedS3(404, "NoSuchKey")}, "read its hash", ""},
		{"of somebody else", []reply{{body: "content"}}, "not written by deltadesk", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &far{answer: replies(c.answers...)}
			r, _, err := against(t, f).Objects().Open(t.Context(), "staging/a")
			if c.open != "" || err != nil {
				if err == nil || c.open == "" || !strings.Contains(err.Error(), c.open) || errors.Is(err, delta.ErrNoObject) {
					t.Errorf("Open: %v; want %q", err, c.open)
				}
				return
			}
			got, err := io.ReadAll(r)
			if c.read == "" && (err != nil || string(got) != "content") || c.read != "" && (err == nil || !strings.Contains(err.Error(), c.read)) {
				t.Errorf("read %q, %v; want %q", got, err, c.read)
			}
			if err := r.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
	}
}

// TestUsage: requests are counted by what a role must be granted for them, and writes by what they cost.
func TestUsage(t *testing.T) {
	f := &far{answer: func(_ int, r request) reply {
		switch r.op {
		case "GET":
			return failedS3(404, "NoSuchKey")
		case "HEAD":
			return reply{head: map[string]string{"x-amz-meta-id": "x"}}
		case "GetItem":
			return reply{body: map[string]any{"ConsumedCapacity": map[string]any{"CapacityUnits": 2.5}}}
		case "PutItem":
			return reply{body: map[string]any{"ConsumedCapacity": map[string]any{"CapacityUnits": 7}}}
		}
		return reply{body: map[string]any{}}
	}}
	s := against(t, f)
	ctx := t.Context()
	row := func(sort string, n int) delta.Row {
		return delta.Row{Key: delta.Key{Part: "p", Sort: sort}, Body: []byte(`"` + strings.Repeat("x", n-2) + `"`)}
	}
	if _, err := s.Rows().Get(ctx, row("a", 9).Key); !errors.Is(err, delta.ErrNoRow) {
		t.Errorf("Get: %v", err)
	}
	if _, err := s.Rows().Put(ctx, row("a", 100)); err != nil {
		t.Errorf("Put: %v", err)
	}
	// The names have 19 bytes, the keys 2, a version of 19 digits 11.
	if err := s.Rows().PutMany(ctx, []delta.Row{row("a", 1024-32), row("b", 1025-32), row("c", 10)}); err != nil {
		t.Errorf("PutMany: %v", err)
	}
	if _, _, err := s.Objects().Open(ctx, "staging/acme/a"); !errors.Is(err, delta.ErrNoObject) {
		t.Errorf("Open: %v", err)
	}
	if _, err := s.Objects().Put(ctx, "plan/acme/a", strings.NewReader("x")); err != nil {
		t.Errorf("Put: %v", err)
	}
	if err := s.Queue().Send(ctx, []delta.Message{{Migration: "acme"}}, 0); err != nil {
		t.Errorf("Send: %v", err)
	}
	want := []awsstore.Usage{
		{Service: "dynamodb", Operation: "BatchWriteItem", Action: "dynamodb:BatchWriteItem", Resource: "table/T", Requests: 1, WriteUnits: 4},
		{Service: "dynamodb", Operation: "GetItem", Action: "dynamodb:GetItem", Resource: "table/T", Requests: 1, ReadUnits: 2.5},
		{Service: "dynamodb", Operation: "PutItem", Action: "dynamodb:PutItem", Resource: "table/T", Requests: 1, WriteUnits: 7},
		{Service: "s3", Operation: "GetObject", Action: "s3:GetObject", Resource: "B/staging/*", Requests: 1},
		{Service: "s3", Operation: "GetObject", Action: "s3:ListBucket", Resource: "B"},
		{Service: "s3", Operation: "PutObject", Action: "s3:PutObject", Resource: "B/plan/*", Requests: 1},
		{Service: "sqs", Operation: "SendMessageBatch", Action: "sqs:SendMessage", Resource: "Q", Requests: 1},
	}
	if diff := cmp.Diff(want, s.Usage()); diff != "" {
		t.Errorf("usage, -want +got:\n%s", diff)
	}
	calls := map[string]int{"dynamodb.BatchWriteItem": 1, "dynamodb.GetItem": 1, "dynamodb.PutItem": 1, "s3.GetObject": 1, "s3.PutObject": 1, "sqs.SendMessageBatch": 1}
	if diff := cmp.Diff(calls, s.Calls()); diff != "" {
		t.Errorf("calls, -want +got:\n%s", diff)
	}
}

// TestErrorsSayWhatToDo: what a person has to see to is said.
func TestErrorsSayWhatToDo(t *testing.T) {
	for _, c := range []struct {
		answer reply
		want   string
	}{
		{failedS3(403, "AccessDenied"), "access denied; check the role's policy"},
		{failedS3(404, "NoSuchBucket"), "does not exist; check the stack's outputs"},
	} {
		f := &far{answer: replies(c.answer)}
		if _, _, err := against(t, f).Objects().Open(t.Context(), "staging/a"); err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, delta.ErrNoObject) {
			t.Errorf("Open: %v; want %q", err, c.want)
		}
	}
	f := &far{answer: replies(failed(400, "ResourceNotFoundException"))}
	if _, err := against(t, f).Rows().Get(t.Context(), delta.Key{Part: "p", Sort: "s"}); err == nil || !strings.Contains(err.Error(), "does not exist") || errors.Is(err, delta.ErrNoRow) {
		t.Errorf("Get: %v; want the word that the table does not exist", err)
	}
}

// TestOpenMistakes: all mistakes are told at once.
func TestOpenMistakes(t *testing.T) {
	_, err := awsstore.Open(t.Context(), fakeConfig(nil), awsstore.Config{QueueURL: "queue"})
	for _, want := range []string{"the table's name is missing", "the bucket's name is missing", "the queue's URL is no URL"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open: %v; want %q in it", err, want)
		}
	}
	cfg := fakeConfig(nil)
	cfg.Region = ""
	if _, err := awsstore.Open(t.Context(), cfg, awsstore.Config{Table: "T", Bucket: "B", QueueURL: "https://sqs.test/1/Q"}); err == nil || !strings.Contains(err.Error(), "AWS_REGION") {
		t.Errorf("Open without a region: %v; want to be told", err)
	}
}

// TestSilence: a server that takes a request and says nothing more ends by itself, although nobody set a deadline.
func TestSilence(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
		}
	}()
	err = awsstore.AskSilent(context.WithoutCancel(t.Context()), "http://"+l.Addr().String(), 20*time.Millisecond)
	var timeout interface{ Timeout() bool }
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("asked a silent server: %v; want a timeout", err)
	}
}

// TestPrefixes: the bucket's rules are made after these.
func TestPrefixes(t *testing.T) {
	want := []awsstore.Prefix{{Name: "staging/", Days: 10}, {Name: "undo/", Days: 30}, {Name: "plan/", Days: 90}, {Name: "reports/", Days: 90}, {Name: "config/"}, {Name: "archive/"}}
	if diff := cmp.Diff(want, awsstore.Prefixes()); diff != "" {
		t.Errorf("prefixes, -want +got:\n%s", diff)
	}
}
