package main
import ("testing";"encoding/json";"os";"os/exec";"path/filepath")
func TestZZ(t *testing.T){
 top,_ := root(t.Context())
 for _, b := range bugs() {
  d := t.TempDir()
  c, err := b.apply(top, d)
  if err != nil { t.Error(err); continue }
  j,_ := json.Marshal(map[string]any{"Replace": c})
  p := filepath.Join(d,"o.json"); os.WriteFile(p,j,0o600)
  cmd := exec.Command("go","build","-overlay",p,"./shared/delta/deltatest/sim"); cmd.Dir = top
  if out, err := cmd.CombinedOutput(); err != nil { t.Errorf("%s: %v\n%s", b.name, err, out) }
 }
}
