package awsstore_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/deltadesk/deltadesk/shared/awsstore"
	"github.com/deltadesk/deltadesk/shared/delta"
)

// stored is a row as the table shows it.
func stored(part, sort, version, body string) map[string]any {
	return map[string]any{"part": map[string]any{"S": part}, "sort": map[string]any{"S": sort}, "version": map[string]any{"N": version}, "body": map[string]any{"S": body}}
}

// sentVersion is the version that a PutItem carries.
func sentVersion(r request) string {
	return r.body["Item"].(map[string]any)["version"].(map[string]any)["N"].(string)
}

// TestPutLostAnswer: the SDK tries again when an answer is lost, and then meets the row that its first try has written. That is
// no other writer; and what cannot be told is never called ErrStale, which says that nothing was written.
func TestPutLostAnswer(t *testing.T) {
	ours := func(_ int, r request) reply {
		return failed(400, "ConditionalCheckFailedException", "Item", stored("p", "s", sentVersion(r), `"mine"`))
	}
	sameVersion := func(_ int, r request) reply {
		return failed(400, "ConditionalCheckFailedException", "Item", stored("p", "s", sentVersion(r), `"theirs"`))
	}
	theirs := replies(failed(400, "ConditionalCheckFailedException", "Item", stored("p", "s", "99", `"theirs"`)))
	gone := replies(failed(400, "ConditionalCheckFailedException"))
	lost, broken, slow := reply{err: errLost}, failed(500, "InternalServerError"), failed(400, "ThrottlingException")
	cut := reply{status: 200, body: `{"Consumed`, cut: true}
	done, stale, doubt := "done", "stale", "doubt"
	for _, c := range []struct {
		name  string
		first []reply
		then  func(int, request) reply
		want  string
	}{
		{"somebody was faster", nil, theirs, stale},
		{"somebody was faster and deleted it", nil, gone, stale},
		{"lost, and what is there is ours", []reply{lost}, ours, done},
		{"half an answer, and what is there is ours", []reply{cut}, ours, done},
		{"failed inside, and what is there is ours", []reply{broken}, ours, done},
		{"lost, throttled, and what is there is ours", []reply{lost, slow}, ours, done},
		{"lost, and what is there is another's", []reply{lost}, theirs, doubt},
		{"lost, and the same version is another's", []reply{lost}, sameVersion, doubt},
		{"lost, and the same body is another's", []reply{lost}, replies(failed(400, "ConditionalCheckFailedException", "Item", stored("p", "s", "99", `"mine"`))), doubt},
		{"lost, and nothing is there", []reply{lost}, gone, doubt},
		{"failed inside, and what is there is another's", []reply{broken}, theirs, doubt},
		{"throttled, which is an answer, and somebody was faster", []reply{slow, slow}, theirs, stale},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &far{answer: func(n int, r request) reply {
					if n <= len(c.first) {
						return c.first[n-1]
					}
					return c.then(n, r)
				}}
				row := delta.Row{Key: delta.Key{Part: "p", Sort: "s"}, Version: 7, Body: []byte(`"mine"`)}
				v, err := against(t, f).Rows().Put(t.Context(), row)
				got := "other"
				switch {
				case err == nil && fmt.Sprint(v) == sentVersion(f.seen[0]):
					got = done
				case errors.Is(err, delta.ErrStale):
					got = stale
				case err != nil && strings.Contains(err.Error(), "an answer was lost"):
					got = doubt
				}
				if got != c.want {
					t.Errorf("Put: version %d, %v; want %s", v, err, c.want)
				}
				if len(f.seen) != len(c.first)+1 {
					t.Errorf("%d tries; want %d", len(f.seen), len(c.first)+1)
				}
			})
		})
	}
}

// TestDeleteLostAnswer: a row that is gone does not tell who deleted it.
func TestDeleteLostAnswer(t *testing.T) {
	for _, c := range []struct {
		name    string
		answers []reply
		stale   bool
	}{
		{"stale", []reply{failed(400, "ConditionalCheckFailedException")}, true},
		{"throttled and stale", []reply{failed(400, "ProvisionedThroughputExceededException"), failed(400, "ConditionalCheckFailedException")}, true},
		{"lost", []reply{{err: errLost}, failed(400, "ConditionalCheckFailedException")}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &far{answer: replies(c.answers...)}
				err := against(t, f).Rows().Delete(t.Context(), delta.Key{Part: "p", Sort: "s"}, 7)
				if err == nil || errors.Is(err, delta.ErrStale) != c.stale {
					t.Errorf("Delete: %v; want an error that is ErrStale: %v", err, c.stale)
				}
			})
		})
	}
}

// TestUnprocessed: what the table leaves of a batch is sent again, only that, after a pause, until it is done or time is up.
func TestUnprocessed(t *testing.T) {
	rows := []delta.Row{
		{Key: delta.Key{Part: "p", Sort: "1"}, Body: []byte("1")}, {Key: delta.Key{Part: "p", Sort: "2"}, Body: []byte("2")},
		{Key: delta.Key{Part: "p", Sort: "1"}, Body: []byte("3")}, // the last one of a key counts, and the table takes each key once
	}
	sorts := func(r request) (all []string) {
		switch items := r.body["RequestItems"].(map[string]any)["T"].(type) {
		case []any:
			for _, w := range items {
				it := w.(map[string]any)["PutRequest"].(map[string]any)["Item"].(map[string]any)
				all = append(all, it["sort"].(map[string]any)["S"].(string)+"="+it["body"].(map[string]any)["S"].(string))
			}
		case map[string]any:
			for _, k := range items["Keys"].([]any) {
				all = append(all, k.(map[string]any)["sort"].(map[string]any)["S"].(string))
			}
		}
		slices.Sort(all)
		return all
	}
	left := func(r request) reply { // the last of what was asked
		if items, ok := r.body["RequestItems"].(map[string]any)["T"].([]any); ok {
			return reply{body: map[string]any{"UnprocessedItems": map[string]any{"T": items[len(items)-1:]}}}
		}
		keys := r.body["RequestItems"].(map[string]any)["T"].(map[string]any)["Keys"].([]any)
		return reply{body: map[string]any{
			"Responses":       map[string]any{"T": []any{stored("p", "1", "5", "1")}},
			"UnprocessedKeys": map[string]any{"T": map[string]any{"Keys": keys[len(keys)-1:], "ConsistentRead": true}},
		}}
	}
	t.Run("put", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := &far{answer: func(n int, r request) reply {
				if n < 4 {
					return left(r)
				}
				return reply{body: map[string]any{}}
			}}
			if err := against(t, f).Rows().PutMany(t.Context(), rows); err != nil {
				t.Errorf("PutMany: %v", err)
			}
			if diff := cmp.Diff([]string{"1=3", "2=2"}, sorts(f.seen[0])); diff != "" || len(f.seen) != 4 || len(sorts(f.seen[1])) != 1 {
				t.Errorf("%d requests, the second with %q; the first one's -want +got:\n%s", len(f.seen), sorts(f.seen[1]), diff)
			}
		})
	})
	t.Run("get", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := &far{answer: func(n int, r request) reply {
				if n == 1 {
					return left(r)
				}
				return reply{body: map[string]any{"Responses": map[string]any{"T": []any{stored("p", "2", "6", "2")}}}}
			}}
			got, err := against(t, f).Rows().GetMany(t.Context(), []delta.Key{rows[0].Key, rows[1].Key, rows[0].Key})
			want := []delta.Row{{Key: rows[0].Key, Version: 5, Body: []byte("1")}, {Key: rows[1].Key, Version: 6, Body: []byte("2")}}
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("GetMany: %v, -want +got:\n%s", err, diff)
			}
			if diff := cmp.Diff([]string{"2"}, sorts(f.seen[1])); diff != "" {
				t.Errorf("the second request, -want +got:\n%s", diff)
			}
			if f.seen[1].body["RequestItems"].(map[string]any)["T"].(map[string]any)["ConsistentRead"] != true {
				t.Error("the second request is no consistent read")
			}
		})
	})
	for name, call := range map[string]func(context.Context, *awsstore.Rows) error{
		"put, time is up": func(ctx context.Context, r *awsstore.Rows) error { return r.PutMany(ctx, rows) },
		"get, time is up": func(ctx context.Context, r *awsstore.Rows) error {
			_, err := r.GetMany(ctx, []delta.Key{rows[0].Key})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				began := time.Now()
				f := &far{answer: func(_ int, r request) reply { return left(r) }}
				if err := call(ctx, against(t, f).Rows()); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "left 1 of them unprocessed") {
					t.Errorf("%v; want the deadline and how many are left", err)
				}
				if d := time.Since(began); d != time.Minute || len(f.seen) < 12 || len(f.seen) > 120 {
					t.Errorf("%d requests in %s; want pauses of up to five seconds for a minute", len(f.seen), d)
				}
			})
		})
	}
}

// TestThrottled: the SDK tries again and says so in the end; an environment that allows one attempt only is not heard.
func TestThrottled(t *testing.T) {
	t.Setenv("AWS_MAX_ATTEMPTS", "1")
	synctest.Test(t, func(t *testing.T) {
		f := &far{answer: replies(failed(400, "ThrottlingException"))}
		cfg := fakeConfig(f)
		cfg.RetryMaxAttempts = 1
		s, err := awsstore.Open(t.Context(), cfg, awsstore.Config{Table: "T", Bucket: "B", QueueURL: "https://sqs.test/1/Q"})
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Rows().Get(t.Context(), delta.Key{Part: "p", Sort: "s"})
		if err == nil || !strings.Contains(err.Error(), "throttled it 8 times") {
			t.Errorf("Get: %v; want the word that it was throttled", err)
		}
		want := []awsstore.Usage{{Service: "dynamodb", Operation: "GetItem", Action: "dynamodb:GetItem", Resource: "table/T", Requests: 8, Failed: 8, Throttled: 8}}
		if diff := cmp.Diff(want, s.Usage()); diff != "" {
			t.Errorf("usage, -want +got:\n%s", diff)
		}
	})
	synctest.Test(t, func(t *testing.T) { // no longer than the context
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		began := time.Now()
		f := &far{answer: replies(failed(503, "ServiceUnavailable"))}
		_, err := against(t, f).Rows().Get(ctx, delta.Key{Part: "p", Sort: "s"})
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 3*time.Second {
			t.Errorf("Get: %v after %s; want the deadline", err, time.Since(began))
		}
	})
}

// TestDamagedRow: a row that is not as we write them is an error, and its content is not repeated.
func TestDamagedRow(t *testing.T) {
	whole := func() map[string]any { return stored("p", "s", "5", "secret") }
	for name, change := range map[string]func(map[string]any){
		"no body":     func(m map[string]any) { delete(m, "body") },
		"binary body": func(m map[string]any) { m["body"] = map[string]any{"B": "c2VjcmV0"} },
		"no version":  func(m map[string]any) { delete(m, "version") },
		"version 0":   func(m map[string]any) { m["version"] = map[string]any{"N": "0"} },
		"half":        func(m map[string]any) { m["version"] = map[string]any{"N": "5.5"} },
		"no sort":     func(m map[string]any) { delete(m, "sort") },
	} {
		t.Run(name, func(t *testing.T) {
			it := whole()
			change(it)
			f := &far{answer: replies(reply{body: map[string]any{"Item": it}})}
			row, err := against(t, f).Rows().Get(t.Context(), delta.Key{Part: "p", Sort: "s"})
			if err == nil || errors.Is(err, delta.ErrNoRow) || strings.Contains(err.Error(), "secret") {
				t.Errorf("Get: %v, %v; want an error that does not repeat the body", row, err)
			}
		})
	}
}

// TestRangeFullPage: where the table says that there may be more and nobody knows, the last row is left for the next page.
func TestRangeFullPage(t *testing.T) {
	page := func(last bool, sorts ...string) reply {
		body := map[string]any{}
		var items []any
		for _, s := range sorts {
			items = append(items, stored("p", s, "5", "1"))
		}
		body["Items"] = items
		if !last {
			body["LastEvaluatedKey"] = map[string]any{"part": map[string]any{"S": "p"}, "sort": map[string]any{"S": "z"}}
		}
		return reply{body: body}
	}
	for _, c := range []struct {
		name    string
		answers []reply
		limit   int
		want    string
		more    bool
	}{
		{"whole", []reply{page(true, "a", "b")}, 2, "a b", false},
		{"limit", []reply{page(false, "a", "b", "c")}, 2, "a b", true},
		{"limit, and the end", []reply{page(true, "a", "b", "c")}, 2, "a b", true},
		{"full", []reply{page(false, "a", "b")}, 9, "a", true},
		{"one only, and no more", []reply{page(false, "a"), page(true)}, 9, "a", false},
		{"none yet", []reply{page(false), page(false, "a"), page(true, "b")}, 9, "a b", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &far{answer: replies(c.answers...)}
			rows, more, err := against(t, f).Rows().Range(t.Context(), "p", "", "", c.limit)
			var sorts []string
			for _, r := range rows {
				sorts = append(sorts, r.Sort)
			}
			if got := strings.Join(sorts, " "); err != nil || got != c.want || more != c.more || len(f.seen) != len(c.answers) {
				t.Errorf("Range: %q, more %v, %v after %d requests; want %q, more %v after %d", got, more, err, len(f.seen), c.want, c.more, len(c.answers))
			}
		})
	}
}
