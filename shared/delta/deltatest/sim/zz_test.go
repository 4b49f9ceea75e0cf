package sim
import "testing"
func TestZZ(t *testing.T) {
	for n := 100; n <= 300; n++ {
		s := seedOf(1, n)
		a, b := playOne(s, nil, true), playOne(s, nil, true)
		for i := range a.trace { if i >= len(b.trace) || a.trace[i] != b.trace[i] { t.Errorf("%d: line %d\n%.300s\n%.300s", n, i, a.trace[i], b.trace[min(i,len(b.trace)-1)]); break } }
	}
}
