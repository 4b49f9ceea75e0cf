package awsstore_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/deltadesk/deltadesk/shared/awsstore"
	"github.com/deltadesk/deltadesk/shared/delta"
)

// TestSendPartly: what the queue did not take is sent again where that was no fault of the message.
func TestSendPartly(t *testing.T) {
	ms := []delta.Message{{Migration: "acme", Run: "r", Seq: 1}, {Migration: "acme", Run: "r", Seq: 2}, {Migration: "acme", Run: "r", Seq: 3}}
	refuse := func(sender bool, ids ...string) reply {
		var all []any
		for _, id := range ids {
			all = append(all, map[string]any{"Id": id, "Code": "ItIsSo", "SenderFault": sender})
		}
		return reply{body: map[string]any{"Failed": all, "Successful": []any{}}}
	}
	ids := func(r request) (s string) {
		for _, e := range r.body["Entries"].([]any) {
			s += e.(map[string]any)["Id"].(string)
		}
		return s
	}
	synctest.Test(t, func(t *testing.T) {
		f := &far{answer: replies(refuse(false, "0", "2"), refuse(false, "2"), reply{body: map[string]any{}})}
		if err := against(t, f).Queue().Send(t.Context(), ms, 1500*time.Millisecond); err != nil {
			t.Errorf("Send: %v", err)
		}
		var got []string
		for _, r := range f.seen {
			got = append(got, ids(r))
		}
		if diff := cmp.Diff([]string{"012", "02", "2"}, got); diff != "" {
			t.Errorf("sent, -want +got:\n%s", diff)
		}
		if d := f.seen[2].body["Entries"].([]any)[0].(map[string]any)["DelaySeconds"]; d != 2.0 {
			t.Errorf("a delay of 1.5 s became %v s; want 2, as it must not come sooner", d)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		f := &far{answer: replies(refuse(true, "1"))}
		if err := against(t, f).Queue().Send(t.Context(), ms, 0); err == nil || !strings.Contains(err.Error(), "entry 2: ItIsSo") || len(f.seen) != 1 {
			t.Errorf("Send: %v after %d requests; want the refusal at once", err, len(f.seen))
		}
	})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		f := &far{answer: replies(refuse(false, "1"))}
		if err := against(t, f).Queue().Send(ctx, ms, 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Send: %v; want the deadline", err)
		}
	})
}

func TestParseMessage(t *testing.T) {
	m := delta.Message{Migration: "acme", Run: "01KB", Page: 3, Seq: 4, Sent: 5}
	body, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := awsstore.ParseMessage(string(body)); err != nil || got != m {
		t.Errorf("%s is %v, %v", body, got, err)
	}
	for name, body := range map[string]string{
		"empty":          ``,
		"no JSON":        `secret`,
		"an array":       `[{"m":"secret","r":"r","p":0,"s":0,"t":0}]`,
		"null":           `null`,
		"nothing in it":  `{}`,
		"one is missing": `{"m":"secret","r":"r","p":0,"s":0}`,
		"one is null":    `{"m":"secret","r":"r","p":0,"s":0,"t":null}`,
		"one too many":   `{"m":"secret","r":"r","p":0,"s":0,"t":0,"x":"secret"}`,
		"upper case":     `{"M":"secret","r":"r","p":0,"s":0,"t":0}`,
		"no migration":   `{"m":"","r":"secret","p":0,"s":0,"t":0}`,
		"a negative":     `{"m":"secret","r":"r","p":-1,"s":0,"t":0}`,
		"a fraction":     `{"m":"secret","r":"r","p":1.5,"s":0,"t":0}`,
		"a text":         `{"m":"secret","r":"r","p":"1","s":0,"t":0}`,
		"a number":       `{"m":1,"r":"secret","p":0,"s":0,"t":0}`,
		"two":            `{"m":"secret","r":"r","p":0,"s":0,"t":0}{}`,
		"too long":       `{"m":"secret","r":"r","p":0,"s":0,"t":0` + strings.Repeat(" ", 5000) + `}`,
		"from a console": `{"key1":"value1","key2":"secret"}`,
	} {
		if got, err := awsstore.ParseMessage(body); err == nil || strings.Contains(err.Error(), "secret") || got != (delta.Message{}) {
			t.Errorf("%s: %v, %v; want an error that does not repeat it", name, got, err)
		}
	}
}

// FuzzParseMessage: what is taken is a message, and comes out as it went in.
func FuzzParseMessage(f *testing.F) {
	f.Add(`{"m":"acme","r":"01KB","p":3,"s":4,"t":5}`)
	f.Add(`{"m":"acme","r":"","p":0,"s":0,"t":0,"m":"other"}`)
	f.Add(`{"t":9223372036854775807,"s":0,"p":0,"r":"\u0000","m":"\ud800"}`)
	f.Fuzz(func(t *testing.T, body string) {
		m, err := awsstore.ParseMessage(body)
		if err != nil {
			if len(body) > 12 && strings.Contains(err.Error(), body) {
				t.Errorf("the error repeats what came: %v", err)
			}
			return
		}
		again, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := awsstore.ParseMessage(string(again)); err != nil || got != m {
			t.Errorf("%q is %v, written %s, read %v, %v", body, m, again, got, err)
		}
	})
}
