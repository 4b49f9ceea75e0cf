package awsstore_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/deltadesk/deltadesk/shared/awsstore"
)

// errLost stands for an answer that gets lost on the way, after the far side has done what it was asked.
var errLost = errors.New("read tcp: connection reset by peer")

// request is one try as the far side sees it.
type request struct {
	op   string // "PutItem", "SendMessageBatch"; for S3 the method
	path string
	head http.Header
	body map[string]any // of DynamoDB and SQS
	raw  string
}

// reply is what comes back: an error, or a status with a body.
type reply struct {
	err    error
	status int
	head   map[string]string
	body   any  // a string as it is, all else as JSON
	cut    bool // the connection ends within the body
}

// failed is an error answer of DynamoDB or SQS.
func failed(status int, code string, more ...any) reply {
	body := map[string]any{"__type": "com.amazonaws#" + code, "message": "so it is"}
	for i := 0; i < len(more); i += 2 {
		body[more[i].(string)] = more[i+1]
	}
	return reply{status: status, body: body}
}

// failedS3 is an error answer of S3.
func failedS3(status int, code string) reply {
	return reply{status: status, body: "<Error><Code>" + code + "</Code><Message>so it is</Message></Error>"}
}

// far plays AWS's side: it answers the nth try of all with the nth reply, or with what a function makes of it.
type far struct {
	mu     sync.Mutex
	seen   []request
	answer func(n int, r request) reply
}

func (f *far) Do(req *http.Request) (*http.Response, error) {
	r := request{op: req.Method, path: req.URL.Path, head: req.Header}
	if req.Body != nil {
		raw, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, err
		}
		r.raw = string(raw)
	}
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	if target := req.Header.Get("X-Amz-Target"); target != "" {
		_, r.op, _ = strings.Cut(target, ".")
		if err := json.Unmarshal([]byte(r.raw), &r.body); err != nil {
			return nil, err
		}
	}
	f.mu.Lock()
	f.seen = append(f.seen, r)
	a := f.answer(len(f.seen), r)
	f.mu.Unlock()
	if a.err != nil {
		return nil, a.err
	}
	body, ok := a.body.(string)
	if !ok && a.body != nil {
		b, err := json.Marshal(a.body)
		if err != nil {
			return nil, err
		}
		body = string(b)
	}
	res := &http.Response{StatusCode: max(a.status, 200), Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)), Request: req}
	res.Header.Set("Content-Length", fmt.Sprint(len(body)))
	if a.cut {
		res.Body = io.NopCloser(io.MultiReader(strings.NewReader(body), iotest.ErrReader(io.ErrUnexpectedEOF)))
	}
	res.Status = fmt.Sprint(res.StatusCode)
	for k, v := range a.head {
		res.Header.Set(k, v)
	}
	return res, nil
}

// ops are the operations of all tries, in order.
func (f *far) ops() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var ops []string
	for _, r := range f.seen {
		ops = append(ops, r.op)
	}
	return strings.Join(ops, " ")
}

// replies answers with these, one after the other; the last one again and again.
func replies(all ...reply) func(int, request) reply {
	return func(n int, _ request) reply { return all[min(n, len(all))-1] }
}

// against opens a store whose far side is f.
func against(t testing.TB, f *far) *awsstore.Store {
	t.Helper()
	s, err := awsstore.Open(t.Context(), fakeConfig(f), awsstore.Config{Table: "T", Bucket: "B", QueueURL: "https://sqs.test/1/Q", PathStyle: true})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func fakeConfig(f *far) aws.Config {
	return aws.Config{Region: "eu-central-1", HTTPClient: f, BaseEndpoint: aws.String("https://aws.test"), Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: "a", SecretAccessKey: "s"}, nil
	})}
}
