package deltatest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/deltadesk/deltadesk/shared/delta"
)

var rowRules = []storeRule{
	{"rows/absent", rowsAbsent},
	{"rows/put and get", rowsPutGet},
	{"rows/put makes once", rowsPutMakesOnce},
	{"rows/put stale", rowsPutStale},
	{"rows/put race", rowsPutRace},
	{"rows/put counts", rowsPutCounts},
	{"rows/delete", rowsDelete},
	{"rows/delete stale", rowsDeleteStale},
	{"rows/made again", rowsMadeAgain},
	{"rows/get many", rowsGetMany},
	{"rows/put many", rowsPutMany},
	{"rows/limits", rowsLimits},
	{"rows/odd keys", rowsOddKeys},
	{"rows/keys apart", rowsKeysApart},
	{"rows/large bodies", rowsLargeBodies},
	{"rows/own copy", rowsOwnCopy},
	{"rows/range order", rowsRangeOrder},
	{"rows/range prefix", rowsRangePrefix},
	{"rows/range pages", rowsRangePages},
	{"rows/range while written", rowsRangeWhileWritten},
	{"rows/range large", rowsRangeLarge},
	{"rows/scan", rowsScan},
	{"rows/scan pages", rowsScanPages},
	{"rows/scan while written", rowsScanWhileWritten},
	{"rows/scan large", rowsScanLarge},
	{"rows/cancelled", rowsCancelled},
	{"rows/kept", rowsKept},
}

func rowsAbsent(t testing.TB, s Stores) {
	ctx, part := t.Context(), newName()
	if row, err := s.Rows.Get(ctx, delta.Key{Part: part, Sort: "x"}); !errors.Is(err, delta.ErrNoRow) {
		t.Errorf("Get of an absent row: %v, %v; want ErrNoRow", row, err)
	}
	if rows, err := s.Rows.GetMany(ctx, []delta.Key{{Part: part, Sort: "x"}}); err != nil || len(rows) > 0 {
		t.Errorf("GetMany of an absent row: %v, %v; want none", rows, err)
	}
	if rows, more, err := s.Rows.Range(ctx, part, "", "", 10); err != nil || len(rows) > 0 || more {
		t.Errorf("Range of an absent partition: %v, more %v, %v; want none", rows, more, err)
	}
	if err := s.Rows.Delete(ctx, delta.Key{Part: part, Sort: "x"}, 1); !errors.Is(err, delta.ErrStale) {
		t.Errorf("Delete of an absent row: %v; want ErrStale", err)
	}
	if _, err := s.Rows.Put(ctx, newRow(part, "x", 1, "1")); !errors.Is(err, delta.ErrStale) {
		t.Errorf("Put of an absent row that was read at version 1: %v; want ErrStale", err)
	}
	wantNoRow(t, s, delta.Key{Part: part, Sort: "x"})
}

func rowsPutGet(t testing.TB, s Stores) {
	row := newRow(newName(), "x", 0, "")
	for _, body := range []string{`{"b": 1, "a":12345678901234567890 }`, `"üñ😀\u0000 <&>"`, `{}`} {
		row.Body = []byte(body) // kept byte for byte
		row.Version = mustPut(t, s, row)
		wantRow(t, s, row)
	}
}

func rowsPutMakesOnce(t testing.TB, s Stores) {
	row := newRow(newName(), "x", 0, "1")
	row.Version = mustPut(t, s, row)
	if _, err := s.Rows.Put(t.Context(), newRow(row.Part, "x", 0, "2")); !errors.Is(err, delta.ErrStale) {
		t.Errorf("Put with version 0 over a row: %v; want ErrStale", err)
	}
	wantRow(t, s, row)
}

func rowsPutStale(t testing.TB, s Stores) {
	row := newRow(newName(), "x", 0, "1")
	old := mustPut(t, s, row)
	row.Version = old
	row.Version = mustPut(t, s, row)
	for _, v := range []int64{old, row.Version + 1} {
		if _, err := s.Rows.Put(t.Context(), newRow(row.Part, "x", v, "2")); !errors.Is(err, delta.ErrStale) {
			t.Errorf("Put with version %d over version %d: %v; want ErrStale", v, row.Version, err)
		}
		wantRow(t, s, row)
	}
}

// rowsPutRace: of 32 writers that read the same version exactly one wins, also when the row is new.
func rowsPutRace(t testing.TB, s Stores) {
	row := newRow(newName(), "x", 0, "")
	for range 4 {
		read := row.Version
		var winners []delta.Row
		var mu sync.Mutex
		race(32, func(i int) {
			mine := newRow(row.Part, "x", read, strconv.Itoa(i))
			v, err := s.Rows.Put(t.Context(), mine)
			switch {
			case err == nil && v > read:
				mine.Version = v
				mu.Lock()
				winners = append(winners, mine)
				mu.Unlock()
			case !errors.Is(err, delta.ErrStale):
				t.Errorf("Put in a race: version %d, %v; want a version above %d or ErrStale", v, err, read)
			}
		})
		if len(winners) != 1 {
			t.Fatalf("%d of 32 writers over version %d won; want exactly one", len(winners), read)
		}
		row = winners[0]
		wantRow(t, s, row)
	}
}

// rowsPutCounts: increments by read and conditional write are never lost.
func rowsPutCounts(t testing.TB, s Stores) {
	const writers, each = 8, 5
	key := delta.Key{Part: newName(), Sort: "x"}
	race(writers, func(int) {
		for done := 0; done < each; {
			row, err := s.Rows.Get(t.Context(), key)
			if errors.Is(err, delta.ErrNoRow) {
				row = delta.Row{Key: key, Body: []byte("0")}
			} else if err != nil {
				t.Errorf("Get: %v", err)
				return
			}
			n, _ := strconv.Atoi(string(row.Body))
			row.Body = []byte(strconv.Itoa(n + 1))
			switch v, err := s.Rows.Put(t.Context(), row); {
			case err == nil && v > row.Version:
				done++
			case err == nil:
				t.Errorf("Put over version %d gave version %d; want it to grow", row.Version, v)
				return
			case !errors.Is(err, delta.ErrStale):
				t.Errorf("Put: %v", err)
				return
			}
		}
	})
	if row, err := s.Rows.Get(t.Context(), key); err != nil || string(row.Body) != strconv.Itoa(writers*each) {
		t.Errorf("after %d increments there is %.80s, %v", writers*each, row.Body, err)
	}
}

func rowsDelete(t testing.TB, s Stores) {
	part := newName()
	other := newRow(part, "xx", 0, "1")
	other.Version = mustPut(t, s, other)
	row := newRow(part, "x", 0, "1")
	row.Version = mustPut(t, s, row)
	row.Version = mustPut(t, s, row)
	if err := s.Rows.Delete(t.Context(), row.Key, row.Version); err != nil {
		t.Fatalf("Delete: %v", err)
	}
	wantNoRow(t, s, row.Key)
	if rows, _, err := s.Rows.Range(t.Context(), part, "", "", 10); err != nil || len(rows) != 1 {
		t.Errorf("Range after Delete: %v, %v; want the other row", rows, err)
	}
	if err := s.Rows.Delete(t.Context(), row.Key, row.Version); !errors.Is(err, delta.ErrStale) {
		t.Errorf("second Delete: %v; want ErrStale", err)
	}
	wantRow(t, s, other)
	if _, err := s.Rows.Put(t.Context(), newRow(part, "x", row.Version, "2")); !errors.Is(err, delta.ErrStale) {
		t.Errorf("Put of the deleted row: %v; want ErrStale", err)
	}
	row.Version = 0
	mustPut(t, s, row)
}

func rowsDeleteStale(t testing.TB, s Stores) {
	row := newRow(newName(), "x", 0, "1")
	old := mustPut(t, s, row)
	row.Version = old
	row.Version = mustPut(t, s, row)
	for _, v := range []int64{0, old, row.Version + 1} {
		if err := s.Rows.Delete(t.Context(), row.Key, v); !errors.Is(err, delta.ErrStale) {
			t.Errorf("Delete with version %d of version %d: %v; want ErrStale", v, row.Version, err)
		}
		wantRow(t, s, row)
	}
}

// rowsMadeAgain: whoever read a row before it was deleted can do nothing to the one that was made again, whichever process
// made it.
func rowsMadeAgain(t testing.TB, s Stores) {
	row := newRow(newName(), "x", 0, "1")
	var had []int64 // the versions of those that were deleted
	for life := range 4 {
		var has []int64
		row.Version = 0
		for range 3 {
			row.Version = mustPut(t, s, row)
			has = append(has, row.Version)
			for _, v := range had {
				if v == row.Version {
					t.Fatalf("the row has version %d again after it was deleted and made again", v)
				}
				if _, err := s.Rows.Put(t.Context(), newRow(row.Part, "x", v, "2")); !errors.Is(err, delta.ErrStale) {
					t.Errorf("Put with a version from before the row was made again: %v; want ErrStale", err)
				}
				if err := s.Rows.Delete(t.Context(), row.Key, v); !errors.Is(err, delta.ErrStale) {
					t.Errorf("Delete with a version from before the row was made again: %v; want ErrStale", err)
				}
			}
			wantRow(t, s, row)
		}
		if err := s.Rows.Delete(t.Context(), row.Key, row.Version); err != nil {
			t.Fatalf("Delete: %v", err)
		}
		had = append(had, has...)
		if life == 1 {
			s = s.Reopen(t)
		}
	}
}

func rowsGetMany(t testing.TB, s Stores) {
	part := newName()
	want, versions := map[delta.Key]string{}, map[delta.Key]int64{}
	var keys []delta.Key
	for i := range 100 {
		// Two partitions, and every third row is absent.
		key := delta.Key{Part: part + strconv.Itoa(i%2), Sort: strconv.Itoa(i)}
		keys = append(keys, key)
		if i%3 == 0 {
			continue
		}
		want[key] = strconv.Itoa(i)
		versions[key] = mustPut(t, s, delta.Row{Key: key, Body: []byte(want[key])})
	}
	check := func(keys []delta.Key, want map[delta.Key]string) {
		t.Helper()
		rows, err := s.Rows.GetMany(t.Context(), keys)
		if err != nil {
			t.Fatalf("GetMany of %d keys: %v", len(keys), err)
		}
		got := map[delta.Key]string{}
		for _, row := range rows {
			got[row.Key] = string(row.Body)
			if row.Version != versions[row.Key] {
				t.Errorf("GetMany gave version %d; want %d", row.Version, versions[row.Key])
			}
		}
		if diff := cmp.Diff(want, got); diff != "" || len(rows) != len(want) {
			t.Errorf("GetMany of %d keys gave %d rows, -want +got:\n%s", len(keys), len(rows), diff)
		}
	}
	check(keys, want)
	check(nil, map[delta.Key]string{})
	check([]delta.Key{keys[1], keys[0], keys[1]}, map[delta.Key]string{keys[1]: "1"}) // a key that comes twice is no fault
	if _, err := s.Rows.GetMany(t.Context(), append(keys, delta.Key{Part: part, Sort: "one too many"})); err == nil {
		t.Error("GetMany of 101 keys: no error; want a refusal, as one request cannot ask for more than 100")
	}
}

func rowsPutMany(t testing.TB, s Stores) {
	part := newName()
	mustPut(t, s, newRow(part, "03", mustPut(t, s, newRow(part, "03", 0, `"old"`)), `"old"`))
	var rows []delta.Row
	for i := range 25 {
		rows = append(rows, newRow(part, fmt.Sprintf("%02d", i), 0, strconv.Itoa(i)))
	}
	for range 2 { // again is no fault
		if err := s.Rows.PutMany(t.Context(), rows); err != nil {
			t.Fatalf("PutMany: %v", err)
		}
	}
	got, _, err := s.Rows.Range(t.Context(), part, "", "", 100)
	if err != nil || len(got) != 25 {
		t.Fatalf("Range after PutMany: %d rows, %v; want 25", len(got), err)
	}
	for i, row := range got {
		if row.Sort != rows[i].Sort || !bytes.Equal(row.Body, rows[i].Body) {
			t.Errorf("PutMany left %s with %s; want %s with %s", row.Sort, row.Body, rows[i].Sort, rows[i].Body)
		}
		// Which version they have is left open, but it is one that a Put can use.
		if v, err := s.Rows.Put(t.Context(), row); err != nil || row.Version < 1 || v <= row.Version {
			t.Errorf("Put after PutMany, read at version %d: version %d, %v", row.Version, v, err)
		}
	}
	if err := s.Rows.PutMany(t.Context(), nil); err != nil {
		t.Errorf("PutMany of no rows: %v", err)
	}
	if err := s.Rows.PutMany(t.Context(), append(rows, newRow(part, "one too many", 0, "1"))); err == nil {
		t.Error("PutMany of 26 rows: no error; want a refusal, as one request cannot carry more than 25")
	}
	wantNoRow(t, s, delta.Key{Part: part, Sort: "one too many"})
}

// rowsLimits: what one store could not take, no store takes.
func rowsLimits(t testing.TB, s Stores) {
	part := newName()
	long := strings.Repeat("x", 501)
	for _, row := range []delta.Row{
		newRow("", "x", 0, "1"),
		newRow(part, "", 0, "1"),
		newRow(part+long, "x", 0, "1"),
		newRow(part, long, 0, "1"),
		newRow(part, "ü", 0, "1"),
		newRow(part, "a\nb", 0, "1"),
		newRow(part, "a\x7f", 0, "1"),
		newRow(part, "x", -1, "1"),
		newRow(part, "x", 0, `"`+strings.Repeat("x", 1<<20)+`"`),
	} {
		if _, err := s.Rows.Put(t.Context(), row); err == nil || errors.Is(err, delta.ErrStale) {
			t.Errorf("Put of part %.40q sort %.40q version %d with %d bytes: %v; want a refusal", row.Part, row.Sort, row.Version, len(row.Body), err)
		}
		if row.Version < 0 {
			continue
		}
		if err := s.Rows.PutMany(t.Context(), []delta.Row{row}); err == nil {
			t.Errorf("PutMany of part %.40q sort %.40q with %d bytes: no error; want a refusal", row.Part, row.Sort, len(row.Body))
		}
	}
	// Nothing can be under a bad key; asking for it is a mistake all the same, and some stores would not even understand.
	for _, key := range []delta.Key{{Part: part}, {Sort: "x"}, {Part: part, Sort: long}, {Part: part, Sort: "ü"}} {
		if _, err := s.Rows.Get(t.Context(), key); err == nil || errors.Is(err, delta.ErrNoRow) {
			t.Errorf("Get of %.40q: %v; want a refusal", key, err)
		}
		if _, err := s.Rows.GetMany(t.Context(), []delta.Key{key}); err == nil {
			t.Errorf("GetMany of %.40q: no error; want a refusal", key)
		}
		if err := s.Rows.Delete(t.Context(), key, 1); err == nil || errors.Is(err, delta.ErrStale) {
			t.Errorf("Delete of %.40q: %v; want a refusal", key, err)
		}
	}
	if _, _, err := s.Rows.Range(t.Context(), "", "", "", 1); err == nil {
		t.Error("Range over no part: no error; want a refusal")
	}
	for _, limit := range []int{-1, 0, 1001} {
		if _, _, err := s.Rows.Range(t.Context(), part, "", "", limit); err == nil {
			t.Errorf("Range with limit %d: no error; want a refusal", limit)
		}
	}
}

// rowsOddKeys: every printable character can be in a key, at every place, up to 500 bytes.
func rowsOddKeys(t testing.TB, s Stores) {
	part := newName()
	keys := []delta.Key{
		{Part: part + strings.Repeat("p", 500-len(part)), Sort: strings.Repeat("s", 500)},
		{Part: part, Sort: "' OR 1=1 --"}, {Part: part, Sort: `"\`}, {Part: part, Sort: "../../etc"}, {Part: part, Sort: "%2F"},
	}
	for c := byte(' '); c <= '~'; c++ {
		keys = append(keys, delta.Key{Part: part, Sort: string(c)}, delta.Key{Part: part + string(c), Sort: "x" + string(c) + "x"})
	}
	var all []delta.Row
	for _, key := range keys {
		row := delta.Row{Key: key, Body: []byte(strconv.Quote(fmt.Sprint(key)))}
		row.Version = mustPut(t, s, row)
		all = append(all, row)
	}
	for _, row := range all {
		wantRow(t, s, row)
	}
	if rows, _, err := s.Rows.Range(t.Context(), part, "", "", 1000); err != nil || len(rows) != 99 {
		// 95 characters and four others.
		t.Errorf("Range over odd keys: %d rows, %v; want 99", len(rows), err)
	}
}

// rowsKeysApart: keys that look alike are not the same.
func rowsKeysApart(t testing.TB, s Stores) {
	part := newName()
	var keys []delta.Key
	for c := byte(' '); c <= '~'; c++ {
		keys = append(keys, delta.Key{Part: part, Sort: "b" + string(c) + "c"}, delta.Key{Part: part + string(c) + "b", Sort: "c"})
		if sep := string(c); strings.ToLower(sep) != sep {
			keys = append(keys, delta.Key{Part: part + "-" + sep, Sort: "u"}, delta.Key{Part: part + "-" + strings.ToLower(sep), Sort: "u"})
		}
	}
	for _, sort := range []string{"x", "X", "x ", " x", "x\\", "1", "01", "1.0", "1e0", "+1", "null"} {
		keys = append(keys, delta.Key{Part: part, Sort: sort})
	}
	var all []delta.Row
	for i, key := range keys {
		row := delta.Row{Key: key, Body: []byte(strconv.Itoa(i))}
		var err error
		if row.Version, err = s.Rows.Put(t.Context(), row); err != nil {
			t.Errorf("Put of %q: %v; it has met another key", key, err)
		}
		all = append(all, row)
	}
	for _, row := range all {
		wantRow(t, s, row)
	}
}

func rowsLargeBodies(t testing.TB, s Stores) {
	part := newName()
	for _, size := range []int{1, 1000, 4096, 65536, 300 << 10} {
		row := newRow(part, strconv.Itoa(size), 0, "")
		row.Body = largeBody(size)
		row.Version = mustPut(t, s, row)
		wantRow(t, s, row)
		row.Body = largeBody(size)
		row.Version = mustPut(t, s, row)
		wantRow(t, s, row)
	}
}

// rowsOwnCopy: what the caller does with a body later does not change the row.
func rowsOwnCopy(t testing.TB, s Stores) {
	row := newRow(newName(), "x", 0, `"aaaa"`)
	body := bytes.Clone(row.Body)
	row.Version = mustPut(t, s, row)
	row.Body[1] = 'X'
	if err := s.Rows.PutMany(t.Context(), []delta.Row{{Key: delta.Key{Part: row.Part, Sort: "y"}, Body: row.Body}}); err != nil {
		t.Fatal(err)
	}
	row.Body[2] = 'X'
	wantRow(t, s, delta.Row{Key: row.Key, Version: row.Version, Body: body})
	got, err := s.Rows.Get(t.Context(), row.Key)
	if err != nil {
		t.Fatal(err)
	}
	got.Body[1] = 'Y'
	many, err := s.Rows.GetMany(t.Context(), []delta.Key{row.Key})
	if err != nil || len(many) != 1 {
		t.Fatal(many, err)
	}
	many[0].Body[2] = 'Y'
	page, _, err := s.Rows.Range(t.Context(), row.Part, "", "", 1)
	if err != nil || len(page) != 1 {
		t.Fatal(page, err)
	}
	page[0].Body[3] = 'Y'
	wantRow(t, s, delta.Row{Key: row.Key, Version: row.Version, Body: body})
	y, err := s.Rows.Get(t.Context(), delta.Key{Part: row.Part, Sort: "y"})
	if err != nil || string(y.Body) != `"Xaaa"` {
		t.Errorf("PutMany kept %s, %v; want what it was given", y.Body, err)
	}
}

// rowsRangeOrder: rows come in the byte order of Sort, whatever a locale or a number would say.
func rowsRangeOrder(t testing.TB, s Stores) {
	part := newName()
	sorts := []string{"10", "9", "010", "1e1", "a", "A", "aa", "a ", "a!", "a~", "a/b", "a/", "a-b", "a_b", "ab", "B", "b", "z", "Z", "~", "~~", " ", "-1"}
	for c := byte(' '); c <= '~'; c++ {
		sorts = append(sorts, "each"+string(c))
	}
	var versions []int64
	for i, sort := range sorts {
		versions = append(versions, mustPut(t, s, newRow(part, sort, 0, strconv.Itoa(i))))
	}
	mustPut(t, s, newRow(part+"0", "a", 0, "1"))
	got, more, err := s.Rows.Range(t.Context(), part, "", "", 1000)
	if err != nil || more {
		t.Fatalf("Range: more %v, %v", more, err)
	}
	for _, row := range got {
		if i, _ := strconv.Atoi(string(row.Body)); row.Part != part || row.Version != versions[i] || sorts[i] != row.Sort {
			t.Errorf("Range of %s gave %q with version %d and body %s", part, row.Key, row.Version, row.Body)
		}
	}
	if diff := cmp.Diff(slices.Sorted(slices.Values(sorts)), sortsOf(got)); diff != "" {
		t.Errorf("Range gave another order, -want +got:\n%s", diff)
	}
}

func rowsRangePrefix(t testing.TB, s Stores) {
	part := newName()
	sorts := []string{
		"A", "a", "a#", "a#1", "a#10", "a#2", "a#~", "a#~~", "a$", "a%", "a%b", "aXb", "a_", "a_b", "a*", "a*b", "a?", "a[a]", "ab", "a\\", "b", "~", "~~", "~a", " ", "  ",
	}
	for _, sort := range sorts {
		mustPut(t, s, newRow(part, sort, 0, "1"))
	}
	for _, prefix := range append(sorts, "", "a#3", "c", "a#~~~", "~~~") {
		for _, after := range append(sorts, "", "a#0", "zz", "a#~ ") {
			var want []string
			for _, sort := range slices.Sorted(slices.Values(sorts)) {
				if strings.HasPrefix(sort, prefix) && sort > after {
					want = append(want, sort)
				}
			}
			if got := rangeAll(t, s, part, prefix, after, 1000); !slices.Equal(want, got) {
				t.Errorf("Range with prefix %q after %q gave %q; want %q", prefix, after, got, want)
			}
		}
	}
}

// rowsRangePages: pages of any size join without a gap, and more is right at every boundary.
func rowsRangePages(t testing.TB, s Stores) {
	part := newName()
	var all []string
	for i := range 12 {
		all = append(all, fmt.Sprintf("p/%02d", i))
		mustPut(t, s, newRow(part, all[i], 0, "1"))
	}
	mustPut(t, s, newRow(part, "o", 0, "1")) // before
	mustPut(t, s, newRow(part, "q", 0, "1")) // behind: no reason for more
	for limit := 1; limit <= 14; limit++ {
		if got := rangeAll(t, s, part, "p/", "", limit); !slices.Equal(got, all) {
			t.Errorf("pages of %d gave %q; want %q", limit, got, all)
		}
	}
	for i := range all {
		if got := rangeAll(t, s, part, "p/", all[i], 5); !slices.Equal(got, all[i+1:]) {
			t.Errorf("pages after %s gave %q; want %q", all[i], got, all[i+1:])
		}
	}
}

// rowsRangeWhileWritten: rows that stand while somebody pages come exactly once, also when the row that the next page
// begins after is deleted.
func rowsRangeWhileWritten(t testing.TB, s Stores) {
	part := newName()
	var want []string
	for i := range 10 {
		want = append(want, fmt.Sprintf("%02d", i*10))
		mustPut(t, s, newRow(part, want[i], 0, "1"))
	}
	var got []string
	for after, more := "", true; more; {
		var rows []delta.Row
		var err error
		rows, more, err = s.Rows.Range(t.Context(), part, "", after, 3)
		if err != nil || (more && len(rows) == 0) {
			t.Fatalf("Range: %d rows, more %v, %v", len(rows), more, err)
		}
		for _, row := range rows {
			if strings.HasSuffix(row.Sort, "0") {
				got = append(got, row.Sort)
			}
			after = row.Sort
		}
		if len(rows) > 0 {
			last := rows[len(rows)-1]
			if err := s.Rows.Delete(t.Context(), last.Key, last.Version); err != nil {
				t.Fatal(err)
			}
			mustPut(t, s, newRow(part, after[:1]+"-", 0, "1")) // before the place
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("paging while rows come and go, -want +got:\n%s", diff)
	}
}

// rowsRangeLarge: a page may be cut short by its weight, but says so and can be gone on from.
func rowsRangeLarge(t testing.TB, s Stores) {
	part := newName()
	var want []string
	for i := range 8 {
		want = append(want, strconv.Itoa(i))
		row := newRow(part, want[i], 0, "")
		row.Body = largeBody(290 << 10)
		mustPut(t, s, row)
	}
	if got := rangeAll(t, s, part, "", "", 1000); !slices.Equal(got, want) {
		t.Errorf("Range over large rows gave %q; want %q", got, want)
	}
	keys := make([]delta.Key, 8)
	for i := range keys {
		keys[i] = delta.Key{Part: part, Sort: want[i]}
	}
	if rows, err := s.Rows.GetMany(t.Context(), keys); err != nil || len(rows) != 8 {
		t.Errorf("GetMany of large rows: %d rows, %v; want 8", len(rows), err)
	}
}

// rowsScan: all rows of all partitions whose name begins with the prefix, as they are, and no others.
func rowsScan(t testing.TB, s Stores) {
	name := newName()
	want := map[string]string{}
	for i, key := range []delta.Key{
		{Part: name, Sort: "row"}, {Part: name, Sort: "entries/000001"}, {Part: name + "/", Sort: "~"}, {Part: name + "/1", Sort: "row"}, {Part: name + "/1", Sort: " "},
		{Part: name + "/10", Sort: "row"}, {Part: name + "/1/2", Sort: "row"}, {Part: name + "/A", Sort: "row"}, {Part: name + "/a", Sort: "row"}, {Part: name + "%", Sort: "row"},
		{Part: name + "%/1", Sort: "row"}, {Part: name + "_/1", Sort: "row"}, {Part: name + "x/1", Sort: "row"}, {Part: name + "~~", Sort: "row"}, {Part: "." + name, Sort: name},
	} {
		row := delta.Row{Key: key, Body: []byte(strconv.Itoa(i))}
		row.Version = mustPut(t, s, row)
		want[key.Part+"|"+key.Sort] = fmt.Sprint(i, " ", row.Version)
	}
	for _, prefix := range []string{name, name + "/", name + "/1", name + "/A", name + "%", name + "_", name + "~", name + "nobody"} {
		these := map[string]string{}
		for k, v := range want {
			if strings.HasPrefix(k, prefix) {
				these[k] = v
			}
		}
		if diff := cmp.Diff(these, scanAll(t, s, prefix, 1000, nil)); diff != "" {
			t.Errorf("Scan of %q, -want +got:\n%s", prefix, diff)
		}
	}
	// What one store could not take, no store takes; and a whole table is nobody's business.
	for _, prefix := range []string{"", "ü", strings.Repeat("x", 501)} {
		if _, _, err := s.Rows.Scan(t.Context(), prefix, "", 1); err == nil {
			t.Errorf("Scan of %.20q: no error; want a refusal", prefix)
		}
	}
	for _, limit := range []int{-1, 0, 1001} {
		if _, _, err := s.Rows.Scan(t.Context(), name, "", limit); err == nil {
			t.Errorf("Scan with limit %d: no error; want a refusal", limit)
		}
	}
	if _, _, err := s.Rows.Scan(t.Context(), name, "nowhere", 1); err == nil {
		t.Error("Scan from a place that no Scan returned: no error; want a refusal")
	}
}

// rowsScanPages: pages of any size join without a gap, also when each is fetched by another process.
func rowsScanPages(t testing.TB, s Stores) {
	name := newName()
	want := map[string]string{}
	for i := range 12 {
		row := newRow(fmt.Sprintf("%s/%d", name, i/3), strconv.Itoa(i), 0, strconv.Itoa(i))
		row.Version = mustPut(t, s, row)
		want[row.Part+"|"+row.Sort] = fmt.Sprint(i, " ", row.Version)
	}
	for _, limit := range []int{1, 2, 5, 11, 12, 13, 1000} {
		if diff := cmp.Diff(want, scanAll(t, s, name, limit, nil)); diff != "" {
			t.Errorf("pages of %d, -want +got:\n%s", limit, diff)
		}
	}
	if diff := cmp.Diff(want, scanAll(t, s, name, 5, func(s Stores, _ []delta.Row) Stores { return s.Reopen(t) })); diff != "" {
		t.Errorf("each page in a process of its own, -want +got:\n%s", diff)
	}
}

// rowsScanWhileWritten: rows that stand while somebody scans come, also when those that a page ended with are deleted, and
// when others come in.
func rowsScanWhileWritten(t testing.TB, s Stores) {
	name := newName()
	stands := map[string]bool{}
	for i := range 30 {
		row := newRow(fmt.Sprintf("%s/%d", name, i), "row", 0, "1")
		row.Version = mustPut(t, s, row)
		stands[row.Part+"|row"] = true
	}
	n := 0
	got := scanAll(t, s, name, 4, func(s Stores, page []delta.Row) Stores {
		if len(page) > 0 {
			last := page[len(page)-1]
			if err := s.Rows.Delete(t.Context(), last.Key, last.Version); err != nil {
				t.Fatal(err)
			}
		}
		if n++; n < 10 {
			mustPut(t, s, newRow(fmt.Sprintf("%s/new%d", name, n), "row", 0, "1"))
		}
		return s
	})
	for key := range stands {
		if _, ok := got[key]; !ok {
			t.Errorf("Scan left out %s, which was there when its turn came", key)
		}
	}
}

// rowsScanLarge: a page may be cut short by its weight, but can be gone on from.
func rowsScanLarge(t testing.TB, s Stores) {
	name := newName()
	for i := range 8 {
		row := newRow(fmt.Sprintf("%s/%d", name, i), "row", 0, "")
		row.Body = largeBody(290 << 10)
		mustPut(t, s, row)
	}
	if got := scanAll(t, s, name, 1000, nil); len(got) != 8 {
		t.Errorf("Scan over large rows gave %d; want 8", len(got))
	}
}

// scanAll pages to the end and returns what there is by key, as body and version. Between, when set, sees every page and says
// which process asks for the next one.
func scanAll(t testing.TB, s Stores, prefix string, limit int, between func(Stores, []delta.Row) Stores) map[string]string {
	t.Helper()
	got := map[string]string{}
	from := ""
	for range 10_000 {
		page, next, err := s.Rows.Scan(t.Context(), prefix, from, limit)
		if err != nil {
			t.Fatalf("Scan of %q from %q: %v", prefix, from, err)
		}
		if len(page) > limit {
			t.Errorf("Scan gave %d rows; the limit was %d", len(page), limit)
		}
		for _, row := range page {
			if len(row.Body) < 20 {
				got[row.Part+"|"+row.Sort] = fmt.Sprint(string(row.Body), " ", row.Version)
			} else {
				got[row.Part+"|"+row.Sort] = "large"
			}
		}
		if next == "" {
			return got
		}
		if between != nil {
			s = between(s, page)
		}
		from = next
	}
	t.Fatalf("Scan of %q does not end", prefix)
	return nil
}

func rowsCancelled(t testing.TB, s Stores) {
	row := newRow(newName(), "x", 0, "1")
	row.Version = mustPut(t, s, row)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	calls := map[string]func() error{
		"Get":     func() error { _, err := s.Rows.Get(ctx, row.Key); return err },
		"GetMany": func() error { _, err := s.Rows.GetMany(ctx, []delta.Key{row.Key}); return err },
		"Put":     func() error { _, err := s.Rows.Put(ctx, newRow(row.Part, "x", row.Version, "2")); return err },
		"PutMany": func() error { return s.Rows.PutMany(ctx, []delta.Row{newRow(row.Part, "x", 0, "2")}) },
		"Delete":  func() error { return s.Rows.Delete(ctx, row.Key, row.Version) },
		"Range":   func() error { _, _, err := s.Rows.Range(ctx, row.Part, "", "", 1); return err },
		"Scan":    func() error { _, _, err := s.Rows.Scan(ctx, row.Part, "", 1); return err },
	}
	for name, call := range calls {
		if err := call(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s with a cancelled context: %v; want context.Canceled", name, err)
		}
	}
	wantRow(t, s, row)
}

// rowsKept: a new process finds what was acknowledged.
func rowsKept(t testing.TB, s Stores) {
	part := newName()
	row := newRow(part, "put", 0, `"old"`)
	old := mustPut(t, s, row)
	row.Version = old
	row.Body = []byte(`"new"`)
	row.Version = mustPut(t, s, row)
	gone := newRow(part, "gone", 0, "1")
	if err := s.Rows.Delete(t.Context(), gone.Key, mustPut(t, s, gone)); err != nil {
		t.Fatal(err)
	}
	if err := s.Rows.PutMany(t.Context(), []delta.Row{newRow(part, "many", 0, "1")}); err != nil {
		t.Fatal(err)
	}
	s = s.Reopen(t)
	wantRow(t, s, row)
	wantNoRow(t, s, gone.Key)
	if got := rangeAll(t, s, part, "", "", 10); !slices.Equal(got, []string{"many", "put"}) {
		t.Errorf("after reopening there is %q; want many and put", got)
	}
	if _, err := s.Rows.Put(t.Context(), newRow(part, "put", old, "1")); !errors.Is(err, delta.ErrStale) {
		t.Errorf("Put with a stale version after reopening: %v; want ErrStale", err)
	}
	mustPut(t, s, row)
}

// newRow is a row with a body.
func newRow(part, sort string, version int64, body string) delta.Row {
	return delta.Row{Key: delta.Key{Part: part, Sort: sort}, Version: version, Body: []byte(body)}
}

// largeBody is a JSON string of n bytes that does not compress (one digit if n is 1).
func largeBody(n int) []byte {
	if n < 2 {
		return []byte("7")
	}
	b := make([]byte, n/2+1)
	rand.Read(b)
	b = hex.AppendEncode(nil, b)[:n]
	b[0], b[n-1] = '"', '"'
	return b
}

// race calls f in n goroutines that begin together, and waits for them.
func race(n int, f func(i int)) {
	var wg sync.WaitGroup
	var ready atomic.Int64
	begin := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			if ready.Add(1) == int64(n) {
				close(begin)
			}
			<-begin
			f(i)
		})
	}
	wg.Wait()
}

// mustPut writes a row and returns its new version, which must be greater than the one that was read.
func mustPut(t testing.TB, s Stores, row delta.Row) int64 {
	t.Helper()
	v, err := s.Rows.Put(t.Context(), row)
	if err != nil {
		t.Fatalf("Put of %.80q with version %d: %v", row.Key, row.Version, err)
	}
	if v <= row.Version {
		t.Errorf("Put of %.80q over version %d gave version %d; want it to grow", row.Key, row.Version, v)
	}
	return v
}

// wantRow reads a row in each of the three ways.
func wantRow(t testing.TB, s Stores, want delta.Row) {
	t.Helper()
	got, err := s.Rows.Get(t.Context(), want.Key)
	if err != nil {
		t.Errorf("Get of %.80q: %v", want.Key, err)
		return
	}
	if !same(got, want) {
		t.Errorf("Get of %.80q: %.80q with version %d and body %.80s; want version %d and body %.80s",
			want.Key, got.Key, got.Version, got.Body, want.Version, want.Body)
	}
	many, err := s.Rows.GetMany(t.Context(), []delta.Key{want.Key})
	if err != nil || len(many) != 1 {
		t.Errorf("GetMany of %.80q: %d rows, %v; want 1", want.Key, len(many), err)
	} else if !same(got, many[0]) {
		t.Errorf("GetMany differs from Get: %.80q at version %d with %.80s; Get gave %.80q at version %d with %.80s", many[0].Key, many[0].Version, many[0].Body, got.Key, got.Version, got.Body)
	}
	page, _, err := s.Rows.Range(t.Context(), want.Part, want.Sort, "", 1)
	if err != nil || len(page) != 1 {
		t.Errorf("Range of %.80q: %d rows, %v; want 1", want.Key, len(page), err)
	} else if !same(got, page[0]) {
		t.Errorf("Range differs from Get: %.80q at version %d with %.80s; Get gave %.80q at version %d with %.80s", page[0].Key, page[0].Version, page[0].Body, got.Key, got.Version, got.Body)
	}
}

func same(a, b delta.Row) bool {
	return a.Key == b.Key && a.Version == b.Version && bytes.Equal(a.Body, b.Body)
}

func wantNoRow(t testing.TB, s Stores, key delta.Key) {
	t.Helper()
	if row, err := s.Rows.Get(t.Context(), key); !errors.Is(err, delta.ErrNoRow) {
		t.Errorf("Get of %.80q: %.80s, %v; want ErrNoRow", key, row.Body, err)
	}
}

// rangeAll pages to the end and returns the Sorts. It checks what holds for every page.
func rangeAll(t testing.TB, s Stores, part, prefix, after string, limit int) (sorts []string) {
	t.Helper()
	for range 10_000 {
		rows, more, err := s.Rows.Range(t.Context(), part, prefix, after, limit)
		if err != nil {
			t.Fatalf("Range with prefix %q after %q: %v", prefix, after, err)
		}
		if len(rows) > limit {
			t.Errorf("Range gave %d rows; the limit was %d", len(rows), limit)
		}
		sorts = append(sorts, sortsOf(rows)...)
		if !more {
			return sorts
		}
		if len(rows) == 0 {
			t.Fatalf("Range with prefix %q after %q says there is more but gives no row to go on from", prefix, after)
		}
		after = rows[len(rows)-1].Sort
		if rest, _, err := s.Rows.Range(t.Context(), part, prefix, after, 1); err != nil || len(rest) == 0 {
			t.Errorf("Range with prefix %q says there is more after %q, but there is not (%v)", prefix, after, err)
		}
	}
	t.Fatalf("Range with prefix %q does not end", prefix)
	return nil
}

func sortsOf(rows []delta.Row) (sorts []string) {
	for _, row := range rows {
		sorts = append(sorts, row.Sort)
	}
	return sorts
}
