//go:build aws

package awsstore_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/oklog/ulid/v2"

	"github.com/deltadesk/deltadesk/connectors/archive"
	"github.com/deltadesk/deltadesk/shared/awsstore"
	"github.com/deltadesk/deltadesk/shared/awsstore/awstest"
	"github.com/deltadesk/deltadesk/shared/delta"
	"github.com/deltadesk/deltadesk/shared/desk"
	"github.com/deltadesk/deltadesk/shared/mapping"
)

// folder makes an archive of n tickets with four entries each; the first entry of each has the file, if there is one.
func folder(t *testing.T, dir string, n int, file *desk.File) {
	t.Helper()
	d := openTarget(t, dir)
	at := time.Now().UTC().Add(-24 * time.Hour).Truncate(time.Second)
	ann := desk.Ref{Kind: desk.Person, ID: "ann"}
	if _, err := d.Create(t.Context(), desk.Record{Ref: ann, Fields: desk.Fields{desk.Name: {"Ann"}, desk.Email: {"ann@x.example"}}}); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		rec := desk.Record{Ref: desk.Ref{Kind: desk.Ticket, ID: strconv.Itoa(i + 1)}, Fields: desk.Fields{
			desk.Subject: {fmt.Sprint("ticket ", i)}, desk.Status: {"open"}, desk.Requester: {"ann"},
		}}
		for k := range 4 {
			e := desk.Entry{ID: fmt.Sprintf("%d-%d", i+1, k), Public: true, At: at.Add(time.Duration(k) * time.Minute), Author: desk.Author{ID: "ann", Name: "Ann"}, Body: "it burns", Type: "text/plain"}
			if k == 0 && file != nil {
				e.Files = []desk.File{*file}
			}
			rec.Entries = append(rec.Entries, e)
		}
		if _, err := d.Create(t.Context(), rec); err != nil {
			t.Fatal(err)
		}
	}
}

func config(dir string) desk.Config {
	return desk.Config{"folder": dir, "fsync": "false", "page_size": "1000"}
}

func openTarget(t *testing.T, dir string) desk.Target {
	t.Helper()
	d, err := archive.Connector.NewTarget(config(dir), desk.Deps{Migration: "acme"})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// cloud is one process with a store in AWS between two archives.
type cloud struct {
	store  *awsstore.Store
	queue  *awstest.Receiver
	engine *delta.Engine
}

func newCloud(t *testing.T, cfg aws.Config, stack awsstore.Config, from, to string) *cloud {
	t.Helper()
	source, err := archive.Connector.NewSource(config(from), desk.Deps{Migration: "acme"})
	if err != nil {
		t.Fatal(err)
	}
	s := awstest.Open(t, cfg, stack)
	e, err := delta.New(delta.Config{
		Migration: delta.Migration{
			ID: "acme", Hash: "h1", Policies: delta.DefaultPolicies(), Rules: mapping.Rules{People: mapping.PersonRule{Unmatched: "create"}},
			Scopes: map[string]desk.Scope{"all": {}}, Windows: map[string]delta.Window{"main": {Scope: "all", Mode: delta.CreateUpdate}},
		},
		SourceID: "old", TargetID: "new", NewID: func() string { return ulid.Make().String() },
		Source: source, Target: openTarget(t, to), SourceSide: archive.Connector.SourceSide(config(from)), TargetSide: archive.Connector.TargetSide(config(to)),
		Rows: s.Rows(), Objects: s.Objects(), Queue: s.Queue(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return &cloud{s, awstest.NewReceiver(s, cfg, stack), e}
}

// run carries a run through, with batches of ten as Lambda hands them out, and returns what it sent to AWS by service and
// operation, and how many write units that took.
func (c *cloud) run(t *testing.T, q delta.Request) (calls map[string]int, units float64) {
	t.Helper()
	ctx := t.Context()
	before, unitsBefore := c.store.Calls(), c.units()
	r, _, err := c.engine.Start(ctx, q)
	if err != nil {
		t.Fatal(err)
	}
	for {
		sent := c.store.Calls()["sqs.SendMessageBatch"]
		p, err := c.engine.Step(ctx, r.ID)
		if err != nil {
			t.Fatal(err)
		}
		if p.Run.Status == delta.Verified {
			break
		}
		if p.Run.Status.Ended() {
			t.Fatalf("run %s ended %s: %s", r.ID, p.Run.Status, p.Run.Why)
		}
		for range c.store.Calls()["sqs.SendMessageBatch"] - sent {
			ms, err := c.queue.Receive(ctx, 10)
			if err != nil {
				t.Fatal(err)
			}
			for _, back := range c.engine.Work(ctx, ctx, ms) {
				t.Fatalf("message %v came back: %s", back.Message, back.Why)
			}
		}
	}
	calls = c.store.Calls()
	for k, n := range before {
		if calls[k] -= n; calls[k] == 0 {
			delete(calls, k)
		}
	}
	return calls, c.units() - unitsBefore
}

func (c *cloud) units() (n float64) {
	for _, u := range c.store.Usage() {
		n += u.WriteUnits
	}
	return n
}

func sum(calls map[string]int) (n int) {
	for _, k := range calls {
		n += k
	}
	return n
}

// What a new ticket without files takes, by the bars that are derived in the design: two writes of its ledger row (claim and
// commit), and by tens the outcome rows, the raw records and the messages. A row is about a kilobyte, so a write is a unit,
// and each outcome row is one.
const (
	leastCalls = 2 + 0.1 + 0.1 + 0.1
	leastUnits = 2 + 1
	// The engine also reads the outcome row and the ledger row of each message, and the run of each batch.
	engineReads = 1 + 1 + 0.1
	slack       = 1.15
	// What a run takes however many tickets it has, and a delta without changes.
	mostPerRun  = 64
	mostForNone = 13
)

// TestCallsPerTicket counts what a full run sends for each ticket, beside what it sends for each run, and what a delta without
// changes sends.
func TestCallsPerTicket(t *testing.T) {
	cfg := awstest.AWS(t)
	const small, large = 100, 1000
	calls, units := map[int]int{}, map[int]float64{}
	for _, n := range []int{small, large} {
		from := filepath.Join(t.TempDir(), "old")
		folder(t, from, n, nil)
		c := newCloud(t, cfg, awstest.Stack(t, cfg), from, filepath.Join(t.TempDir(), "new"))
		by, w := c.run(t, delta.Request{Kind: delta.Full, Scope: "all"})
		calls[n], units[n] = sum(by), w
		t.Logf("%d tickets: calls=%d (%.2f a ticket) write units=%g (%.2f a ticket): %v", n, calls[n], float64(calls[n])/float64(n), w, w/float64(n), by)
		if got := w / float64(n); got > slack*leastUnits {
			t.Errorf("%d tickets: %.2f write units a ticket; want at most %.2f", n, got, slack*leastUnits)
		}
		by, _ = c.run(t, delta.Request{Kind: delta.Delta, Window: "main"})
		t.Logf("a delta without changes: calls=%d: %v", sum(by), by)
		if sum(by) > mostForNone || by["s3.PutObject"]+by["sqs.SendMessageBatch"]+by["dynamodb.BatchWriteItem"] > 0 {
			t.Errorf("a delta without changes: %v; want at most %d calls, no object, no message and no outcome", by, mostForNone)
		}
	}
	perTicket := float64(calls[large]-calls[small]) / (large - small)
	perRun := float64(calls[small]) - small*perTicket
	t.Logf("calls: %.2f for each ticket (least %.2f; the engine reads %.2f more), %.0f for each run", perTicket, leastCalls, engineReads, perRun)
	if perTicket > slack*leastCalls+engineReads || perRun > mostPerRun {
		t.Errorf("%.2f calls for each ticket and %.0f for each run; want at most %.2f and %d", perTicket, perRun, slack*leastCalls+engineReads, mostPerRun)
	}
}

// TestLargeFile moves a ticket with a file of 200 MB, in a process of its own with a small heap.
func TestLargeFile(t *testing.T) {
	const size, allowed = 200 << 20, 100 << 20
	if os.Getenv("DELTADESK_LARGE_FILE") != "" {
		largeFile(t)
		return
	}
	cfg := awstest.AWS(t)
	dir := t.TempDir()
	digest := sha256.New()
	folder(t, filepath.Join(dir, "old"), 1, &desk.File{ID: "1-0-0", Name: "film.bin", Type: "application/octet-stream", Size: size, Open: func(context.Context) (io.ReadCloser, error) {
		digest.Reset()
		return io.NopCloser(io.TeeReader(&blocks{left: size}, digest)), nil
	}})
	stack := awstest.Stack(t, cfg)
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestLargeFile$", "-test.v", "-test.count=1")
	child.Env = append(os.Environ(), "GOMEMLIMIT=64MiB", "DELTADESK_LARGE_FILE="+dir, "DELTADESK_STACK="+stack.Table, "DELTADESK_QUEUE="+stack.QueueURL)
	out, err := child.CombinedOutput()
	if err != nil {
		t.Fatalf("the worker: %v\n%s", err, out)
	}
	peak := regexp.MustCompile(`peak=(\d+) staged=(\w+) seconds=([\d.]+)`).FindSubmatch(out)
	if peak == nil {
		t.Fatalf("the worker says nothing of its memory:\n%s", out)
	}
	kb, err := strconv.Atoi(string(peak[1]))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("a file of %d MB went through a worker with GOMEMLIMIT=64MiB: peak RSS %d MB, %s s", size>>20, kb>>10, peak[3])
	if kb<<10 > allowed {
		t.Errorf("the worker took %d MB; want at most %d", kb>>10, allowed>>20)
	}
	if want := hex.EncodeToString(digest.Sum(nil)); string(peak[2]) != want {
		t.Errorf("the target's file has the hash %s; want %s", peak[2], want)
	}
}

// largeFile is the process that moves it.
func largeFile(t *testing.T) {
	dir, name := os.Getenv("DELTADESK_LARGE_FILE"), os.Getenv("DELTADESK_STACK")
	began := time.Now()
	c := newCloud(t, awstest.AWS(t), awsstore.Config{Table: name, Bucket: name, QueueURL: os.Getenv("DELTADESK_QUEUE"), PathStyle: true},
		filepath.Join(dir, "old"), filepath.Join(dir, "new"))
	c.run(t, delta.Request{Kind: delta.Full, Scope: "all"})
	took := time.Since(began)
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	peak := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	if peak == nil {
		t.Fatal("the system does not tell the peak of memory")
	}
	files, err := filepath.Glob(filepath.Join(dir, "new", "files", "*", "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("the target has %d files, %v; want 1", len(files), err)
	}
	f, err := os.Open(files[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	digest := sha256.New()
	if _, err := io.Copy(digest, f); err != nil {
		t.Fatal(err)
	}
	fmt.Printf("peak=%s staged=%x seconds=%.1f\n", peak[1], digest.Sum(nil), took.Seconds())
}

// blocks gives bytes that differ from block to block.
type blocks struct {
	left, n int
}

func (b *blocks) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	p = p[:min(len(p), b.left)]
	b.left -= len(p)
	b.n++
	copy(p, bytes.Repeat([]byte(strconv.Itoa(b.n)+","), len(p)/2+1))
	return len(p), nil
}
